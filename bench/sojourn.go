package main

import (
	"io"
	"net/http"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store"
)

// ours is Sojourn with its defaults.
type ours struct {
	sessions *sojourn.Manager
	opened   []io.Closer
	caches   store.CacheCounter // nil without a cache
	count    sojourn.Key[int]
	pages    [pageCount]sojourn.Key[string]
}

// newOurs returns sessions in that store. With inline, small sessions stay in
// the cookie, the default; without, all are stored. It also closes the store,
// if possible, and opened.
func newOurs(db store.Store, inline bool, opened ...io.Closer) (*ours, error) {
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		return nil, err
	}
	mode := sojourn.StoredOnly
	if inline {
		mode = sojourn.Auto
	}
	o := &ours{count: sojourn.NewKey[int]("visits")}
	for i := range o.pages {
		o.pages[i] = sojourn.NewKey[string](pageName(i))
	}
	o.sessions, err = sojourn.New(sojourn.Config{Keys: keys, Store: db, Mode: mode})
	if err != nil {
		return nil, err
	}
	o.opened = append(o.opened, o.sessions)
	if c, ok := db.(io.Closer); ok {
		o.opened = append(o.opened, c)
	}
	o.opened = append(o.opened, opened...)
	return o, nil
}

func (o *ours) wrap(h http.Handler) http.Handler { return o.sessions.Wrap(h) }

func (o *ours) visits(_ http.ResponseWriter, r *http.Request) (int, error) {
	session, err := o.sessions.Get(r.Context())
	if err != nil {
		return 0, err
	}
	return o.count.Get(session), nil
}

func (o *ours) setVisits(_ http.ResponseWriter, r *http.Request, n int) error {
	session, err := o.sessions.Get(r.Context())
	if err != nil {
		return err
	}
	o.count.Set(session, n)
	return nil
}

func (o *ours) page(_ http.ResponseWriter, r *http.Request, i int) (string, error) {
	session, err := o.sessions.Get(r.Context())
	if err != nil {
		return "", err
	}
	return o.pages[i].Get(session), nil
}

func (o *ours) fill(_ http.ResponseWriter, r *http.Request, size int) error {
	session, err := o.sessions.Get(r.Context())
	if err != nil {
		return err
	}
	for i, key := range o.pages {
		key.Set(session, pageText(i, size))
	}
	return nil
}

func (o *ours) close() error { return closeAll(o.opened...) }
