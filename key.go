package sojourn

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/values"
)

// Key is the name and the type of a session value. Make keys once, as package
// variables. A Key is immutable, safe for concurrent use, and copies values
// when it sets and reads them.
//
// A name belongs to one type. A struct may gain and lose fields, as in
// encoding/json; fields follow `cbor:"…"` tags, or else `json:"…"` tags. Any
// other change of the type needs a new name: an old value that does not decode
// stays until it is set.
type Key[T any] struct{ of *key }

// key is a Key without its type parameter. All work is done here, because
// generic code is compiled again for each type. Values are passed as pointers
// to T.
type key struct {
	draft.Slot
	typ    reflect.Type
	encode func(from any) ([]byte, error)
	decode func(b []byte, to any) error
}

// Codec encodes and decodes values. Its methods must be safe for concurrent
// use. The result of Decode must share no memory with its argument.
type Codec[T any] interface {
	Encode(T) ([]byte, error)
	Decode([]byte) (T, error)
}

// KeyOption is an option of [NewKey] and [NewKeyCodec].
type KeyOption func(*keyOptions)

type keyOptions struct {
	flags record.Flags
	ttl   time.Duration
}

// ServerSide keeps a value out of the cookie. A session that holds one is in
// the store, where concurrent requests do not overwrite each other and a
// replayed cookie restores no old value. Use it for counters, collections, and
// one-time values.
func ServerSide(o *keyOptions) { o.flags |= record.ServerSide }

// Volatile marks values that may be lost, such as the last page seen. If all
// replicas share a cache in front of the store, a request that changes only
// such values of a stored session writes them to the cache instead of the
// store, until the next durable write. A change, also a Delete or Pop, is lost
// if the cache fails or evicts it, or if another request saves at the same
// moment. So do not mark one-time values; Update is exact only while the cache
// keeps the value. Without such a cache, and in the cookie, Volatile has no
// effect.
func Volatile(o *keyOptions) { o.flags |= record.Volatile }

// TTL ends a value this long after it was last set or updated, and at the
// latest with its session. It panics if d is less than a millisecond.
func TTL(d time.Duration) KeyOption {
	if d < time.Millisecond {
		panic(fmt.Sprintf("sojourn: TTL(%v): use at least a millisecond", d))
	}
	return func(o *keyOptions) { o.ttl = d }
}

// NewKey returns a key whose values are stored as CBOR. It panics if name is
// empty, is longer than 255 bytes, or starts with "_", or if T cannot be
// restored unchanged. That excludes these types, and types that contain them:
//
//   - funcs, chans, complex numbers, uintptrs, interfaces with methods;
//   - structs without exported fields, or with two fields of one name;
//   - embedded pointers to unexported structs, and maps with pointers as keys;
//   - types with a MarshalCBOR or MarshalBinary method but no matching unmarshal
//     method, and structs that promote it and have other fields.
//
// Unexported fields and fields tagged `cbor:"-"` are not stored. nil and empty
// stay different. Times keep their instant to the nanosecond, and their offset
// from UTC if it is whole minutes. A value in an interface is restored in the
// widest type of its kind: int64 or big.Int, float64, []any, map[string]any.
//
// These values fail the commit with ErrBadValue: in an interface, a struct, a
// type with its own encoding, or a pointer to nil; a time before the year 0 or
// after 9999; a map key such as NaN; more than 10,000 levels of nesting.
func NewKey[T any](name string, opts ...KeyOption) Key[T] {
	typ := reflect.TypeFor[T]()
	f, err := values.FormOf(typ)
	if err != nil {
		panic(fmt.Sprintf("sojourn: NewKey(%q): %v", name, err))
	}
	k := newKey(name, typ, opts)
	k.encode = func(from any) ([]byte, error) { return values.EncodeAs(reflect.ValueOf(from).Elem(), f) }
	k.decode = values.Decode
	return Key[T]{k}
}

// NewKeyCodec returns a key whose values are stored as c encodes them. It
// panics if c is nil or name is not one for NewKey. If Encode fails or panics,
// the commit fails with ErrBadValue; if Decode does, the value is unreadable.
func NewKeyCodec[T any](name string, c Codec[T], opts ...KeyOption) Key[T] {
	if c == nil {
		panic(fmt.Sprintf("sojourn: NewKeyCodec(%q): the codec is nil", name))
	}
	k := newKey(name, reflect.TypeFor[T](), opts)
	k.encode = func(from any) ([]byte, error) {
		b, err := c.Encode(*from.(*T))
		return bytes.Clone(b), err // it may share memory with the value
	}
	k.decode = func(b []byte, to any) (err error) {
		*to.(*T), err = c.Decode(b)
		return err
	}
	return Key[T]{k}
}

func newKey(name string, typ reflect.Type, opts []KeyOption) *key {
	if err := checkName(name); err != nil {
		panic(err.Error())
	}
	var o keyOptions
	for _, opt := range opts {
		opt(&o)
	}
	return &key{Slot: draft.Slot{Name: name, Flags: o.flags, TTL: o.ttl}, typ: typ}
}

