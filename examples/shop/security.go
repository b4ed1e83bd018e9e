package main

import (
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/admin"
)

// Sensitive pages require a recent password, because a customer may have left a
// browser open. The session has the time of the last authentication; Login
// updates it.

// openOps makes the pages on which operators see the state of the sessions.
func (s *shop) openOps() (err error) {
	s.ops, err = admin.Dashboard(s.sessions, admin.DashboardOptions{
		Path:      "/ops/",
		Authorize: s.isOperator,
		Operator:  s.customerEmail,
		Recorder:  s.recorder,
		StoreName: "SQLite",
		Site:      "Fernweg sessions",
		Home:      "/",
		Logger:    s.logger,
	})
	return err
}

// isOperator is only an example: it accepts the customer whose address was
// given on the command line. A real service checks a role and a second factor.
func (s *shop) isOperator(r *http.Request) bool {
	return s.operator != "" && s.customerEmail(r) == s.operator
}

// customerEmail returns the address of the signed-in customer, "" if there is none.
func (s *shop) customerEmail(r *http.Request) string {
	session, err := s.sessions.Get(r.Context())
	if err != nil || session.User() == "" {
		return ""
	}
	return customerKey.Get(session).Email
}

// accountLinks is the content of the account page.
type accountLinks struct {
	Operator bool
	Issuer   string // where the customer signs in; "" = with a password
}

func (s *shop) account(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	issuer, err := s.ledger.issuerOf(r.Context(), session.User())
	if err != nil {
		s.broken(w, r, err)
		return
	}
	s.show(w, r, session, http.StatusOK, "account", accountLinks{s.isOperator(r), issuer})
}

// recently requires that the password was entered, or that the provider
// authenticated the customer, in the last few minutes.
func (s *shop) recently(next func(http.ResponseWriter, *http.Request, *sojourn.Session)) http.Handler {
	ask := s.sessions.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		page := "/confirm"
		if s.signedInThere(session) {
			page = "/auth/login"
		}
		http.Redirect(w, r, page+"?next="+url.QueryEscape(r.URL.Path), http.StatusSeeOther)
	})
	return s.sessions.Wrap(s.sessions.RequireRecent(s.recent, ask)(s.sessions.Handler(s.customersOnly(next))))
}

// confirmPage asks for the password, or leads to the provider. The devices page sends
// forms here, and its Content-Security-Policy lets none of them go on to another
// site; a link may.
func (s *shop) confirmPage(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	next := localPath(r.FormValue("next"), "/account")
	s.show(w, r, session, http.StatusOK, "confirm", accountPage{formPage{takeDraft(session, "confirm")}, next, s.signedInThere(session), s.example})
}

func (s *shop) confirm(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	next := localPath(r.PostFormValue("next"), "/account")
	_, hash, err := s.ledger.customer(r.Context(), session.User())
	if err != nil {
		s.broken(w, r, err)
		return
	}
	ok, err := checkPassword(r.Context(), hash, r.PostFormValue("password"))
	if err != nil {
		s.broken(w, r, err)
		return
	}
	if !ok {
		form := newDraft("confirm", r)
		form.problem("password", "confirm.wrong")
		s.again(w, r, session, form, "/confirm?next="+url.QueryEscape(next))
		return
	}
	// The same user logs in again, so the session keeps its values.
	persistent := session.Info().Persistent
	session.Login(session.User(), "pwd")
	session.Remember(persistent)
	session.Flash("success", s.pages.language(r, session).T("confirm.done"))
	s.seeOther(w, r, session, next)
}

// withPassword sends customers away who have no password.
func (s *shop) withPassword(next func(http.ResponseWriter, *http.Request, *sojourn.Session)) func(http.ResponseWriter, *http.Request, *sojourn.Session) {
	return func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		issuer, err := s.ledger.issuerOf(r.Context(), session.User())
		switch {
		case err != nil:
			s.broken(w, r, err)
		case issuer != "":
			session.Flash("info", s.pages.language(r, session).T("openid.nopassword"))
			s.seeOther(w, r, session, "/account")
		default:
			next(w, r, session)
		}
	}
}

func (s *shop) passwordPage(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	s.show(w, r, session, http.StatusOK, "password", accountPage{formPage: formPage{takeDraft(session, "password")}})
}

// changePassword also ends the customer's other sessions: an attacker with the
// old password may have one.
func (s *shop) changePassword(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	password := r.PostFormValue("password")
	if n := utf8.RuneCountInString(password); n < 10 || n > 200 {
		form := newDraft("password", r)
		form.problem("password", "account.password.bad")
		s.again(w, r, session, form, "/account/password")
		return
	}
	hash, err := hashPassword(r.Context(), password)
	if err == nil {
		err = s.ledger.setPassword(r.Context(), session.User(), hash)
	}
	if err != nil {
		s.broken(w, r, err)
		return
	}
	ended, err := s.endSessions(r.Context(), session.User(), session.Handle())
	if err != nil {
		s.sessions.ServeError(w, r, err)
		return
	}
	session.Flash("success", s.pages.language(r, session).T("password.done", ended))
	s.seeOther(w, r, session, "/account")
}
