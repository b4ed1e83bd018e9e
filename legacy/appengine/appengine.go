// Package appengine has the shared parts of the App Engine session libraries:
// the encoding of values and keys by the Python memcache client, the text form
// of datastore keys, and interfaces of the two services.
package appengine

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"fmt"
	"math/big"
	"unicode/utf8"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/pickle"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// Item is a memcache entry. Its flags give the encoding of Value. Stores
// truncate Expires to seconds.
type Item = legacy.Entry

// Memcache is the App Engine memcache, bound to one namespace: the default
// (empty) one for gae-sessions, whichever was current in the Python app for the
// others. Keys are at most 250 bytes of any kind.
type Memcache = legacy.Store

// Property is one property of an entity. Value is nil, a bool, int64, string,
// []byte, time.Time, Key, or a []any of those.
type Property struct {
	Name    string
	Value   any
	NoIndex bool
}

// Entity is the content of a datastore entity.
type Entity []Property

// Get returns the value of a property, or nil.
func (e Entity) Get(name string) any {
	for _, p := range e {
		if p.Name == name {
			return p.Value
		}
	}
	return nil
}

// Datastore is Google Cloud Datastore, for root entities with a name, bound to
// one namespace. Blobs and times must arrive as []byte and time.Time.
type Datastore interface {
	Get(ctx context.Context, kind, name string) (Entity, error) // legacy.ErrNoEntry
	Put(ctx context.Context, kind, name string, e Entity) error
	Delete(ctx context.Context, kind, name string) error // nil if there was none
}

const (
	// MaxValue is the maximum size of a memcache value, in bytes.
	MaxValue = 1_000_000
	// maxKey is the longest memcache key that is stored as it is.
	maxKey = 250
)

// MemcacheKey returns the key under which the Python client stores an entry:
// keys over 250 bytes are replaced by the hex SHA-1 of the key.
func MemcacheKey(key string) string {
	if len(key) <= maxKey {
		return key
	}
	sum := sha1.Sum([]byte(key))
	return hex.EncodeToString(sum[:])
}

// The flags of memcache items name the type that the value had in Python.
const (
	FlagBytes  = 0
	FlagText   = 1
	FlagPickle = 2
	FlagInt    = 3
	FlagLong   = 4
	FlagBool   = 5
)

// DecodeItem returns the value of a memcache item. Bytes that are valid UTF-8
// become text, because Python 2 stored most text as bytes.
func DecodeItem(item Item) (any, error) {
	// The lowest three bits are the type; the next one means "compressed",
	// which these clients never set. The others are unused.
	switch item.Flags & 0xF {
	case FlagBytes:
		if utf8.Valid(item.Value) {
			return string(item.Value), nil
		}
		return item.Value, nil
	case FlagText:
		text, ok := value.FromWTF8(item.Value)
		if !ok {
			return nil, fmt.Errorf("%w: memcache text is not UTF-8", reason.Decode)
		}
		return text, nil
	case FlagPickle:
		return pickle.Decode(item.Value)
	case FlagInt, FlagLong:
		return value.ParseInt(string(item.Value))
	case FlagBool:
		switch string(item.Value) {
		case "0":
			return false, nil
		case "1":
			return true, nil
		}
		return nil, fmt.Errorf("%w: memcache boolean", reason.Decode)
	}
	return nil, fmt.Errorf("%w: memcache item of unknown type", reason.Decode)
}

// EncodeItem returns v as the Python client stores it. It returns
// [value.ErrUnsupported] for a value that a pickle cannot hold.
func EncodeItem(v any) (Item, error) {
	v, err := value.Of(v)
	if err != nil {
		return Item{}, err
	}
	switch v := v.(type) {
	case string:
		if utf8.ValidString(v) {
			return Item{Value: []byte(v), Flags: FlagText}, nil
		}
	case []byte:
		return Item{Value: v, Flags: FlagBytes}, nil
	case int64:
		return Item{Value: []byte(fmt.Sprint(v)), Flags: FlagInt}, nil
	case *big.Int:
		// Not FlagLong: the client for Python 3 never writes it and fails on
		// it, while Python 2 reads large integers as long.
		return Item{Value: []byte(v.String()), Flags: FlagInt}, nil
	case bool:
		if v {
			return Item{Value: []byte("1"), Flags: FlagBool}, nil
		}
		return Item{Value: []byte("0"), Flags: FlagBool}, nil
	}
	b, err := pickle.Encode(v)
	return Item{Value: b, Flags: FlagPickle}, err
}