func checkName(name string) error {
	if name == "" || len(name) > record.MaxName || strings.HasPrefix(name, "_") {
		return fmt.Errorf("%w: name %.40q: use 1 to %d bytes that do not start with \"_\"", ErrBadValue, name, record.MaxName)
	}
	return nil
}

func (k Key[T]) Name() string { return k.of.Name }

// Get returns a copy of the value, or the zero T if there is none or it does
// not decode into T. The latter is counted, and logged once per key.
func (k Key[T]) Get(s *Session) T {
	var v T
	if err := k.of.lookup(s, &v); err == nil {
		return v
	} else if errors.Is(err, ErrBadValue) {
		s.m.unreadable(k.of.Name, err)
	}
	var zero T // a codec may have begun to fill in v
	return zero
}

// Lookup returns the value. It returns [ErrNoValue] if there is none, and
// [ErrBadValue] if it does not decode into T.
func (k Key[T]) Lookup(s *Session) (T, error) {
	var v T
	if err := k.of.lookup(s, &v); err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}

func (k *key) lookup(s *Session, to any) error {
	s.lock()
	raw, ok := s.raw(k.Name)
	s.mu.Unlock()
	if !ok {
		return fmt.Errorf("%w: %q", ErrNoValue, k.Name)
	}
	return k.read(raw, to)
}

// Set changes the value. For each key, the last writer wins. v is encoded now;
// a value that cannot be encoded fails the commit with [ErrBadValue].
func (k Key[T]) Set(s *Session, v T) { k.of.set(s, &v) }

func (k *key) set(s *Session, from any) {
	raw, err := k.write(from)
	s.lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failLater(err)
		return
	}
	s.put(k.Slot, raw)
}

// Update replaces the value v with f(v) and returns the result. If there is no
// value, or it does not decode, v is the zero T. In a stored session Update is
// exact: if another request changed the value first, f runs again on its
// result, so f must have no side effects. Update returns this request's view;
// after [Session.Save], Get returns the committed value. If f or a Codec uses
// the session, it panics after a second. In the cookie, the last response wins:
// use ServerSide for counters.
func (k Key[T]) Update(s *Session, f func(T) T) T {
	v := new(T)
	if !k.of.update(s, v, func(v any) {
		p := v.(*T)
		*p = f(*p)
	}) {
		v = new(T)
	}
	return *v
}

// update returns false if it failed; then the commit fails as well.
func (k *key) update(s *Session, to any, f func(v any)) bool {
	step := func(raw []byte, ok bool) ([]byte, error) {
		v := reflect.New(k.typ).Interface()
		if ok {
			if err := k.read(raw, v); err != nil {
				s.m.unreadable(k.Name, err)
				v = reflect.New(k.typ).Interface()
			}
		}
		f(v)
		b, err := k.write(v)
		if err != nil {
			return nil, err
		}
		if b == nil {
			b = []byte{}
		}
		return b, nil
	}
	raw, err := func() ([]byte, error) {
		s.lock()
		defer s.mu.Unlock() // f may panic
		return s.update(k.Slot, step)
	}()
	if err == nil {
		// Decoded again, so that it shares no memory with values that f has kept.
		err = k.read(raw, to)
	}
	if err != nil {
		s.lock()
		defer s.mu.Unlock()
		s.failLater(err)
	}
	return err == nil
}

// Pop removes the value and returns it with true, or returns the zero T and
// false if there is none or it does not decode. In a stored session there is
// one winner: if another request took or changed the value first, the commit
// fails with [ErrTaken]. So do nothing irrevocable with the value before
// [Session.Save]. In the cookie, a replay restores it: use ServerSide.
func (k Key[T]) Pop(s *Session) (T, bool) {
	v := new(T)
	ok := k.of.pop(s, v)
	if !ok {
		v = new(T)
	}
	return *v, ok
}

func (k *key) pop(s *Session, to any) bool {
	for {
		s.lock()
		raw, ok := s.raw(k.Name)
		s.mu.Unlock()
		if !ok {
			return false
		}
		// Unlocked, because a codec is code of the application. Zeroed, because
		// decoding leaves fields as they are that the value does not have.
		reflect.ValueOf(to).Elem().SetZero()
		if err := k.read(raw, to); err != nil {
			s.m.unreadable(k.Name, err)
			return false
		}
		if s.takeIf(k.Name, raw) {
			return true
		}
	}
}

// Delete removes the value, if there is one.
func (k Key[T]) Delete(s *Session) { s.Delete(k.of.Name) }

var errDamagedValue = errors.New("the session's record is damaged")

func (k *key) write(from any) (raw []byte, err error) {
	defer func() {
		if err != nil {
			raw, err = nil, values.Bad("encode", k.Name, k.typ, err)
		}
	}()
	defer values.Recovered(&err)
	return k.encode(from)
}

func (k *key) read(raw []byte, to any) (err error) {
	defer func() {
		if err != nil {
			err = values.Bad("decode", k.Name, k.typ, err)
		}
	}()
	defer values.Recovered(&err)
	if raw == nil {
		return errDamagedValue
	}
	return k.decode(raw, to)
}
