package main

import (
	"cmp"
	"net/http"
	"slices"

	"github.com/sojourn-go/sojourn"
)

// A product's name and description are in the texts, under "product.SLUG.…";
// its picture is static/pictures/SLUG.svg.
type product struct {
	Slug  string
	Shelf string
	Cents int
}

// The catalogue does not change while the shop runs.
func shelves() []string { return []string{"carry", "table", "night", "paper"} }

func catalogue() []product {
	return []product{
		{"rucksack", "carry", 12900},
		{"mug", "table", 1600},
		{"tent", "night", 24500},
		{"notebook", "paper", 1400},
		{"lantern", "night", 4800},
		{"compass", "carry", 3900},
		{"map", "paper", 1250},
		{"flask", "table", 3400},
		{"socks", "carry", 1900},
		{"blanket", "night", 8900},
		{"tea", "table", 1100},
		{"pencils", "paper", 2200},
	}
}

// find returns the product with that slug.
func find(slug string) (product, bool) {
	all := catalogue()
	i := slices.IndexFunc(all, func(p product) bool { return p.Slug == slug })
	if i < 0 {
		return product{}, false
	}
	return all[i], true
}

// card is a displayed product, with this visitor's state of it.
type card struct {
	product
	Wished bool
}

type homePage struct {
	Shelf   string // "" = all
	Shelves []string
	Cards   []card
}

func (s *shop) home(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	content := homePage{Shelf: r.PathValue("shelf"), Shelves: shelves()}
	if content.Shelf != "" && !slices.Contains(content.Shelves, content.Shelf) {
		s.notFound(w, r, session)
		return
	}
	wished := wishesKey.Get(session)
	for _, p := range catalogue() {
		if content.Shelf == "" || p.Shelf == content.Shelf {
			content.Cards = append(content.Cards, card{p, slices.Contains(wished, p.Slug)})
		}
	}
	s.show(w, r, session, http.StatusOK, "home", content)
}

type productPage struct {
	Card   card
	Others []card
}

func (s *shop) product(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	p, ok := find(r.PathValue("slug"))
	if !ok {
		s.notFound(w, r, session)
		return
	}
	wished := wishesKey.Get(session)
	content := productPage{Card: card{p, slices.Contains(wished, p.Slug)}}
	others := slices.DeleteFunc(catalogue(), func(other product) bool { return other.Slug == p.Slug })
	slices.SortStableFunc(others, func(a, b product) int { return cmp.Compare(distance(a, p), distance(b, p)) })
	for _, other := range others[:4] {
		content.Others = append(content.Others, card{other, slices.Contains(wished, other.Slug)})
	}
	s.show(w, r, session, http.StatusOK, "product", content)
}

// distance is the number of shelves between two products.
func distance(a, b product) int {
	n := slices.Index(shelves(), a.Shelf) - slices.Index(shelves(), b.Shelf)
	return max(n, -n)
}
