package main

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/gorilla"
	"github.com/sojourn-go/sojourn/legacy/scs"
	old "github.com/sojourn-go/sojourn/legacy/value"
	"github.com/sojourn-go/sojourn/legacy/vectors"
)

// The systems without recorded sessions.
const (
	systemGorilla = "gorilla"
	systemSCS     = "scs"
)

// backends are all possible stores of an old application.
type backends struct {
	vectors.Backends
	tokens scs.Store
}

// emptyBackends hold nothing.
func emptyBackends() backends {
	none := nowhere{}
	return backends{
		vectors.Backends{Memcache: noMemcache{}, Datastore: noEntities{}, Entities: noSessions{}, Store: none}, tokensIn{none},
	}
}

// openLegacy returns the format that a configuration describes.
func openLegacy(system string, config json.RawMessage, on backends) (legacy.Known, error) {
	var known legacy.Known
	var err error
	switch system {
	case systemGorilla:
		known, err = openGorilla(config, on.Store)
	case systemSCS:
		known, err = openSCS(config, on.tokens)
	default:
		return (&vectors.Case{Name: "the configuration", System: system, Config: config}).FormatOn(on.Backends)
	}
	if err != nil {
		return nil, fmt.Errorf("the configuration: %w", err)
	}
	return known, nil
}

// gorillaConfig is the configuration of gorilla in JSON.
type gorillaConfig struct {
	Name string `json:"name"`
	Keys []struct {
		Hash        string `json:"hash"`
		HashBase64  []byte `json:"hash_base64"`
		Block       string `json:"block"`
		BlockBase64 []byte `json:"block_base64"`
	} `json:"keys"`
	MaxAge     int    `json:"max_age"`    // seconds; 0 = 30 days, negative = any
	MaxLength  int    `json:"max_length"` // bytes; 0 = 4096, negative = any
	JSON       bool   `json:"json"`
	Backend    string `json:"backend"`
	Prefix     string `json:"prefix"`
	JSONValues bool   `json:"json_values"`
}

func openGorilla(config json.RawMessage, entries legacy.Store) (legacy.Known, error) {
	var in gorillaConfig
	if err := json.Unmarshal(config, &in); err != nil {
		return nil, err
	}
	out := gorilla.Config{
		Name: in.Name, MaxAge: time.Duration(in.MaxAge) * time.Second, MaxLength: in.MaxLength,
		JSON: in.JSON, Prefix: in.Prefix, JSONValues: in.JSONValues, Store: entries,
	}
	for _, k := range in.Keys {
		pair := gorilla.KeyPair{Hash: []byte(k.Hash), Block: []byte(k.Block)}
		if k.HashBase64 != nil {
			pair.Hash = k.HashBase64
		}
		if k.BlockBase64 != nil {
			pair.Block = k.BlockBase64
		}
		out.Keys = append(out.Keys, pair)
	}
	switch in.Backend {
	case "", "cookie":
		out.Backend = gorilla.CookieStore
	case "filesystem", "postgres":
		out.Backend = gorilla.FilesystemStore
	case "redis":
		out.Backend = gorilla.RedisStore
	default:
		return nil, fmt.Errorf("unknown backend %q: use cookie, filesystem, postgres or redis", in.Backend)
	}
	registerGobTypes()
	return gorilla.New(out)
}

// scsConfig is the configuration of scs in JSON.
type scsConfig struct {
	Name      string `json:"name"`
	HashToken bool   `json:"hash_token"`
	Lifetime  int    `json:"lifetime"` // seconds; 0 = 24 hours
}

func openSCS(config json.RawMessage, tokens scs.Store) (legacy.Known, error) {
	var in scsConfig
	if err := json.Unmarshal(config, &in); err != nil {
		return nil, err
	}
	registerGobTypes()
	return scs.New(scs.Config{
		Name: in.Name, HashToken: in.HashToken, Lifetime: time.Duration(in.Lifetime) * time.Second, Store: tokens,
	})
}

// registerGobTypes registers common types of the standard library. The command
// does not have the old application's types.
var registerGobTypes = sync.OnceFunc(func() {
	for _, v := range []any{time.Time{}, []any{}, map[string]any{}, map[any]any{}, map[string]string{}, []string{}} {
		gob.Register(v)
	}
})

