package main

import (
	"context"
	"embed"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/admin"
	"github.com/sojourn-go/sojourn/oidc"
)

//go:embed static templates texts
var files embed.FS

// parts are the dependencies of a shop. The caller closes store and ledger,
// after the shop.
type parts struct {
	keys     *sojourn.KeyRing
	store    sessionStore
	ledger   *ledger
	logger   *slog.Logger
	url      string   // of the shop, as browsers see it; for the provider
	provider provider // whose users may sign in; without issuer: none
	insecure bool     // cookies without Secure: never where it matters
	// operator is the e-mail address of the customer who may use /ops/; "" =
	// none. It is only an example: this shop does not confirm addresses.
	operator string
	// recent is how long a password counts as recently entered. 0 = 10 minutes.
	recent time.Duration
}

type shop struct {
	sessions       *sojourn.Manager
	support        *sojourn.Manager // of operators who act for customers
	ledger         *ledger
	pages          *pages
	earlier        *costs
	logger         *slog.Logger
	recorder       *admin.Recorder // of events, for the charts of /ops/
	operator       string
	recent         time.Duration
	devices        map[string]http.Handler // by theme
	ops            http.Handler
	signIn         *oidc.SignIn // nil without a provider
	providerOrigin string       // scheme and host
	example        bool         // the provider is that of startProvider
}

func newShop(p parts) (*shop, error) {
	pages, err := newPages(files)
	if err != nil {
		return nil, err
	}
	s := &shop{
		ledger: p.ledger, pages: pages, earlier: newCosts(), logger: p.logger,
		recorder: admin.NewRecorder(), recent: p.recent,
	}
	s.operator, _ = tidyEmail(p.operator)
	if s.recent == 0 {
		s.recent = 10 * time.Minute
	}
	// The defaults suit a shop: small sessions stay in the cookie, sessions end
	// after 7 days without a visit and after 30 days at the latest, and the
	// cookies are HttpOnly, Secure and Lax.
	audit := sojourn.AuditLog(p.logger)
	s.sessions, err = sojourn.New(sojourn.Config{
		Keys:         p.keys,
		Store:        meteredStore{p.store},
		Cookie:       sojourn.Cookie{Insecure: p.insecure},
		ErrorHandler: s.sessionFailed,
		Events: func(ctx context.Context, e sojourn.Event) {
			s.recorder.Record(ctx, e)
			audit(ctx, e)
		},
		Logger: p.logger,
	})
	if err != nil {
		return nil, err
	}
	if err := s.openSupport(p); err != nil {
		return nil, err
	}
	if err := s.openDevices(); err != nil {
		return nil, err
	}
	if err := s.openOps(); err != nil {
		return nil, err
	}
	if err := s.openSignIn(p.provider, p.url); err != nil {
		return nil, err
	}
	return s, nil
}

func (s *shop) close() error { return errors.Join(s.sessions.Close(), s.support.Close()) }

