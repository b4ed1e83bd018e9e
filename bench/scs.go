package main

import (
	"io"
	"net/http"

	"github.com/alexedwards/scs/v2"
)

// scsSessions is alexedwards/scs with its defaults: gob values, no idle
// timeout, so that a request that only reads writes nothing.
type scsSessions struct {
	sessions *scs.SessionManager
	opened   []io.Closer
}

func newSCS(db scs.Store, opened ...io.Closer) *scsSessions {
	m := scs.New()
	m.Store = db
	m.Cookie.Secure = true
	return &scsSessions{m, opened}
}

func (s *scsSessions) wrap(h http.Handler) http.Handler { return s.sessions.LoadAndSave(h) }

func (s *scsSessions) visits(_ http.ResponseWriter, r *http.Request) (int, error) {
	return s.sessions.GetInt(r.Context(), "visits"), nil
}

func (s *scsSessions) setVisits(_ http.ResponseWriter, r *http.Request, n int) error {
	s.sessions.Put(r.Context(), "visits", n)
	return nil
}

func (s *scsSessions) page(_ http.ResponseWriter, r *http.Request, i int) (string, error) {
	return s.sessions.GetString(r.Context(), pageName(i)), nil
}

func (s *scsSessions) fill(_ http.ResponseWriter, r *http.Request, size int) error {
	for i := range pageCount {
		s.sessions.Put(r.Context(), pageName(i), pageText(i, size))
	}
	return nil
}

func (s *scsSessions) close() error { return closeAll(s.opened...) }
