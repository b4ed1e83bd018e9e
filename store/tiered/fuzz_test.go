package tiered

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

func encodeCopy(rec store.Record) ([]byte, error) { return new(layer).encode(copied{rec: rec}) }

func FuzzDecodeEntry(f *testing.F) {
	id := store.ID{7}
	full, err := encodeCopy(store.Record{ID: id, Version: 3, SaveIDs: []store.SaveID{1}, Data: []byte("x")})
	if err != nil {
		f.Fatal(err)
	}
	near, err := (&layer{inProcess: true}).encode(copied{store.Record{ID: id, Version: 3, Data: []byte("x")}, began, began.Add(time.Second)})
	if err != nil {
		f.Fatal(err)
	}
	other, err := encodeCopy(store.Record{ID: store.ID{8}, Version: 3})
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range [][]byte{nil, full, full[1:], other, near, near[:17], encodeLease(), {kindLease}, {kindVolatile}} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(id, b)
		switch {
		case err != nil:
			if !errors.Is(err, store.ErrFormat) {
				t.Errorf("%x: %v", b, err)
			}
			return
		case e.lease:
			return
		case e.rec.ID != id || e.rec.IsEnd():
			t.Errorf("%x is taken for a copy of the session", b)
		}
		again, err := (&layer{inProcess: b[0] == kindNear}).encode(e.copied)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decodeEntry(id, again); err != nil || !reflect.DeepEqual(back, e) {
			t.Errorf("%x is read as %+v, then as %+v (%v)", b, e, back, err)
		}
	})
}

func FuzzDecodeVolatile(f *testing.F) {
	v := volatile{base: store.Base{Version: 1, SaveID: 2}, Volatile: store.Volatile{SaveID: 3, Data: []byte("x")}}
	for _, b := range [][]byte{nil, v.encode(), v.encode()[1:], {kindVolatile}, encodeLease()} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		v := decodeVolatile(b)
		if v.base == (store.Base{}) && v.SaveID == 0 && len(v.Data) == 0 {
			return // of no session
		}
		if !bytes.Equal(v.encode(), b) {
			t.Errorf("%x is read as %+v and written as %x", b, v, v.encode())
		}
	})
}
