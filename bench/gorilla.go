package main

import (
	"crypto/rand"
	"io"
	"net/http"

	"github.com/gorilla/sessions"
)

// gorillaSessions is gorilla/sessions. It has no middleware: a handler saves
// explicitly, before it writes.
type gorillaSessions struct {
	store  sessions.Store
	opened io.Closer // nil = nothing to close
}

// newGorillaCookie signs (HMAC-SHA256) and encrypts (AES-256) the cookie.
func newGorillaCookie() *gorillaSessions {
	return &gorillaSessions{store: sessions.NewCookieStore(random(64), random(32))}
}

// newGorillaFiles keeps sessions in files, signed and encrypted, without limit
// of size.
func newGorillaFiles(dir string) *gorillaSessions {
	s := sessions.NewFilesystemStore(dir, random(64), random(32))
	s.MaxLength(0)
	return &gorillaSessions{store: s}
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func (g *gorillaSessions) wrap(h http.Handler) http.Handler { return h }

func (g *gorillaSessions) visits(_ http.ResponseWriter, r *http.Request) (int, error) {
	s, err := g.store.Get(r, "session")
	if err != nil {
		return 0, err
	}
	n, _ := s.Values["visits"].(int)
	return n, nil
}

func (g *gorillaSessions) setVisits(w http.ResponseWriter, r *http.Request, n int) error {
	s, err := g.store.Get(r, "session")
	if err != nil {
		return err
	}
	s.Values["visits"] = n
	return s.Save(r, w)
}

func (g *gorillaSessions) page(_ http.ResponseWriter, r *http.Request, i int) (string, error) {
	s, err := g.store.Get(r, "session")
	if err != nil {
		return "", err
	}
	text, _ := s.Values[pageName(i)].(string)
	return text, nil
}

func (g *gorillaSessions) fill(w http.ResponseWriter, r *http.Request, size int) error {
	s, err := g.store.Get(r, "session")
	if err != nil {
		return err
	}
	for i := range pageCount {
		s.Values[pageName(i)] = pageText(i, size)
	}
	return s.Save(r, w)
}

func (g *gorillaSessions) close() error {
	if g.opened == nil {
		return nil
	}
	return g.opened.Close()
}
