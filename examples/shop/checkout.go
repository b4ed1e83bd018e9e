package main

import (
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/sojourn-go/sojourn"
)

// pendingKey holds the visitor's open checkout. It is ServerSide, so only one
// of several submits takes it, and a replayed cookie cannot restore it. It
// expires after an hour, because prices change.
var pendingKey = sojourn.NewKey[Pending]("checkout", sojourn.ServerSide, sojourn.TTL(time.Hour))

// Pending is the content of the checkout page. The order has exactly this
// content, even if another tab adds an item meanwhile.
type Pending struct {
	Token string `cbor:"token"`
	Lines []Line `cbor:"lines"`
}

func payments() []string { return []string{"shells", "story", "promise"} }

type checkoutPage struct {
	formPage
	Payments []string
	Token    string
	Bill     bill
}

func (s *shop) checkout(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	cart := cartKey.Get(session)
	if len(cart.Lines) == 0 {
		session.Flash("info", s.pages.language(r, session).T("checkout.empty"))
		s.seeOther(w, r, session, "/cart")
		return
	}
	// The same cart keeps its token, so that a second tab on this page does not
	// invalidate the first one's form.
	pending := pendingKey.Get(session)
	if !slices.Equal(pending.Lines, cart.Lines) {
		pending = Pending{Token: rand.Text(), Lines: cart.Lines}
		pendingKey.Set(session, pending)
	}
	s.show(w, r, session, http.StatusOK, "checkout", checkoutPage{
		formPage: formPage{takeDraft(session, "checkout")},
		Payments: payments(),
		Token:    pending.Token,
		Bill:     billFor(pending.Lines),
	})
}

// placeOrder orders once, however often the form is sent, and whatever fails in
// between. Two mechanisms ensure this:
//
//   - Pop has one winner. The loser's commit fails with ErrTaken, and none of
//     its changes is kept, so the cart is emptied once.
//   - The ledger knows each order by its token. If this process dies after the
//     order was written and before the session was saved, the cart and the token
//     are still there, and sending the form again finds the order.
func (s *shop) placeOrder(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	t := s.pages.language(r, session)
	token := r.PostFormValue("token")
	form := newDraft("checkout", r, "name", "street", "city", "payment")
	for field, value := range form.Values {
		if value == "" {
			form.problem(field, "checkout.missing")
		}
	}
	if !slices.Contains(payments(), form.Values["payment"]) {
		form.problem("payment", "checkout.missing")
	}
	pending, err := pendingKey.Lookup(session)
	if err != nil || pending.Token != token {
		s.alreadyOrdered(w, r, session, token)
		return
	}
	if !form.good() {
		s.again(w, r, session, form, "/checkout")
		return
	}

	pendingKey.Pop(session)
	number, err := s.ledger.placeOrder(r.Context(), session.User(), token, delivery{
		Name:    form.Values["name"],
		Street:  form.Values["street"],
		City:    form.Values["city"],
		Payment: form.Values["payment"],
	}, billFor(pending.Lines))
	if err != nil {
		s.broken(w, r, err)
		return
	}
	cartKey.Update(session, func(c Cart) Cart { return c.minus(pending.Lines) })
	session.Flash("success", t.T("checkout.done"))

	// Usually the response's first byte commits. Here the answer depends on the
	// outcome of the commit.
	err = session.Save(r.Context())
	if errors.Is(err, sojourn.ErrTaken) {
		session.Discard()
		s.alreadyOrdered(w, r, session, token)
		return
	}
	if err != nil {
		s.sessions.ServeError(w, r, err)
		return
	}
	s.seeOther(w, r, session, "/orders/"+number)
}

// alreadyOrdered answers a form that was sent twice with its order, and an
// outdated form with the current checkout page.
func (s *shop) alreadyOrdered(w http.ResponseWriter, r *http.Request, session *sojourn.Session, token string) {
	t := s.pages.language(r, session)
	number, err := s.ledger.orderByToken(r.Context(), session.User(), token)
	switch {
	case errors.Is(err, errNoOrder):
		session.Flash("info", t.T("checkout.stale"))
		s.seeOther(w, r, session, "/checkout")
	case err != nil:
		s.broken(w, r, err)
	default:
		session.Flash("info", t.T("checkout.twice"))
		s.seeOther(w, r, session, "/orders/"+number)
	}
}

// ordersPage and orderPage are the contents of pages that an operator may see as well.
type ordersPage struct {
	Customer customerShown
	Acting   bool
	Orders   []order
}

type orderPage struct {
	Customer customerShown
	Acting   bool
	order
}

func (s *shop) orders(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	customer, acting, err := s.whose(r, session)
	if err != nil {
		s.support.ServeError(w, r, err)
		return
	}
	orders, err := s.ledger.orders(r.Context(), customer.ID)
	if err != nil {
		s.broken(w, r, err)
		return
	}
	s.show(w, r, session, http.StatusOK, "orders", ordersPage{customer, acting, orders})
}

func (s *shop) order(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	customer, acting, err := s.whose(r, session)
	if err != nil {
		s.support.ServeError(w, r, err)
		return
	}
	order, err := s.ledger.order(r.Context(), customer.ID, r.PathValue("number"))
	if errors.Is(err, errNoOrder) {
		s.notFound(w, r, session)
		return
	}
	if err != nil {
		s.broken(w, r, err)
		return
	}
	s.show(w, r, session, http.StatusOK, "order", orderPage{customer, acting, order})
}
