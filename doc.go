// Package sojourn keeps a visitor's state between HTTP requests.
//
// A small anonymous session is sealed in the visitor's cookie. One that grows,
// holds a [ServerSide] value or belongs to a logged-in user moves to a
// [store.Store] by itself: there, parallel requests never lose each other's
// changes, and a logout is final.
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
//	func add(w http.ResponseWriter, r *http.Request) {
//		session, err := sessions.Get(r.Context())
//		if err != nil {
//			sessions.ServeError(w, r, err)
//			return
//		}
//		cart.Update(session, func(c Cart) Cart { return c.With(item) })
//		session.Flash("success", "Added to your cart")
//		http.Redirect(w, r, "/cart", http.StatusSeeOther)
//	}
//
// A request's changes are committed once, right before the first byte of its
// response: a good status means that they are kept. See [Manager.Wrap], and
// [Session.Save] for streams and for handlers that need to know earlier.
//
// In a stored session changes are merged key by key: Set is last-writer-wins,
// [Key.Update] is exact, [Key.Pop] has one winner. A session in the cookie has no
// server to merge on: the last response wins.
//
// Cookies and records are sealed with XAES-256-GCM under a [KeyRing]. Stores see
// only a hash of the session identifier. Errors, logs and counters name sessions
// by their handle, never by a secret. docs/run/security.md is the threat model,
// docs/wire-format.md the bytes.
//
// Within a major version the names of this package, the cookies and the records
// stay readable; a release says so when it starts to write a newer form.
//
// Package keys has what changes keys, ops what operators need, adopt the contract
// for sessions of other libraries.
package sojourn
