package store_test

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

func at(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

func TestRecordsSurviveTheirBinaryForm(t *testing.T) {
	for name, rec := range map[string]store.Record{
		"zero": {},
		"full": {
			ID: store.ID{1, 2, 3}, User: store.UserHash{4, 5}, Version: 1 << 60,
			SaveIDs: []store.SaveID{1, 0, ^store.SaveID(0), 4, 5, 6, 7, 8},
			Created: at(1), Seen: at(1700000000123), Deadline: at(1700000000124), Expires: at(1 << 45), Data: []byte{0, 255, 1},
		},
		"tombstone": {ID: store.ID{9}, Version: 2, SaveIDs: []store.SaveID{3}, Ended: at(5), Deadline: at(6), Expires: at(6)},
	} {
		t.Run(name, func(t *testing.T) {
			b, err := rec.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			var got store.Record
			if err := got.UnmarshalBinary(b); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, rec) {
				t.Errorf("got %+v, want %+v", got, rec)
			}
		})
	}
}

func TestACutRecordIsRefused(t *testing.T) {
	rec := store.Record{ID: store.ID{1}, Version: 300, SaveIDs: []store.SaveID{7, 8}, Created: at(1700000000000), Deadline: at(1700000000001)}
	b, err := rec.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		var got store.Record
		if err := got.UnmarshalBinary(b[:n]); !errors.Is(err, store.ErrFormat) {
			t.Errorf("%d of %d bytes: %v", n, len(b), err)
		}
	}
}

func FuzzUnmarshalRecord(f *testing.F) {
	full, err := store.Record{Version: 3, SaveIDs: []store.SaveID{1}, Created: at(9), Data: []byte("x")}.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{1}, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		var rec, again store.Record
		if rec.UnmarshalBinary(b) != nil {
			return
		}
		out, err := rec.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalBinary(out); err != nil || !reflect.DeepEqual(rec, again) {
			t.Fatalf("%x became %+v, then %+v (%v)", b, rec, again, err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	id := store.ID{7}
	ours, err := store.Record{ID: id, Version: 3, SaveIDs: []store.SaveID{1}, Data: []byte("x")}.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	others, err := store.Record{ID: store.ID{8}}.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range [][]byte{nil, ours, others, {2}, []byte("text")} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		rec, err := store.Decode(id, b)
		switch {
		case err == nil && rec.ID != id:
			t.Errorf("%x is taken for another's record", b)
		case err != nil && !errors.Is(err, store.ErrFormat) && !errors.Is(err, store.ErrDamaged):
			t.Errorf("%x: %v", b, err)
		}
	})
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"", store.ID{}.String(), store.ID{1, 2, 3}.String(), "aaaaaaaaaaaaaaaaaaaaaaaaab", "AAAAAAAAAAAAAAAAAAAAAAAAAA", "aaaaaaaaaaaa\naaaaaaaaaaaaaa"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := store.ParseID(s)
		switch {
		case err == nil && id.String() != s:
			t.Errorf("%q is read as %s", s, id)
		case err != nil && (!errors.Is(err, store.ErrBadID) || id != store.ID{}):
			t.Errorf("%q: %v, %v", s, id, err)
		}
	})
}
