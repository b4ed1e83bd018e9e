// Package values keeps Go values as CBOR (RFC 8949): in its core deterministic
// encoding, times as tagged RFC 3339 text with nanoseconds. A value that is
// written without an error reads back equal; otherwise the error has its path
// and quotes no value. The encoding is part of the wire format.
//
// form.go determines the form of types, encode.go writes values.
package values

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/sojourn-go/sojourn/internal/fault"
)

// maxNesting is the maximum nesting of arrays, maps and tags in a value, for
// writing and reading.
const maxNesting = 10_000

// maxEncoded bounds the encoded size of one value, because parts that are
// referenced repeatedly add up.
const maxEncoded = 64 << 20

var valueDecoding = sync.OnceValue(func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DefaultMapType: reflect.TypeFor[map[string]any](),
		IntDec:         cbor.IntDecConvertSignedOrBigInt,
		TimeTag:        cbor.DecTagOptional,
		// A Go string may hold any bytes, which must read back equal.
		UTF8: cbor.UTF8DecodeInvalid,
		// Finding the end of nested items of indefinite length takes quadratic time.
		IndefLength: cbor.IndefLengthForbidden,
		// No limit for reading is needed: only the session's own manager sealed it.
		MaxNestedLevels:  maxNesting,
		MaxArrayElements: math.MaxInt32,
		MaxMapPairs:      math.MaxInt32,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return mode
})

// Decode reads b into the variable that into points to. A panic of a type's own
// method becomes an error.
func Decode(b []byte, into any) (err error) {
	defer Recovered(&err)
	return valueDecoding().Unmarshal(b, into)
}

// panicError means that a codec, or a type's own method, panicked. The panic
// value is left out because it may quote the value.
type panicError struct{ kind string }

func (e *panicError) Error() string { return "panic with a " + e.kind }

// Recovered, deferred, turns a panic into an error.
func Recovered(err *error) {
	if p := recover(); p != nil {
		if p == any(fault.Reentry) {
			panic(p)
		}
		*err = &panicError{kind: fmt.Sprintf("%T", p)}
	}
}

// kindOf describes an error of a codec or of a type's own method, without its
// text, which may quote the value.
func kindOf(err error) string {
	var p *panicError
	if errors.As(err, &p) {
		return p.Error()
	}
	return fmt.Sprintf("%T", err)
}

// CheckType returns why values of type t cannot be kept, or nil.
func CheckType(t reflect.Type) error {
	if _, err := FormOf(t); err != nil {
		return &Error{reason: err.Error()}
	}
	return nil
}

// Bad is the fault.BadValue for a value, with its name, its type and the cause.
// Of a codec's or a type's own error it only has the type, because the text may
// quote the value.
func Bad(doing, name string, t reflect.Type, err error) error {
	why := kindOf(err)
	var e *Error
	if errors.As(err, &e) {
		why = e.describe(name)
	}
	return fmt.Errorf("%w: cannot %s %.40q as %v (%s)", fault.BadValue, doing, name, t, why)
}

// Into decodes a value into the variable that into points to, which is
// unchanged if that fails.
func Into(name string, raw []byte, into any) error {
	target := reflect.ValueOf(into)
	if target.Kind() != reflect.Pointer || target.IsNil() {
		return fmt.Errorf("%w: Get(%.40q) needs a non-nil pointer, not %T", fault.BadValue, name, into)
	}
	if err := CheckType(target.Type().Elem()); err != nil {
		return Bad("decode", name, target.Type().Elem(), err)
	}
	fresh := reflect.New(target.Type().Elem())
	if err := Decode(raw, fresh.Interface()); err != nil {
		return Bad("decode", name, target.Type().Elem(), err)
	}
	target.Elem().Set(fresh.Elem())
	return nil
}
