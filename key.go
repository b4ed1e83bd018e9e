package sojourn

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/values"
)

// Key is a session value's name and type. Make keys once, as package
// variables; a Key is immutable and safe for concurrent use. Values are copied
// on their way in and out.
//
// The type belongs to the name. Struct types may gain and lose fields, as in
// encoding/json; fields follow `cbor:"…"` tags, and `json:"…"` tags where
// there are none. Any other change of a type needs a new name: an old value
// that does not decode is reported by [Key.Lookup] and left alone until it is
// set.
type Key[T any] struct{ of *key }

// key is a Key without its type: what is generic is compiled again for every
// type, so all work is done here. Values are passed as pointers to T.
type key struct {
	draft.Slot
	typ    reflect.Type
	encode func(from any) ([]byte, error)
	decode func(b []byte, to any) error
}

// Codec turns values into bytes and back. Its methods must be safe for
// concurrent use; what Decode returns must share nothing with its argument.
type Codec[T any] interface {
	Encode(T) ([]byte, error)
	Decode([]byte) (T, error)
}

// KeyOption changes how a key's values are kept.
type KeyOption func(*keyOptions)

type keyOptions struct {
	flags record.Flags
	ttl   time.Duration
}

// ServerSide keeps a value out of the cookie: a session that holds one lives
// in the store, where parallel requests cannot overwrite each other and a
// replayed cookie cannot bring an old value back. Use it for what is counted,
// collected, or used once.
func ServerSide(o *keyOptions) { o.flags |= record.ServerSide }

// Volatile marks values whose loss would not matter, such as the last page
// seen. If the store has a cache that all replicas share, a request that
// changes nothing else in a stored session keeps the change in that cache
// until the next durable write: no write to the store, no new version. The
// change, also a Delete or a Pop, is lost if the cache fails or evicts it
// before, or if another request is saving the session just then. So a Volatile
// value must not be one that may be used only once, and its Update is exact
// only as long as the cache keeps it. Without such a cache, and in the cookie,
// Volatile has no effect.
func Volatile(o *keyOptions) { o.flags |= record.Volatile }

// TTL ends a value that long after it was last set or updated; it never
// outlives the session. It panics unless d is at least a millisecond.
func TTL(d time.Duration) KeyOption {
	if d < time.Millisecond {
		panic(fmt.Sprintf("sojourn: TTL(%v): use at least a millisecond", d))
	}
	return func(o *keyOptions) { o.ttl = d }
}

// NewKey returns a key whose values are kept as CBOR. It panics if name is
// empty, longer than 255 bytes or starts with "_", and if values of type T
// would not come back as they were. These types cannot be kept, nor types that
// contain them:
//
//   - funcs, chans, complex numbers, uintptrs, interfaces with methods;
//   - structs without exported fields, such as a sync.Mutex or a big.Rat, and
//     structs of which two fields have the same name;
//   - types with a MarshalCBOR or MarshalBinary method that have no
//     counterpart to read it, or that have it from an embedded field, beside
//     other fields;
//   - pointers to unexported structs, embedded;
//   - maps whose keys are pointers.
//
// Unexported fields are not kept, nor those tagged `cbor:"-"`. What is nil stays
// nil, and what is empty empty. Times keep their instant, to the nanosecond, and
// their offset from UTC if it is whole minutes. What an interface holds comes
// back in the widest type of its kind: int64 or big.Int, float64, []any,
// map[string]any.
//
// A value that cannot come back fails the commit with ErrBadValue: a struct or
// a type with a form of its own in an interface, a time before the year 0 or
// after 9999, a pointer to nil there, a map key that would come back as
// another (NaN), more than 10,000 levels of nesting.
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

// NewKeyCodec returns a key whose values are kept as c writes them. It panics
// if c is nil, or for a name that NewKey refuses. An error or panic of Encode
// fails the commit with ErrBadValue; one of Decode makes the value unreadable.
func NewKeyCodec[T any](name string, c Codec[T], opts ...KeyOption) Key[T] {
	if c == nil {
		panic(fmt.Sprintf("sojourn: NewKeyCodec(%q): the codec is nil", name))
	}
	k := newKey(name, reflect.TypeFor[T](), opts)
	k.encode = func(from any) ([]byte, error) { return c.Encode(*from.(*T)) }
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

// Name returns the key's name.
func (k Key[T]) Name() string { return k.of.Name }

// Get returns a copy of the value, or the zero T if there is none or it does
// not decode into T. The latter is logged, once per key, and counted.
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

// Lookup returns the value; [ErrNoValue] if there is none, or [ErrBadValue] if
// it does not decode into T.
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

// Set changes the value: last writer wins, key by key. v is encoded now; a
// value that cannot be encoded fails the commit with [ErrBadValue].
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

// Update replaces the value by what f returns for it (for the zero T, if there
// is none or it does not decode) and returns the new value.
//
// In a stored session Update is exact: if another request was faster, f is
// called again with its result, so it must have no effects of its own. What
// Update returns is this request's view; after [Session.Save], Get returns
// what was committed. Neither f nor a Codec may use the session: that panics,
// after a second. In the cookie the last response wins: use ServerSide for
// what you count.
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

// update returns false if it has failed, and the commit will.
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
		// Decoded afresh, so that it shares nothing with what f kept hold of.
		err = k.read(raw, to)
	}
	if err != nil {
		s.lock()
		defer s.mu.Unlock()
		s.failLater(err)
	}
	return err == nil
}

// Pop removes the value and returns it and true, or the zero T and false if
// there is none or it does not decode. In a stored session there is one
// winner: if another request took or changed the value first, the commit fails
// with [ErrTaken]. So act on a popped value after [Session.Save], or by
// writing to the session only. In the cookie a replay brings the value back:
// use ServerSide.
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
		// Unlocked, because codecs are the application's. Zeroed, because decoding
		// the value again may leave what is not in it.
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
