package redis

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

func TestTheHeadIsWhereTheScriptsLook(t *testing.T) {
	rec := store.Record{
		Version: 0x0102030405060708,
		SaveIDs: []store.SaveID{0x1112131415161718, 0x2122232425262728},
		User:    store.UserHash(bytes.Repeat([]byte{0xaa}, 16)),
		Seen:    time.UnixMilli(1), Deadline: time.UnixMilli(2), Created: time.UnixMilli(3), Expires: time.UnixMilli(1<<48 - 1), Ended: time.UnixMilli(256),
		Data: []byte("data"),
	}
	want := "\x01\x02" +
		"\x00\x00\x00\x00\x00\x01" + "\x00\x00\x00\x00\x00\x02" + "\x00\x00\x00\x00\x00\x03" + "\xff\xff\xff\xff\xff\xff" + "\x00\x00\x00\x00\x01\x00" +
		"\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa\xaa" +
		"\x01\x02\x03\x04\x05\x06\x07\x08" +
		"\x11\x12\x13\x14\x15\x16\x17\x18" + "\x21\x22\x23\x24\x25\x26\x27\x28" +
		"data"
	got := string(encode(&rec))
	if got != want {
		t.Errorf("encoded\n%x, want\n%x", got, want)
	}
	if base := encodeBase(rec.Base()); base != got[versionAt:versionAt+16] {
		t.Errorf("the base is %x", base)
	}
}

func TestARecordThatRedisWouldRefuseIsTooLarge(t *testing.T) {
	rec := session(ann)
	rec.Data = nil
	for range store.RecentSaveIDs {
		rec = next(rec)
	}
	most := maxValue - len(encode(&rec))
	if err := fits(most); err != nil {
		t.Error(err)
	}
	if err := fits(most + 1); !errors.Is(err, store.ErrTooLarge) {
		t.Errorf("one byte more: %v", err)
	}
}

func TestTimesOutOfRangeAreBent(t *testing.T) {
	for _, c := range []struct{ in, want time.Time }{
		{time.Time{}, time.Time{}},
		{time.Date(1965, 1, 1, 0, 0, 0, 0, time.UTC), time.Time{}},
		{time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC), time.UnixMilli(longestTime).UTC()},
	} {
		if got := timeAt(appendTime(nil, c.in)); !got.Equal(c.want) {
			t.Errorf("%v has become %v, want %v", c.in, got, c.want)
		}
	}
}

func TestDamagedRecordsAreNone(t *testing.T) {
	rec := session(store.UserHash{1})
	rec.Data = nil
	good := encode(&rec)
	if _, err := decode(rec.ID, good); err != nil {
		t.Fatal(err)
	}
	for n := range good {
		if _, err := decode(rec.ID, good[:n]); !errors.Is(err, store.ErrDamaged) {
			t.Errorf("the first %d bytes of a record: %v", n, err)
		}
	}
	for _, change := range []struct{ at, to int }{{0, 0}, {0, 2}, {1, 2}, {1, 9}, {1, 255}} {
		bad := bytes.Clone(good)
		bad[change.at] = byte(change.to)
		want := store.ErrDamaged
		if bad[0] > format {
			want = errFormat
		}
		if _, err := decode(rec.ID, bad); !errors.Is(err, want) {
			t.Errorf("byte %d changed to %d: %v", change.at, change.to, err)
		}
	}
}
