// Package gobdata encodes gob, and decodes gob that may be malformed or hostile.
package gobdata

import (
	"bytes"
	"encoding/gob"
	"fmt"

	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// maxSize is the maximum size to decode, in bytes.
const maxSize = 4 << 20

// Decode decodes one gob value. Its errors wrap [reason.ResourceLimit] for more
// than 4 MiB, and otherwise [reason.Decode]. Before decoding it checks that no
// map claims more entries than the bytes can hold. It turns panics into errors:
// encoding/gob panics on a map with interface keys if one is a slice.
func Decode(b []byte, into any) (err error) {
	if len(b) > maxSize {
		return fmt.Errorf("%w: gob of %d bytes", reason.ResourceLimit, len(b))
	}
	if err := check(b); err != nil {
		return fmt.Errorf("%w: %w", reason.Decode, err)
	}
	defer func() {
		if recover() != nil {
			err = fmt.Errorf("%w: gob that cannot be a session", reason.Decode)
		}
	}()
	if err := gob.NewDecoder(bytes.NewReader(b)).Decode(into); err != nil {
		return fmt.Errorf("%w: gob: %w", reason.Decode, err)
	}
	return nil
}

// Encode encodes one gob value. It wraps [value.ErrUnsupported].
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(v); err != nil {
		return nil, fmt.Errorf("%w: %w", value.ErrUnsupported, err)
	}
	return b.Bytes(), nil
}
