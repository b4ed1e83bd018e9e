package stored

import (
	"fmt"
	"testing"

	"github.com/sojourn-go/sojourn/internal/record"
)

// A session of twenty values of 1 KB.
func BenchmarkLongRecord(b *testing.B) {
	ring := ring(b, 1)
	var r record.Record
	r.Header.User, r.Header.UserAgent = "anna", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
	for i := range 20 {
		r.Put(record.Field{Name: fmt.Sprintf("value%02d", i), Value: make([]byte, 1024)})
	}
	aad := make([]byte, 80)
	data, err := SealRecord(ring, &r, aad, 1<<20)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = SealRecord(ring, &r, aad, 1<<20)
		}
	})
	for _, n := range []int{0, 1, 3, 20} {
		b.Run(fmt.Sprintf("open and read %d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, _, err := OpenRecord(ring, data, aad, func(error) {})
				if err != nil {
					b.Fatal(err)
				}
				for i := range n {
					if f, _ := r.Find(r.Frames()[(i*7)%20].Name); len(f.Value) != 1024 {
						b.Fatal(f)
					}
				}
			}
		})
	}
}
