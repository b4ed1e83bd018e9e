package open

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/sojourn-go/sojourn/store"
)

// An Engine opens stores, caches or both, by URLs of certain schemes. Its
// functions get the whole URL, and may be called by several goroutines at once.
// Their errors wrap [ErrURL] if the URL is invalid, and never contain a
// password.
type Engine struct {
	// Schemes are the URL schemes, such as "redis" and "rediss": lower-case
	// letters and digits. At least one.
	Schemes []string

	// Forms are examples of URLs for error texts, such as "redis://HOST".
	Forms []string

	// Store opens a store, like the function [Store]. nil = the engine has no stores.
	Store func(ctx context.Context, url string) (store.Store, io.Closer, error)

	// Schema returns the version of a store's schema, like the function
	// [Schema]. nil = its stores have no schema, and opening one creates
	// nothing.
	Schema func(ctx context.Context, url string) (version, newest int, err error)

	// Cache opens a cache, like the function [Cache]. nil = the engine has no caches.
	Cache func(url string) (store.Cache, io.Closer, error)
}

// engines are the registered engines, this package's only state.
var engines struct {
	sync.RWMutex
	all []Engine
}

// Register registers an engine. Call it from the init function of the engine's
// package. It panics if the engine has no scheme, one that is already
// registered, or neither stores nor caches.
func Register(e Engine) {
	engines.Lock()
	defer engines.Unlock()
	if len(e.Schemes) == 0 || e.Store == nil && e.Cache == nil {
		panic("open: an engine needs a scheme, and stores or caches")
	}
	for _, scheme := range e.Schemes {
		taken := func(other Engine) bool { return slices.Contains(other.Schemes, scheme) }
		switch {
		case scheme == "" || strings.Trim(scheme, "abcdefghijklmnopqrstuvwxyz0123456789") != "":
			panic(fmt.Sprintf("open: %q is not a scheme of lower-case letters and digits", scheme))
		case scheme == inProcess || slices.ContainsFunc(engines.all, taken):
			panic(fmt.Sprintf("open: an engine for %s: is already registered", scheme))
		}
	}
	engines.all = append(engines.all, e)
}

// A sort is a kind of thing that engines open: stores or caches.
type sort struct {
	name   string
	memory string // the form of the URL of one in this process
	has    func(Engine) bool
}

var (
	stores = sort{"stores", "memory:", func(e Engine) bool { return e.Store != nil }}
	caches = sort{"caches", "memory:BYTES", func(e Engine) bool { return e.Cache != nil }}
)

// ours are the packages of this project that register schemes, and whether they
// have caches.
var ours = []struct {
	path    string
	schemes []string
	caches  bool
}{
	{"store/sqlite", []string{"sqlite"}, false},
	{"store/postgres", []string{"postgres", "postgresql"}, false},
	{"store/redis", []string{"redis", "rediss", "rediscluster", "redisclusters", "redissentinel", "redissentinels"}, true},
	{"store/datastore/cloud", []string{"datastore"}, false},
	{"store/memcached", []string{"memcached"}, true},
}

// find returns the engine for that URL. Its errors list the engines. They do
// not repeat the given scheme, which may be part of a password.
func find(s sort, url string) (Engine, error) {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		hosts, _, _ := strings.Cut(rest, "/")
		hosts, _, _ = strings.Cut(hosts, "?")
		if strings.Count(hosts, "@") > 1 {
			// Parsers disagree where the password ends, and may report the rest as a host.
			return Engine{}, urlError("it has more than one @ before its path (in a user or password, that is %%40)")
		}
	}
	engines.RLock()
	defer engines.RUnlock()
	forms := []string{s.memory}
	scheme, _, ok := strings.Cut(url, ":")
	for _, e := range engines.all {
		if !s.has(e) {
			continue
		}
		if ok && slices.Contains(e.Schemes, scheme) {
			return e, nil
		}
		forms = append(forms, e.Forms...)
	}
	use := "use " + list(forms)
	if !ok {
		return Engine{}, urlError("it has no scheme; %s", use)
	}
	for _, p := range ours {
		registered := slices.ContainsFunc(engines.all, func(e Engine) bool { return slices.Contains(e.Schemes, scheme) })
		if slices.Contains(p.schemes, scheme) && !registered && (p.caches || s.name == stores.name) {
			return Engine{}, urlError("this program does not import the package for %s of kind %q, github.com/sojourn-go/sojourn/%s; %s", s.name, scheme, p.path, use)
		}
	}
	return Engine{}, urlError("this program opens no %s of that kind; %s", s.name, use)
}

// list joins texts as in "a, b or c".
func list(texts []string) string {
	if last := len(texts) - 1; last > 0 {
		return strings.Join(texts[:last], ", ") + " or " + texts[last]
	}
	return strings.Join(texts, "")
}