// handler is the whole shop: routes inside, protection outside.
func (s *shop) handler() http.Handler {
	mux := http.NewServeMux()
	// sessions.Handler passes the visitor's session to each handler, and
	// commits it before the first byte of the response. Handlers without a
	// session, such as for files, are mounted directly and cost nothing.
	with := func(pattern string, h func(http.ResponseWriter, *http.Request, *sojourn.Session)) {
		mux.Handle(pattern, s.sessions.Handler(h))
	}
	mux.Handle("GET /static/", s.pages.static())

	with("GET /{$}", s.home)
	with("GET /shelf/{shelf}", s.home)
	with("GET /product/{slug}", s.product)

	with("GET /cart", s.cart)
	with("POST /cart/add", s.addToCart)
	with("POST /cart/change", s.changeCart)
	with("GET /wishes", s.wishes)
	with("POST /wishes", s.changeWishes)

	with("GET /signup", s.signUpPage)
	with("POST /signup", s.signUp)
	with("GET /login", s.loginPage)
	with("POST /login", s.login)
	with("POST /logout", s.logout)

	if s.signIn != nil {
		mux.Handle("/auth/", s.signIn)
		with("POST /auth/logout", s.signOutThere)
	}

	with("GET /account", s.customersOnly(s.account))
	with("GET /confirm", s.customersOnly(s.confirmPage))
	with("POST /confirm", s.customersOnly(s.confirm))
	mux.Handle("GET /account/password", s.recently(s.withPassword(s.passwordPage)))
	mux.Handle("POST /account/password", s.recently(s.withPassword(s.changePassword)))
	with("/account/devices/", s.showDevices)
	mux.Handle("/ops/", s.ops)

	mux.Handle("GET /support", s.operatorsOnly(s.supportPage))
	mux.Handle("POST /support", s.operatorsOnly(s.act))
	with("POST /support/stop", s.customersOnly(s.stopActing))

	with("GET /checkout", s.customersOnly(s.checkout))
	with("POST /checkout", s.customersOnly(s.placeOrder))
	with("GET /orders", s.customersOnly(s.orders))
	with("GET /orders/{number}", s.customersOnly(s.order))

	with("GET /preferences", s.preferences)
	with("POST /preferences", s.changePreferences)
	with("GET /session", s.explain)
	with("POST /session/forget", s.forget)
	with("/", s.notFound)

	// Forms are accepted from this site's own pages only. The browser sends the
	// origin of a request (Sec-Fetch-Site), so no hidden tokens are needed.
	sameOrigin := http.NewCrossOriginProtection()
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.failure(w, r, http.StatusForbidden, "error.foreign")
	}))
	// The sessions of the second manager are asked for on few pages; where they are
	// not, this costs nothing.
	return s.secured(metered(sameOrigin.Handler(s.support.Wrap(mux))))
}

// secured sets the headers that every answer carries, and bounds what a
// visitor may send.
func (s *shop) secured(next http.Handler) http.Handler {
	// Chromium applies form-action to redirects as well, and a logout leads to the
	// provider.
	policy := "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self' " + s.providerOrigin + "; base-uri 'none'; frame-ancestors 'none'"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
		next.ServeHTTP(w, r)
	})
}

// sessionFailed answers when a session could not be loaded, or a handler's
// changes could not be saved: then the visitor must not get the handler's
// success page.
func (s *shop) sessionFailed(w http.ResponseWriter, r *http.Request, err error) {
	status, text := http.StatusInternalServerError, "error.internal"
	switch {
	case errors.Is(err, sojourn.ErrEnded), errors.Is(err, sojourn.ErrExpired):
		status, text = http.StatusConflict, "error.ended"
	case errors.Is(err, sojourn.ErrTaken):
		status, text = http.StatusConflict, "error.taken"
	case errors.Is(err, sojourn.ErrTooLarge):
		status, text = http.StatusRequestEntityTooLarge, "error.large"
	case errors.Is(err, sojourn.ErrUnavailable):
		status, text = http.StatusServiceUnavailable, "error.unavailable"
	}
	s.logger.Warn("session not available", "path", r.URL.Path, "status", status, "error", err)
	s.failure(w, r, status, text)
}

// broken answers when the ledger failed. With a status of 500 or more, Sojourn
// drops the handler's changes of the session.
func (s *shop) broken(w http.ResponseWriter, r *http.Request, err error) {
	s.logger.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
	s.failure(w, r, http.StatusInternalServerError, "error.internal")
}

func (s *shop) notFound(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	s.show(w, r, session, http.StatusNotFound, "message", message{Title: "error.404.title", Text: "error.404"})
}

// seeOther ends every form: the answer to a POST is always a redirect, so that
// reloading the next page repeats nothing.
func (s *shop) seeOther(w http.ResponseWriter, r *http.Request, session *sojourn.Session, path string) {
	http.Redirect(w, r, path, http.StatusSeeOther)
	// The redirect has committed the session, so its cost is known. The next
	// page shows it.
	s.earlier.put(session.Handle(), costOf(r.Context()).soFar(time.Now()))
}
