package beaker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/pickle"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// Flags of python-memcached.
const (
	flagPickle = 1
	flagText   = 16
)

// validID reports whether an identifier has a form that some Beaker version
// generates: hex or URL-safe base64. Others are never looked up, so an
// identifier cannot address anything else in a store.
func validID(id string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	return len(id) >= 2 && len(id) <= 64 && strings.Trim(id, letters) == ""
}

// storeKey is the key of the session with that identifier.
func (f *Format) storeKey(id string) string {
	switch f.c.Type {
	case File:
		return "container_file/" + id[:1] + "/" + id[:2] + "/" + id + ".cache"
	case Memcached:
		return id + "_session"
	case Redis:
		return "beaker_cache:" + id + ":session"
	}
	return id
}

// fetch reads a server-side session.
func (f *Format) fetch(ctx context.Context, id string, detail *Detail) (*value.Dict, error) {
	if !validID(id) {
		return nil, reason.NotFound
	}
	stored, err := f.get(ctx, id)
	if errors.Is(err, legacy.ErrNoEntry) {
		return nil, reason.NotFound
	}
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	detail.Flags = stored.Flags
	v, err := f.unwrap(stored)
	if err != nil {
		return nil, err
	}
	switch v := v.(type) {
	case *value.Dict:
		if len(f.c.EncryptKey) > 0 {
			return nil, fmt.Errorf("%w: stored without encryption", reason.Decrypt)
		}
		detail.Plain = true
		return v, nil
	case string:
		d, c, err := f.decode(v)
		detail.Cipher = c
		return d, err
	case []byte:
		d, c, err := f.decode(string(v))
		detail.Cipher = c
		return d, err
	}
	return nil, reason.NotObject
}

func (f *Format) get(ctx context.Context, id string) (legacy.Entry, error) {
	if f.c.Type != Google {
		return f.c.Store.Get(ctx, f.storeKey(id))
	}
	entity, err := f.c.Datastore.Get(ctx, f.c.Kind, "p"+id)
	if err != nil {
		return legacy.Entry{}, err
	}
	blob, ok := entity.Get("data").([]byte)
	if !ok {
		return legacy.Entry{}, fmt.Errorf("%w: entity without data", reason.Decode)
	}
	return legacy.Entry{Value: blob}, nil
}

// unwrap takes the session out of its container.
func (f *Format) unwrap(stored legacy.Entry) (any, error) {
	if f.c.Type == Memcached && stored.Flags&^flagText == 0 {
		return string(stored.Value), nil
	}
	if f.c.Type == Memcached && stored.Flags != flagPickle {
		return nil, fmt.Errorf("%w: memcached entry of unknown type", reason.Decode)
	}
	v, err := pickle.Decode(stored.Value)
	if err != nil || f.c.Type == Memcached || f.c.Type == Redis {
		return v, err
	}
	container, ok := v.(*value.Dict)
	if !ok {
		return nil, fmt.Errorf("%w: not a container", reason.Decode)
	}
	v, ok = container.Lookup("session")
	if !ok {
		return nil, reason.NotFound
	}
	return v, nil
}

// store writes a server-side session in the form that detail names.
func (f *Format) store(ctx context.Context, id string, data *value.Dict, detail *Detail, now time.Time) error {
	var v any = data
	if !detail.Plain || len(f.c.EncryptKey) > 0 {
		text, err := f.encode(data, detail.Cipher)
		if err != nil {
			return err
		}
		v = text
	}
	stored, err := f.wrap(v, detail, now)
	if err != nil {
		return err
	}
	if f.c.Type == Google {
		if len(stored.Value) > appengine.MaxValue {
			return legacy.ErrTooLarge
		}
		created := now
		if at, ok := seconds(detail.Meta.Get(createdKey)); ok {
			created = unix(at)
		}
		err = f.c.Datastore.Put(ctx, f.c.Kind, "p"+id, appengine.Entity{
			{Name: "data", Value: stored.Value, NoIndex: true},
			{Name: "created", Value: created.UTC().Truncate(time.Microsecond)},
			{Name: "accessed", Value: now.UTC().Truncate(time.Microsecond)},
		})
	} else {
		err = f.c.Store.Set(ctx, f.storeKey(id), stored)
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	return nil
}

// redisGrace is what Beaker adds to the timeout for Redis.
const redisGrace = 2 * time.Minute

// wrap puts a session into its container.
func (f *Format) wrap(v any, detail *Detail, now time.Time) (legacy.Entry, error) {
	text, isText := v.(string)
	if f.c.Type == Memcached && isText {
		return legacy.Entry{Value: []byte(text), Flags: detail.Flags & flagText}, nil
	}
	if isText {
		// Old versions of Beaker on Python 2 derive another key if the nonce is
		// unicode.
		v = pickle.Native(text)
	}
	if f.c.Type != Memcached && f.c.Type != Redis {
		container := value.NewDict()
		container.Set("session", v)
		v = container
	}
	b, err := pickle.Encode(v)
	e := legacy.Entry{Value: b}
	switch {
	case f.c.Type == Memcached:
		e.Flags = flagPickle
	case f.c.Type == Redis && f.c.Timeout > 0:
		e.Expires = now.Add(f.c.Timeout + redisGrace)
	}
	return e, err
}
