package main

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/sojourn-go/sojourn"
)

// cartKey is ServerSide: the first item moves the visitor's session from the
// cookie into the store. Only the store can keep the changes of two concurrent
// requests. With a cookie, the response that the browser receives last would
// win, and one tab's item would be lost.
var cartKey = sojourn.NewKey[Cart]("cart", sojourn.ServerSide)

// Cart is a session value. Only exported fields are kept. It has no prices: the
// shop looks them up, so that an old cart does not keep an old price.
type Cart struct {
	Lines []Line `cbor:"lines"`
}

// Line is one product in a cart.
type Line struct {
	Slug     string `cbor:"slug"`
	Quantity int    `cbor:"quantity"`
}

// mostPerLine keeps a cart, and with it the session, small.
const mostPerLine = 99

// plus returns the cart with n more of a product, or fewer if n is negative. A
// line that reaches zero is removed.
func (c Cart) plus(slug string, n int) Cart {
	i := slices.IndexFunc(c.Lines, func(l Line) bool { return l.Slug == slug })
	if i < 0 {
		c.Lines = append(c.Lines, Line{Slug: slug})
		i = len(c.Lines) - 1
	}
	c.Lines[i].Quantity = min(c.Lines[i].Quantity+n, mostPerLine)
	if c.Lines[i].Quantity <= 0 {
		c.Lines = slices.Delete(c.Lines, i, i+1)
	}
	return c
}

func (c Cart) without(slug string) Cart {
	c.Lines = slices.DeleteFunc(c.Lines, func(l Line) bool { return l.Slug == slug })
	return c
}

// minus returns the cart without what was ordered.
func (c Cart) minus(ordered []Line) Cart {
	for _, l := range ordered {
		if c.quantity(l.Slug) > 0 {
			c = c.plus(l.Slug, -l.Quantity)
		}
	}
	return c
}

func (c Cart) quantity(slug string) int {
	for _, l := range c.Lines {
		if l.Slug == slug {
			return l.Quantity
		}
	}
	return 0
}

func (c Cart) count() (n int) {
	for _, l := range c.Lines {
		n += l.Quantity
	}
	return n
}

// bill is a cart with today's prices.
type bill struct {
	Lines []billLine
	Total int // cents
}

type billLine struct {
	product
	Quantity int
	Total    int // cents
}

func billFor(lines []Line) bill {
	var b bill
	for _, l := range lines {
		if p, ok := find(l.Slug); ok {
			b.Lines = append(b.Lines, billLine{p, l.Quantity, p.Cents * l.Quantity})
			b.Total += p.Cents * l.Quantity
		}
	}
	return b
}

func (s *shop) cart(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	s.show(w, r, session, http.StatusOK, "cart", billFor(cartKey.Get(session).Lines))
}

func (s *shop) addToCart(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	p, ok := find(r.PostFormValue("slug"))
	if !ok {
		s.notFound(w, r, session)
		return
	}
	n := 1
	if asked, err := strconv.Atoi(r.PostFormValue("quantity")); err == nil {
		n = min(max(asked, 1), mostPerLine)
	}
	// Update takes a function for the change instead of the result. If another
	// tab has changed the cart, the function runs again on the newer cart, so
	// it must not have side effects.
	cartKey.Update(session, func(c Cart) Cart { return c.plus(p.Slug, n) })
	t := s.pages.language(r, session)
	session.Flash("success", t.T("cart.added", t.T("product."+p.Slug+".name")))
	s.seeOther(w, r, session, localPath(r.PostFormValue("back"), "/cart"))
}

func (s *shop) changeCart(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	slug := r.PostFormValue("slug")
	switch r.PostFormValue("change") {
	case "more":
		cartKey.Update(session, func(c Cart) Cart { return c.plus(slug, 1) })
	case "fewer":
		cartKey.Update(session, func(c Cart) Cart { return c.plus(slug, -1) })
	case "remove":
		cartKey.Update(session, func(c Cart) Cart { return c.without(slug) })
	}
	s.seeOther(w, r, session, "/cart")
}
