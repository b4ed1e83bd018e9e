// Package sojourn keeps a visitor's state between HTTP requests.
//
// A small anonymous session is sealed in the visitor's cookie. It moves to a
// [store.Store] when it outgrows the cookie, holds a [ServerSide] value, or
// belongs to a logged-in user. In the store, concurrent requests never lose
// each other's changes, and a logout is final.
//
//	keys, err := sojourn.LoadKeyFile("data/session.keys")
//	db, err := sqlite.Open("data/sessions.db")
//	sessions, err := sojourn.New(sojourn.Config{Keys: keys, Store: db})
//	http.ListenAndServe("localhost:8080", sessions.Wrap(mux))
//
// Values are typed. Make a [Key] for each, once:
//
//	var cart = sojourn.NewKey[Cart]("cart", sojourn.ServerSide)
//
//	sessions.Handler(func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) {
//		cart.Update(s, func(c Cart) Cart { return c.With(item) })
//		s.Flash("success", "Added to your cart")
//		http.Redirect(w, r, "/cart", http.StatusSeeOther)
//	})
//
// The changes of a request are saved once, right before the first byte of its
// response, or the visitor gets an error instead: see [Manager.Wrap]. Streams,
// and handlers that need the result earlier, call [Session.Save].
//
// Changes to a stored session are merged key by key: Set is last-writer-wins,
// [Key.Update] is an exact read-modify-write, and [Key.Pop] has one winner. A
// session in the cookie cannot be merged: the last response wins.
//
// Cookies and records are sealed with XAES-256-GCM under a [KeyRing]. Stores
// see a hash of the session identifier. Errors, logs, and counters name a
// session by its handle, which is no secret. See docs/run/security.md for the
// threat model and docs/wire-format.md for the formats.
//
// Within a major version, the API is stable, and cookies and records stay
// readable. The changelog says when a release starts to write a newer format.
//
// See package keys for keys, ops for operators, and adopt for sessions of other
// libraries.
package sojourn
