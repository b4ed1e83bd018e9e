package sojourn

import (
	"encoding"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// Values are CBOR (RFC 8949) in its core deterministic encoding, times as
// tagged RFC 3339 text with nanoseconds. The modes are part of the wire format.
var valueEncoding = sync.OnceValue(func() cbor.EncMode {
	opts := cbor.CoreDetEncOptions()
	opts.Time = cbor.TimeRFC3339Nano
	opts.TimeTag = cbor.EncTagRequired
	mode, err := opts.EncMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return mode
})

var valueDecoding = sync.OnceValue(func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DefaultMapType: reflect.TypeFor[map[string]any](),
		IntDec:         cbor.IntDecConvertSignedOrBigInt,
		TimeTag:        cbor.DecTagOptional,
		// A Go string may hold any bytes; what was set comes back.
		UTF8: cbor.UTF8DecodeInvalid,
		// So does whatever fits into a session: only its own manager sealed it.
		MaxNestedLevels:  math.MaxUint16,
		MaxArrayElements: math.MaxInt32,
		MaxMapPairs:      math.MaxInt32,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return mode
})

func encodeValue(v any) ([]byte, error) { return valueEncoding().Marshal(v) }

func decodeValue(b []byte, into any) error { return valueDecoding().Unmarshal(b, into) }

// unkeepable returns why values of type t would not come back from CBOR as
// they were, or nil.
func unkeepable(t reflect.Type) error {
	return checkType(t, map[reflect.Type]bool{})
}

// selfMade are the ways in which a type may bring its own form, and back.
var selfMade = [...]struct{ marshaler, unmarshaler reflect.Type }{
	{reflect.TypeFor[cbor.Marshaler](), reflect.TypeFor[cbor.Unmarshaler]()},
	{reflect.TypeFor[encoding.BinaryMarshaler](), reflect.TypeFor[encoding.BinaryUnmarshaler]()},
}

func implements(t, i reflect.Type) bool {
	return t.Implements(i) || reflect.PointerTo(t).Implements(i)
}

func checkType(t reflect.Type, seen map[reflect.Type]bool) error {
	if seen[t] {
		return nil
	}
	seen[t] = true
	if t.Kind() != reflect.Interface {
		for _, way := range selfMade {
			switch {
			case !implements(t, way.marshaler):
			case !implements(t, way.unmarshaler):
				return fmt.Errorf("%v is a %v, but no %v", t, way.marshaler, way.unmarshaler)
			default:
				return nil
			}
		}
		if t == reflect.TypeFor[big.Int]() { // CBOR has numbers of any size
			return nil
		}
	}
	switch t.Kind() {
	case reflect.Func, reflect.Chan, reflect.UnsafePointer, reflect.Uintptr, reflect.Complex64, reflect.Complex128:
		return fmt.Errorf("%v cannot be kept", t)
	case reflect.Pointer, reflect.Slice, reflect.Array:
		return checkType(t.Elem(), seen)
	case reflect.Map:
		return errors.Join(checkType(t.Key(), seen), checkType(t.Elem(), seen))
	case reflect.Interface:
		if t.NumMethod() > 0 {
			return fmt.Errorf("%v: the concrete type behind an interface with methods would be lost", t)
		}
		return nil
	case reflect.Struct:
		kept := 0
		for f := range fieldsOf(t) {
			if err := checkType(f.Type, seen); err != nil {
				return fmt.Errorf("field %s: %w", f.Name, err)
			}
			kept++
		}
		if kept == 0 && t.NumField() > 0 {
			return fmt.Errorf("%v has no exported field", t)
		}
		return nil
	default:
		return nil
	}
}

// fieldsOf yields the fields of a struct that CBOR keeps.
func fieldsOf(t reflect.Type) func(yield func(reflect.StructField) bool) {
	return func(yield func(reflect.StructField) bool) {
		for i := range t.NumField() {
			f := t.Field(i)
			if f.Tag.Get("cbor") == "-" || f.Tag.Get("cbor") == "" && f.Tag.Get("json") == "-" {
				continue
			}
			if !f.IsExported() && !f.Anonymous {
				continue
			}
			if !yield(f) {
				return
			}
		}
	}
}
