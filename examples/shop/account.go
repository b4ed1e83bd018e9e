package main

import (
	"context"
	"errors"
	"net/http"
	"net/mail"
	"net/url"
	"strings"
	"unicode/utf8"

	"github.com/sojourn-go/sojourn"
)

// customerKey spares every page a look-up in the customers' table. The session
// itself knows who is logged in (Session.User); this is only what to call them.
var customerKey = sojourn.NewKey[Customer]("customer")

// Customer is what pages show of whoever is signed in.
type Customer struct {
	Name  string `cbor:"name"`
	Email string `cbor:"email"`
}

// accountPage is the content of the sign-up and the login form.
type accountPage struct {
	formPage
	Next   string // where to go afterwards
	OpenID bool   // there is a provider to sign in with
}

func (s *shop) signUpPage(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	s.accountForm(w, r, session, "signup")
}

func (s *shop) loginPage(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	s.accountForm(w, r, session, "login")
}

func (s *shop) accountForm(w http.ResponseWriter, r *http.Request, session *sojourn.Session, name string) {
	next := localPath(r.FormValue("next"), "/")
	if session.User() != "" {
		http.Redirect(w, r, next, http.StatusSeeOther)
		return
	}
	s.show(w, r, session, http.StatusOK, name, accountPage{formPage{takeDraft(session, name)}, next, s.signIn != nil})
}

func (s *shop) signUp(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	next := localPath(r.PostFormValue("next"), "/")
	form := newDraft("signup", r, "name", "email")
	email, ok := tidyEmail(form.Values["email"])
	if !ok {
		form.problem("email", "account.email.bad")
	}
	if n := utf8.RuneCountInString(form.Values["name"]); n < 1 || n > 60 {
		form.problem("name", "account.name.bad")
	}
	password := r.PostFormValue("password")
	if n := utf8.RuneCountInString(password); n < 10 || n > 200 {
		form.problem("password", "account.password.bad")
	}
	if !form.good() {
		s.again(w, r, session, form, "/signup?next="+url.QueryEscape(next))
		return
	}
	hash, err := hashPassword(r.Context(), password)
	if err != nil {
		s.broken(w, r, err)
		return
	}
	id, err := s.ledger.addCustomer(r.Context(), form.Values["name"], email, hash)
	if errors.Is(err, errEmailTaken) {
		form.problem("email", "account.email.taken")
		s.again(w, r, session, form, "/signup?next="+url.QueryEscape(next))
		return
	}
	if err != nil {
		s.broken(w, r, err)
		return
	}
	session.Login(id, "pwd")
	s.enter(w, r, session, Customer{form.Values["name"], email}, "signup.welcome", next)
}

func (s *shop) login(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	next := localPath(r.PostFormValue("next"), "/")
	form := newDraft("login", r, "email", "remember")
	email, _ := tidyEmail(form.Values["email"])
	id, name, hash, err := s.ledger.customerByEmail(r.Context(), email)
	if err != nil && !errors.Is(err, errNoCustomer) {
		s.broken(w, r, err)
		return
	}
	// An unknown address takes as long as a wrong password, and reads the same.
	ok, err := checkPassword(r.Context(), hash, r.PostFormValue("password"))
	if err != nil {
		s.broken(w, r, err)
		return
	}
	if ok {
		// LoginIf asks again when the session is written: a login that is under way
		// while the password changes comes to nothing.
		err = session.LoginIf(r.Context(), id, func(ctx context.Context) error {
			_, _, now, err := s.ledger.customerByEmail(ctx, email)
			if err == nil && now != hash {
				return errNoCustomer
			}
			return err
		}, "pwd")
	}
	switch {
	case !ok, errors.Is(err, errNoCustomer):
		form.problem("password", "login.wrong")
		s.again(w, r, session, form, "/login?next="+url.QueryEscape(next))
	case sojourn.IsError(err):
		s.sessions.ServeError(w, r, err)
	case err != nil:
		s.broken(w, r, err)
	default:
		s.enter(w, r, session, Customer{name, email}, "login.welcome", next)
	}
}

// enter greets a visitor who has become a customer. The login has given the session
// a fresh identifier, so whoever knew or planted the old one is left outside; what
// the visitor had collected before (cart, wishes, theme) comes along.
func (s *shop) enter(w http.ResponseWriter, r *http.Request, session *sojourn.Session, c Customer, greeting, next string) {
	// Without "stay signed in" the browser drops the cookie when it is closed.
	session.Remember(r.PostFormValue("remember") != "")
	customerKey.Set(session, c)
	session.Flash("success", s.pages.language(r, session).T(greeting, c.Name))
	s.seeOther(w, r, session, next)
}

// logout ends the session for good: for this browser, and for whoever holds a
// copy of its cookie. What follows is a new, anonymous session; theme and
// language are no secrets, so they are handed over.
func (s *shop) logout(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	operator, err := s.support.Get(r.Context())
	if err != nil {
		s.support.ServeError(w, r, err)
		return
	}
	operator.Logout() // does nothing for everybody else
	restore := looks(session)
	session.Logout()
	restore()
	session.Flash("info", s.pages.language(r, session).T("logout.done"))
	s.seeOther(w, r, session, "/")
}

// looks returns a function that gives the session theme and language back.
func looks(session *sojourn.Session) (restore func()) {
	theme, themeErr := themeKey.Lookup(session)
	language, languageErr := languageKey.Lookup(session)
	return func() {
		if themeErr == nil {
			themeKey.Set(session, theme)
		}
		if languageErr == nil {
			languageKey.Set(session, language)
		}
	}
}

// customersOnly sends everybody else to the login page, and back afterwards.
func (s *shop) customersOnly(next func(http.ResponseWriter, *http.Request, *sojourn.Session)) func(http.ResponseWriter, *http.Request, *sojourn.Session) {
	return func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		if session.User() == "" {
			http.Redirect(w, r, "/login?next="+url.QueryEscape(r.URL.Path), http.StatusSeeOther)
			return
		}
		next(w, r, session)
	}
}

func tidyEmail(s string) (string, bool) {
	s = strings.ToLower(strings.TrimSpace(s))
	a, err := mail.ParseAddress(s)
	return s, err == nil && a.Address == s && len(s) <= 254
}

// localPath returns path if it leads to a page of this shop, and otherwise the
// fallback: a link to the login page must not send anybody elsewhere.
func localPath(path, fallback string) string {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t") {
		return fallback
	}
	u, err := url.Parse(path)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil {
		return fallback
	}
	return u.String()
}
