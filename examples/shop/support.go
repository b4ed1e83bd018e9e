package main

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn"
)

// A support employee sees a customer's orders without becoming that customer. A
// second manager keeps the operator's own session, and the customer is a value
// in it. So the customer's list of devices, history and limit of sessions do
// not change, the customer cannot continue in a session that support has
// opened, and nothing must be restored afterwards.

// customerShownKey is in a session of the second manager.
var customerShownKey = sojourn.NewKey[customerShown]("customer", sojourn.ServerSide, sojourn.TTL(30*time.Minute))

type customerShown struct {
	ID   string `cbor:"id"`
	Name string `cbor:"name"`
}

func (s *shop) openSupport(p parts) (err error) {
	s.support, err = sojourn.New(sojourn.Config{
		Name:         "support",
		Keys:         p.keys,
		Store:        meteredStore{p.store},
		Cookie:       sojourn.Cookie{Insecure: p.insecure},
		ErrorHandler: s.sessionFailed,
		Events:       sojourn.AuditLog(p.logger),
		Logger:       p.logger,
	})
	return err
}

// whose returns the customer whose orders a page shows. Every such page uses
// it, and nothing else reads customerShownKey.
//
// A customer is shown only while the same operator is signed in with both
// managers and is still an operator. So signing out of one manager, or ending a
// former operator's sessions with one, is enough.
func (s *shop) whose(r *http.Request, session *sojourn.Session) (c customerShown, acting bool, err error) {
	own := customerShown{ID: session.User(), Name: customerKey.Get(session).Name}
	if own.ID == "" || !s.isOperator(r) {
		return own, false, nil
	}
	operator, err := s.support.Get(r.Context())
	if err != nil {
		return own, false, err
	}
	if c = customerShownKey.Get(operator); c.ID == "" || operator.User() != own.ID {
		return own, false, nil
	}
	s.logger.Info("an operator sees a customer's orders", "operator", own.ID, "customer", c.ID, "path", r.URL.Path)
	return c, true, nil
}

// operatorsOnly admits operators who have recently entered their password.
func (s *shop) operatorsOnly(next func(http.ResponseWriter, *http.Request, *sojourn.Session)) http.Handler {
	return s.recently(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		if !s.isOperator(r) {
			s.notFound(w, r, session)
			return
		}
		next(w, r, session)
	})
}

func (s *shop) supportPage(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	s.show(w, r, session, http.StatusOK, "support", formPage{takeDraft(session, "support")})
}

// act starts showing a customer's orders to an operator.
func (s *shop) act(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	form := newDraft("support", r, "email")
	email, _ := tidyEmail(form.Values["email"])
	id, name, _, err := s.ledger.customerByEmail(r.Context(), email)
	if errors.Is(err, errNoCustomer) {
		form.problem("email", "support.nobody")
		s.again(w, r, session, form, "/support")
		return
	}
	if err != nil {
		s.broken(w, r, err)
		return
	}
	operator, err := s.support.Get(r.Context())
	if err != nil {
		s.support.ServeError(w, r, err)
		return
	}
	operator.Login(session.User(), session.Info().Methods...)
	customerShownKey.Set(operator, customerShown{id, name})
	s.logger.Info("an operator acts for a customer", "operator", session.User(), "customer", id)
	s.seeOther(w, r, session, "/orders")
}

// stopActing goes back to the operator's own orders. It needs no password.
func (s *shop) stopActing(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	operator, err := s.support.Get(r.Context())
	if err != nil {
		s.support.ServeError(w, r, err)
		return
	}
	operator.Logout()
	s.seeOther(w, r, session, "/account")
}

// endSessions ends a user's sessions with both managers, but the one with the
// handle keep. It returns how many of the shop's were live.
func (s *shop) endSessions(ctx context.Context, user, keep string) (int, error) {
	if _, err := s.support.RevokeUser(ctx, user); err != nil {
		return 0, err
	}
	return s.sessions.RevokeUser(ctx, user, keep)
}
