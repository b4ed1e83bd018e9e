package stored

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/sojourn-go/sojourn/internal/record"
)

// Buffers are reused, which must not affect any record.
func TestRecordsThatAreSealedAtOnceShareNothing(t *testing.T) {
	ring := ring(t, 1)
	var wg sync.WaitGroup
	for visitor := range 8 {
		wg.Go(func() {
			for n, size := range []int{20_000, 10, 300_000, 3000, 0, 70_000} {
				aad := fmt.Appendf(nil, "%d %d", visitor, n)
				var r record.Record
				for i := range 5 {
					r.Put(record.Field{Name: fmt.Sprint("n", i), Value: bytes.Repeat([]byte{byte(visitor), byte(i)}, size/10)})
				}
				sealed, err := SealRecord(ring, &r, aad, 1<<20)
				if err != nil {
					t.Error(err)
					return
				}
				back, _, err := OpenRecord(ring, sealed, aad, func(err error) { t.Error(err) })
				if err != nil || !bytes.Equal(back.Append(nil), r.Append(nil)) {
					t.Errorf("a record of %d bytes came back as another one (%v)", size, err)
				}
			}
		})
	}
	wg.Wait()
}
