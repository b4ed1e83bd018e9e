package main

import (
	"net/http"
	"slices"

	"github.com/sojourn-go/sojourn"
)

// wishesKey is not ServerSide, by choice: a wish list is short, and losing a
// wish to a concurrent write of a second tab is acceptable. So a visitor with
// only a wish list needs no row in the store. Once the session is stored for
// another reason, Update is exact here as well.
var wishesKey = sojourn.NewKey[[]string]("wishes")

func (s *shop) wishes(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	var cards []card
	for _, slug := range wishesKey.Get(session) {
		if p, ok := find(slug); ok {
			cards = append(cards, card{p, true})
		}
	}
	s.show(w, r, session, http.StatusOK, "wishes", cards)
}

func (s *shop) changeWishes(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	p, ok := find(r.PostFormValue("slug"))
	if !ok {
		s.notFound(w, r, session)
		return
	}
	keep := r.PostFormValue("change") == "keep"
	wishesKey.Update(session, func(wishes []string) []string {
		wishes = slices.DeleteFunc(wishes, func(slug string) bool { return slug == p.Slug })
		if keep {
			wishes = append(wishes, p.Slug)
		}
		return wishes
	})
	t, text := s.pages.language(r, session), "wishes.dropped"
	if keep {
		text = "wishes.kept"
	}
	session.Flash("info", t.T(text, t.T("product."+p.Slug+".name")))
	s.seeOther(w, r, session, localPath(r.PostFormValue("back"), "/wishes"))
}
