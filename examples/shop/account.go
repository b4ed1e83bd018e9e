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

// customerKey saves a query of the customers' table on every page. The session
// has the user (Session.User); this is only the displayed name.
var customerKey = sojourn.NewKey[Customer]("customer")

// Customer is the displayed data of the signed-in customer.
type Customer struct {
	Name  string `cbor:"name"`
	Email string `cbor:"email"`
}

// accountPage is the content of the sign-up and the login form.
type accountPage struct {
	formPage
	Next    string // where to go afterwards
	OpenID  bool   // there is a provider to sign in with
	Example bool   // it is the one of startProvider
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
	s.show(w, r, session, http.StatusOK, name, accountPage{formPage{takeDraft(session, name)}, next, s.signIn != nil, s.example})
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
	// An unknown address takes as long as a wrong password, and gives the same message.
	ok, err := checkPassword(r.Context(), hash, r.PostFormValue("password"))
	if err != nil {
		s.broken(w, r, err)
		return
	}
	if ok {
		// LoginIf calls the check again when the session is written, so a login
		// fails if the password changes meanwhile.
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

// enter finishes a login or sign-up. The login has given the session a new
// identifier, so the old one, which an attacker may have planted, is useless;
// the visitor's values (cart, wishes, theme) are kept.
func (s *shop) enter(w http.ResponseWriter, r *http.Request, session *sojourn.Session, c Customer, greeting, next string) {
	// Without "stay signed in" the browser drops the cookie when it is closed.
	session.Remember(r.PostFormValue("remember") != "")
	customerKey.Set(session, c)
	session.Flash("success", s.pages.language(r, session).T(greeting, c.Name))
	s.seeOther(w, r, session, next)
}

// logout ends the session for this browser and for any copy of its cookie. Then
// a new, anonymous session begins; it keeps theme and language, which are not
// secret.
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

// customersOnly sends other visitors to the login page, and back afterwards.
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
// fallback: a link to the login page must not redirect to another site.
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