// nowhere is an empty store that discards writes.
type nowhere struct{}

func (nowhere) Get(context.Context, string) (legacy.Entry, error) {
	return legacy.Entry{}, legacy.ErrNoEntry
}
func (nowhere) Set(context.Context, string, legacy.Entry) error { return nil }
func (nowhere) Delete(context.Context, string) error            { return nil }

// noMemcache is an empty memcache: only services on App Engine can access App
// Engine's.
type noMemcache struct{}

func (noMemcache) Get(context.Context, string) (appengine.Item, error) {
	return appengine.Item{}, legacy.ErrNoEntry
}
func (noMemcache) Set(context.Context, string, appengine.Item) error { return nil }
func (noMemcache) Delete(context.Context, string) error              { return nil }

type noEntities struct{}

func (noEntities) Get(context.Context, string, string) (appengine.Entity, error) {
	return nil, legacy.ErrNoEntry
}
func (noEntities) Put(context.Context, string, string, appengine.Entity) error { return nil }
func (noEntities) Delete(context.Context, string, string) error                { return nil }

type noSessions struct{}

func (noSessions) Session(context.Context, appengine.Key) (appengine.Entity, error) {
	return nil, legacy.ErrNoEntry
}

func (noSessions) Values(context.Context, appengine.Key) ([]appengine.Entity, error) {
	return nil, nil
}
func (noSessions) Delete(context.Context, appengine.Key) error { return nil }

// tokensIn is the store of scs's Redis stores.
type tokensIn struct{ legacy.Store }

const scsPrefix = "scs:session:"

func (t tokensIn) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	e, err := t.Get(ctx, scsPrefix+token)
	if errors.Is(err, legacy.ErrNoEntry) {
		return nil, false, nil
	}
	return e.Value, err == nil, err
}

// Find, Commit and Delete complete the interface; this command uses FindCtx.
func (t tokensIn) Find(token string) ([]byte, bool, error) {
	return t.FindCtx(context.Background(), token)
}

func (t tokensIn) Commit(token string, b []byte, expiry time.Time) error {
	return t.Set(context.Background(), scsPrefix+token, legacy.Entry{Value: b, Expires: expiry})
}

func (t tokensIn) Delete(token string) error {
	return t.Store.Delete(context.Background(), scsPrefix+token)
}

// cookieMaker returns a function that makes the Cookie header of a stored
// session's visitor, as set by the old application at that time.
func cookieMaker(system string, config json.RawMessage) (func(ctx context.Context, id string, at time.Time) (http.Header, error), error) {
	if system == "gaeutilities" { // not signed, and never written
		known, err := openLegacy(system, config, emptyBackends())
		if err != nil {
			return nil, err
		}
		name := known.About().Name[len("gaeutilities "):]
		return func(_ context.Context, token string, _ time.Time) (http.Header, error) {
			return http.Header{"Cookie": {name + "=" + token}}, nil
		}, nil
	}
	if system == "gae-sessions" {
		var err error
		if config, err = withMember(config, "cookie_only_threshold", 0); err != nil { // the cookie has only the identifier
			return nil, err
		}
	}
	on := emptyBackends()
	on.App = "unused" // only in keys for a store that discards them
	known, err := openLegacy(system, config, on)
	if err != nil {
		return nil, err
	}
	format, ok := known.(legacy.Format)
	if !ok {
		return nil, fmt.Errorf("the configuration: %s sessions cannot be listed", system)
	}
	return func(ctx context.Context, id string, at time.Time) (http.Header, error) {
		fields, err := format.Write(ctx, &legacy.Session{ID: id, Credential: []byte(id), Data: old.NewDict()}, at)
		if err != nil {
			return nil, err
		}
		var pairs []string
		for _, field := range fields {
			if name, value, removed := cookies.ParseSet(field); !removed {
				pairs = append(pairs, name+"="+value)
			}
		}
		return http.Header{"Cookie": {strings.Join(pairs, "; ")}}, nil
	}, nil
}

// withMember returns a JSON object with one member set.
func withMember(object json.RawMessage, name string, v any) (json.RawMessage, error) {
	members := map[string]any{}
	if err := json.Unmarshal(object, &members); err != nil {
		return nil, fmt.Errorf("the configuration: %w", err)
	}
	members[name] = v
	return json.Marshal(members)
}
