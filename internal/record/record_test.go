package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"
)

// full has everything that a record can have.
func full() Record {
	r := Record{Header: Header{
		Identifier: bytes.Repeat([]byte{7}, IdentifierSize), Counter: 3, Created: 1, Seen: 2, Expires: math.MaxInt32,
		Generation: 5, Presented: 6, User: "anna", AuthTime: 7, UserAgent: "browser/1", IP: "192.0.2.1",
		Idle: -1, Lifetime: 3_600_000, Persist: PersistBrowser, PromotedAt: 9, InlineUntil: 10,
		Methods: "pwd otp", Rotated: 11, OlderUntil: 12, Suspected: 4, Legacy: "\x8a\xff", Link: "\x01link",
	}}
	r.Put(Field{Name: "b", Flags: ServerSide | Volatile, Stamp: 2, Expiry: 99, Value: []byte{1}})
	r.Put(Field{Name: "a", Value: []byte{}})
	r.Put(Field{Name: strings.Repeat("n", MaxName), Value: bytes.Repeat([]byte{0xee}, 300)})
	return r
}

func TestLayoutIsAsWritten(t *testing.T) {
	for want, r := range map[string]Record{
		"01 00 00":                              {},
		"01 03 02 01 07 00":                     {Header: Header{Counter: 7}},
		"01 0a 03 02 8101 08 01 78 0e 01 02 00": {Header: Header{Created: 129, User: "x", Persist: PersistBrowser}},
		"01 06 0c 01 01 0d 01 02 00":            {Header: Header{Idle: -1, Lifetime: 1}},
		"01 00 02 01 61 00 00 01 62 0f 05 06 02 f600": {fields: []Field{
			{Name: "a", Value: []byte{}},
			{Name: "b", Flags: ServerSide | Volatile, Stamp: 5, Expiry: 6, Value: []byte{0xf6, 0}},
		}},
	} {
		b, err := hex.DecodeString(strings.ReplaceAll(want, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if got := r.Append([]byte("kept")); !bytes.Equal(got, append([]byte("kept"), b...)) {
			t.Errorf("%+v is %x, want kept and %s", r, got, want)
		}
		if got, err := Parse(b); err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s is %+v, %v, want %+v", want, got, err, r)
		}
	}
}

func TestARecordComesBackAsItWas(t *testing.T) {
	for name, r := range map[string]Record{"empty": {}, "full": full()} {
		b := r.Append(nil)
		got, err := Parse(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if again := got.Append(nil); !bytes.Equal(again, b) {
			t.Errorf("%s: has two spellings", name)
		}
		if got := r.Size(); got < len(b) {
			t.Errorf("%s: Size says %d, it takes %d", name, got, len(b))
		}
	}
}

func TestEveryHeaderComesBackAsItWas(t *testing.T) {
	property := func(h Header, identifier [IdentifierSize]byte) bool {
		h.Identifier, h.Unknown = identifier[:], nil
		h.Persist %= PersistBrowser + 1
		for _, ms := range []*int64{&h.Created, &h.Seen, &h.Expires, &h.Presented, &h.AuthTime, &h.InlineUntil, &h.Rotated, &h.OlderUntil, &h.Promoted, &h.Renewed} {
			*ms &= 1<<62 - 1
		}
		r := Record{Header: h}
		b := r.Append(nil)
		got, err := Parse(b)
		return err == nil && reflect.DeepEqual(got, r) && r.Size() >= len(b)
	}
	if err := quick.Check(property, nil); err != nil {
		t.Error(err)
	}
}

func TestWhatANewerVersionWroteIsCarriedAlong(t *testing.T) {
	unknown := []byte{tagFirstUnknown, 2, 0xaa, 0xbb, 0x80 | 100, 1, 0} // two entries, the second of tag 228
	r := Record{Header: Header{Counter: 1, Unknown: unknown}}
	r.Put(Field{Name: "a", Flags: 0b1011_0000, Value: []byte{1}})
	got, err := Parse(r.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	got.Put(Field{Name: "b", Value: []byte{2}})
	got.Header.User = "anna"
	got, err = Parse(got.Append(nil))
	if err != nil || !bytes.Equal(got.Header.Unknown, unknown) {
		t.Errorf("header entries: %x, %v", got.Header.Unknown, err)
	}
	if f, ok := got.Find("a"); !ok || f.Flags != 0b1011_0000 {
		t.Errorf("flags: %+v", f)
	}
}

func TestMalformedRecordsAreRefused(t *testing.T) {
	r := full()
	good := r.Append(nil)
	bad := map[string][]byte{
		"nothing":                      nil,
		"version 0":                    {0, 0, 0},
		"version 2":                    {2, 0, 0},
		"no header":                    {1},
		"no count":                     {1, 0},
		"header longer than the rest":  {1, 5, 0},
		"count without fields":         {1, 0, 1},
		"a count that lies":            {1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"a count beyond 64 bits":       {1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
		"a count in two bytes":         {1, 0, 0x80, 0},
		"something behind":             append(slices.Clone(good), 0),
		"a field without name":         {1, 0, 1, 0, 0, 1, 9},
		"names twice":                  {1, 0, 2, 1, 'a', 0, 0, 1, 'a', 0, 0},
		"names out of order":           {1, 0, 2, 1, 'b', 0, 0, 1, 'a', 0, 0},
		"a name that is too long":      slices.Concat([]byte{1, 0, 1, 0x80, 2}, bytes.Repeat([]byte{'n'}, 256), []byte{0, 0}),
		"a name longer than the rest":  {1, 0, 1, 9, 'a', 0, 0},
		"a value longer than the rest": {1, 0, 1, 1, 'a', 0, 9},
		"a stamp of zero":              {1, 0, 1, 1, 'a', byte(hasStamp), 0, 0},
		"an expiry of zero":            {1, 0, 1, 1, 'a', byte(hasExpiry), 0, 0},
		"an expiry out of range":       {1, 0, 1, 1, 'a', byte(hasExpiry), 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40, 0},
		"header tag 0":                 {1, 3, 0, 1, 7, 0},
		"header tags out of order":     {1, 6, tagCreated, 1, 7, tagCounter, 1, 7, 0},
		"a header tag twice":           {1, 6, tagCounter, 1, 7, tagCounter, 1, 7, 0},
		"a header entry cut off":       {1, 2, tagCounter, 1, 0},
		"a header number of zero":      {1, 3, tagCounter, 1, 0, 0},
		"a header number padded":       {1, 4, tagCounter, 2, 0x81, 0, 0},
		"something behind a number":    {1, 4, tagCounter, 2, 1, 1, 0},
		"an empty header text":         {1, 2, tagUser, 0, 0},
		"an identifier too short":      {1, 3, tagIdentifier, 1, 7, 0},
		"a persistence unheard of":     {1, 3, tagPersist, 1, 3, 0},
		"an unknown entry cut off":     {1, 2, tagFirstUnknown, 9, 0},
	}
	for i := range good {
		bad[fmt.Sprintf("cut at %d", i)] = good[:i]
	}
	for name, b := range bad {
		if r, err := Parse(b); !errors.Is(err, ErrFormat) || r.Len() > 0 {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

func TestALyingCountAllocatesNothing(t *testing.T) {
	lie := []byte{1, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0}
	if n := testing.AllocsPerRun(100, func() { _, _ = Parse(lie) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestFieldsAreKeptInOrder(t *testing.T) {
	for _, n := range []int{1, 7, 8, 9, 100} { // a few are searched one by one
		var r Record
		want := []string{}
		for i := range n {
			name := fmt.Sprint(i * 7919 % n)
			r.Put(Field{Name: name, Value: []byte{byte(i)}})
			r.Put(Field{Name: name, Value: []byte(name)})
			if !slices.Contains(want, name) {
				want = append(want, name)
			}
		}
		slices.Sort(want)
		got := []string{}
		for _, f := range r.Fields() {
			got = append(got, f.Name)
		}
		if !slices.Equal(got, want) || r.Len() != len(want) {
			t.Fatalf("%d fields: %q", n, got)
		}
		for _, name := range want {
			f, ok := r.Find(name)
			if !ok || string(f.Value) != name {
				t.Errorf("%s: %+v", name, f)
			}
			for _, near := range []string{name + "\x00", "", "~"} {
				if _, ok := r.Find(near); ok {
					t.Errorf("found %q", near)
				}
			}
		}
		for _, name := range want {
			r.Remove(name)
			r.Remove(name)
			if _, ok := r.Find(name); ok {
				t.Errorf("%s is still there", name)
			}
		}
		if r.Len() != 0 {
			t.Errorf("%d fields are left", r.Len())
		}
	}
}

func TestAClonesChangesDoNotShowInTheOriginal(t *testing.T) {
	r := full()
	before := r.Append(nil)
	c := r.Clone()
	c.Put(Field{Name: "a", Value: []byte("changed")})
	c.Put(Field{Name: "new"})
	c.Remove("b")
	c.Header.User = "eva"
	c.Settle()
	c.Expire(math.MaxInt64)
	if !bytes.Equal(r.Append(nil), before) {
		t.Error("the original changed")
	}
	c = r.Clone()
	c.RemoveAll()
	if c.Len() != 0 || c.Header.User != "anna" || r.Len() != 3 {
		t.Errorf("RemoveAll: %+v", c)
	}
}

func TestExpireRemovesWhatIsOver(t *testing.T) {
	var r Record
	r.Put(Field{Name: "always"})
	r.Put(Field{Name: "until 10", Expiry: 10})
	r.Put(Field{Name: "until 11", Expiry: 11})
	r.Expire(10)
	if r.Len() != 3 {
		t.Error("a value is over at its very end")
	}
	r.Expire(11)
	if _, ok := r.Find("until 10"); ok || r.Len() != 2 {
		t.Errorf("%+v", r.Fields())
	}
}

func TestSettleForgetsWhereValuesWereChanged(t *testing.T) {
	r := full()
	r.Settle()
	if f, _ := r.Find("b"); f.Stamp != 0 || f.Expiry != 99 {
		t.Errorf("%+v", f)
	}
}

func TestMillisAndTimeAreInverse(t *testing.T) {
	for _, ms := range []int64{0, 1, 1_700_000_000_123} {
		if got := Millis(Time(ms)); got != ms {
			t.Errorf("%d became %d", ms, got)
		}
	}
	if !Time(0).IsZero() || Millis(time.Time{}) != 0 || Time(1).Location() != time.UTC {
		t.Error("zero is not zero, or not UTC")
	}
}

func TestParsingDecodesNoValue(t *testing.T) {
	r := full()
	b := r.Append(nil)
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	f, _ := got.Find(strings.Repeat("n", MaxName))
	at := bytes.Index(b, f.Value)
	if at < 0 || &f.Value[0] != &b[at] {
		t.Error("the value was copied")
	}
	if cap(f.Value) != len(f.Value) {
		t.Error("appending to a value would overwrite what follows")
	}
}

func FuzzParseRecord(f *testing.F) {
	r := full()
	f.Add(r.Append(nil))
	f.Add([]byte{1, 0, 0})
	f.Add([]byte{1, 3, tagFirstUnknown, 1, 7, 1, 1, 'a', 0xf3, 0})
	f.Add([]byte{1, 0, 2, 1, 'a', 0, 0, 1, 'b', byte(hasStamp | hasExpiry), 1, 1, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		original := slices.Clone(b)
		r, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error %v", err)
			}
			return
		}
		out := r.Append(nil)
		if !bytes.Equal(out, original) {
			t.Fatalf("%x was accepted and is written as %x", original, out)
		}
		if r.Size() < len(out) {
			t.Fatalf("Size says %d of %d bytes", r.Size(), len(out))
		}
		for i := range r.Fields() {
			if got, ok := r.Find(r.Fields()[i].Name); !ok || got != &r.Fields()[i] {
				t.Fatalf("field %d is not found", i)
			}
		}
		c := r.Clone()
		c.Expire(math.MaxInt64)
		c.Settle()
		c.Put(Field{Name: "a", Value: []byte{1}})
		if _, err := Parse(c.Append(nil)); err != nil {
			t.Fatalf("after a change: %v", err)
		}
		if !bytes.Equal(b, original) {
			t.Fatal("the bytes were changed")
		}
	})
}
