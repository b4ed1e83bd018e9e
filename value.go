package sojourn

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// Values are CBOR (RFC 8949) in its core deterministic encoding, times as
// tagged RFC 3339 text with nanoseconds. The modes are part of the wire format.
// value_form.go says what becomes of a type, value_encode.go writes values.

// maxNesting is how many arrays, maps and tags of a value may be inside each
// other. Whatever is written within it can be read within it.
const maxNesting = 10_000

// maxEncoded bounds the bytes of one value while it is being written, for
// values whose parts refer to each other many times over.
const maxEncoded = 64 << 20

var valueDecoding = sync.OnceValue(func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DefaultMapType: reflect.TypeFor[map[string]any](),
		IntDec:         cbor.IntDecConvertSignedOrBigInt,
		TimeTag:        cbor.DecTagOptional,
		// A Go string may hold any bytes; what was set comes back.
		UTF8: cbor.UTF8DecodeInvalid,
		// Finding the end of nested items of indefinite length takes quadratic time.
		IndefLength: cbor.IndefLengthForbidden,
		// Whatever fits into a session can be read: only its own manager sealed it.
		MaxNestedLevels:  maxNesting,
		MaxArrayElements: math.MaxInt32,
		MaxMapPairs:      math.MaxInt32,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return mode
})

// decodeValue reads b into the variable that into points to. A panic of a
// type's own method is an error.
func decodeValue(b []byte, into any) (err error) {
	defer recovered(&err)
	return valueDecoding().Unmarshal(b, into)
}

// panicError says that a codec, or a type's own method, panicked. What it
// panicked with is left out: it may quote the value.
type panicError struct{ kind string }

func (e *panicError) Error() string { return "panic with a " + e.kind }

// recovered, deferred, turns a panic into an error.
func recovered(err *error) {
	if p := recover(); p != nil {
		if p == any(reentryText) {
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
