// Package protokey keeps protocol buffer messages in sessions, in their own
// wire form:
//
//	var cart = protokey.New[*shoppb.Cart]("cart", sojourn.ServerSide)
//
//	c := cart.Get(session)
//	cart.Update(session, func(c *shoppb.Cart) *shoppb.Cart { … })
//
// Unknown fields, which a newer program has written, are kept when the message
// is changed and set again. It is a separate module so that sojourn itself does
// not depend on protocol buffers.
package protokey

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"

	"github.com/sojourn-go/sojourn"
)

// New returns a key whose values are messages of type T, such as *shoppb.Cart.
//
// If the session has no value, Get returns a nil T, and Update passes a nil T
// to its function. The getters of a generated message work on nil, but its
// fields cannot be set. Setting a nil T keeps an empty message. A message that
// cannot be encoded, for instance because a string is not UTF-8, fails the
// commit with [sojourn.ErrBadValue].
//
// New panics if the name is invalid, as [sojourn.NewKey] does, or if T is not
// the type of a generated message, such as [proto.Message] itself.
func New[T proto.Message](name string, opts ...sojourn.KeyOption) sojourn.Key[T] {
	var zero T
	v := reflect.ValueOf(zero)
	if v.Kind() != reflect.Pointer || !generated(zero) {
		panic(fmt.Sprintf("protokey: New[%v](%q): use a generated message type, such as *shoppb.Cart", reflect.TypeFor[T](), name))
	}
	return sojourn.NewKeyCodec[T](name, codec[T]{}, opts...)
}

// generated reports whether new messages can be made of a nil one, as with all
// generated types.
func generated(m proto.Message) (ok bool) {
	defer func() { ok = recover() == nil }()
	m.ProtoReflect().New()
	return true
}

type codec[T proto.Message] struct{}

// Encode is deterministic, so setting an equal message is not a change.
func (codec[T]) Encode(m T) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

func (codec[T]) Decode(b []byte) (T, error) {
	var zero T
	m := zero.ProtoReflect().New().Interface().(T)
	if err := proto.Unmarshal(b, m); err != nil {
		return zero, err
	}
	return m, nil
}
