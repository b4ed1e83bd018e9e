package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/store"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var identifier = bytes.Repeat([]byte{0xa7}, record.IdentifierSize)

func TestReferenceLayout(t *testing.T) {
	for rest, r := range map[string]Reference{
		"00 00":   {Identifier: identifier},
		"01 8001": {Identifier: identifier, Generation: 1, Expires: 128},
		"ffffffffffffffffff01 808080808080808040": {Identifier: identifier, Generation: math.MaxUint64, Expires: 1 << 62},
	} {
		want := append(slices.Clone(identifier), unhex(t, rest)...)
		if got := r.Append([]byte("kept")); !bytes.Equal(got, append([]byte("kept"), want...)) {
			t.Errorf("%+v is %x", r, got)
		}
		got, err := ParseReference(want)
		if err != nil || !bytes.Equal(got.Identifier, r.Identifier) || got.Generation != r.Generation || got.Expires != r.Expires {
			t.Errorf("%s: %+v, %v", rest, got, err)
		}
	}
}

func TestMalformedReferencesAreRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"nothing":                 nil,
		"an identifier too short": identifier[1:],
		"an identifier alone":     identifier,
		"no expiry":               append(slices.Clone(identifier), 1),
		"something behind":        append(slices.Clone(identifier), 1, 1, 1),
		"a number cut off":        append(slices.Clone(identifier), 1, 0x80),
		"a padded generation":     append(slices.Clone(identifier), 0x81, 0, 1),
		"a padded expiry":         append(slices.Clone(identifier), 1, 0x81, 0),
		"an expiry out of range":  append(slices.Clone(identifier), unhex(t, "01 818080808080808040")...),
		"more than 64 bits":       append(slices.Clone(identifier), unhex(t, "ffffffffffffffffff02 01")...),
	} {
		if r, err := ParseReference(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func TestFloorLayout(t *testing.T) {
	f := Floor{ID: store.ID{1, 2, 3}, Version: 300}
	want := unhex(t, "02 01020300000000000000000000000000 ac02")
	b := f.Append(nil)
	if !bytes.Equal(b, want) {
		t.Errorf("%x", b)
	}
	if got, err := ParseFloor(b[0], b[1:]); err != nil || got != f {
		t.Errorf("%+v, %v", got, err)
	}
	f.Volatile = true
	want[0] = 3
	if b := f.Append(nil); !bytes.Equal(b, want) {
		t.Errorf("with volatile values: %x", b)
	}
	if got, err := ParseFloor(want[0], want[1:]); err != nil || got != f {
		t.Errorf("with volatile values: %+v, %v", got, err)
	}
	for name, b := range map[string][]byte{
		"nothing":          nil,
		"an ID too short":  want[1:10],
		"an ID alone":      want[1:17],
		"something behind": append(slices.Clone(want[1:]), 0),
		"padded":           append(slices.Clone(want[1:17]), 0x81, 0),
		"cut off":          want[1 : len(want)-1],
	} {
		if f, err := ParseFloor(StateFloor, b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}

func TestTextHasOneSpelling(t *testing.T) {
	for text, ok := range map[string]bool{"": true, "AA": true, "AB": false, "AAA": true, "A": false, "AA==": false, "A+": false, "A_": false, "Aw": true} {
		if _, err := Text.DecodeString(text); (err == nil) != ok {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestBindTellsNamesApart(t *testing.T) {
	if got := Bind("ab"); !bytes.Equal(got, []byte("\x02ab")) {
		t.Errorf("%q", got)
	}
	// Without the length one name's additional data could be another's, continued.
	if bytes.HasPrefix(Bind("ab"), Bind("a")) {
		t.Error("one name is the beginning of another")
	}
}

func TestBindRecordChangesWithEverythingThatIsBound(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_000)
	base := store.Record{ID: store.ID{1}, Version: 1, User: store.UserHash{1}, Expires: at}
	want := slices.Concat(Bind("session"), base.ID[:], unhex(t, "0000000000000001"), base.User[:], unhex(t, "0000018bcfe56800"))
	if got := BindRecord(Bind("session"), &base); !bytes.Equal(got, want) {
		t.Errorf("%x, want %x", got, want)
	}
	for name, change := range map[string]func(*store.Record){
		"place":   func(r *store.Record) { r.ID[15] = 1 },
		"version": func(r *store.Record) { r.Version = 2 },
		"user":    func(r *store.Record) { r.User = store.UserHash{} },
		"end":     func(r *store.Record) { r.Expires = at.Add(time.Millisecond) },
	} {
		other := base
		change(&other)
		if bytes.Equal(BindRecord(Bind("session"), &other), want) {
			t.Errorf("%s is not bound", name)
		}
	}
	other := base
	other.Seen, other.Deadline, other.Data, other.SaveIDs = at, at, []byte{1}, []store.SaveID{1}
	if !bytes.Equal(BindRecord(Bind("session"), &other), want) {
		t.Error("something that changes without a new seal is bound")
	}
}

func TestSplitAndJoinAreInverseAndKeepTheLimit(t *testing.T) {
	for _, nameLen := range []int{1, 20, 81} {
		name := strings.Repeat("n", nameLen)
		for _, n := range []int{0, 1, 2, 3800, MaxCookie - nameLen, MaxCookie - nameLen + 1, 2 * 3900, 15000 - nameLen} {
			value := strings.Repeat("v", n)
			chunks := Split(name, value)
			if len(chunks) != Chunks(name, n) || len(chunks) > MaxChunks {
				t.Errorf("%d bytes: %d chunks, announced %d", n, len(chunks), Chunks(name, n))
			}
			for i, c := range chunks {
				if len(name)+len(c) > MaxCookie {
					t.Errorf("%d bytes: chunk %d has %d", n, i, len(c))
				}
			}
			got, whole := Join(chunks[0], func(i int) (string, bool) { return chunks[i], true })
			if !whole || got != value {
				t.Errorf("%d bytes do not come back", n)
			}
		}
	}
}

func TestJoinNeedsEveryPiece(t *testing.T) {
	all := []string{"4.a", "b", "c", "d"}
	for missing := 1; missing < 4; missing++ {
		if got, whole := Join(all[0], func(i int) (string, bool) { return all[i], i != missing }); whole || got != "" {
			t.Errorf("without piece %d: %q", missing, got)
		}
	}
	for first, want := range map[string]bool{
		"2.a": true, "4.": true, "a": true, "": true, ".": true,
		"0.a": false, "1.a": false, "5.a": false, "9.a": false, "..": false, "a.b": false, "\xff.": false,
	} {
		asked := 0
		_, whole := Join(first, func(i int) (string, bool) { asked++; return "x", i < MaxChunks })
		if whole != want || !want && asked > 0 {
			t.Errorf("%q: %v after %d pieces", first, whole, asked)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, r := range []Reference{{Identifier: identifier}, {identifier, 1, 1_700_000_000_000}, {identifier, math.MaxUint64, 1 << 62}} {
		f.Add(r.Append(nil))
	}
	f.Add(append(slices.Clone(identifier), 0x80, 0, 0x80, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReference(b)
		switch {
		case err != nil && !errors.Is(err, ErrFormat):
			t.Fatalf("error %v", err)
		case err == nil && !bytes.Equal(r.Append(nil), b):
			t.Fatalf("%x was accepted and is written as %x", b, r.Append(nil))
		}
	})
}

func FuzzParseFloor(f *testing.F) {
	for _, fl := range []Floor{{}, {store.ID{1}, 300, false}, {store.ID{1}, math.MaxUint64, true}} {
		f.Add(fl.Append(nil))
	}
	f.Add(append(make([]byte, 17), 0x80, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 || b[0] != StateFloor && b[0] != StateFloorVolatile {
			return
		}
		fl, err := ParseFloor(b[0], b[1:])
		switch {
		case err != nil && !errors.Is(err, ErrFormat):
			t.Fatalf("error %v", err)
		case err == nil && !bytes.Equal(fl.Append(nil), b):
			t.Fatalf("%x was accepted and is written as %x", b, fl.Append(nil))
		}
	})
}

func FuzzJoinChunks(f *testing.F) {
	f.Add("value", "", "", "", 17)
	f.Add("2.value", "rest", "", "", 81)
	f.Add("4.a", "b", "c", "d", 1)
	f.Add("9.a", "b", "c", "d", 1)
	f.Add("v", "b", "", "d", -5000)
	f.Fuzz(func(t *testing.T, first, one, two, three string, nameLen int) {
		if nameLen < 0 && nameLen >= -20000 { // a long value, without a long input
			first, nameLen = strings.Repeat(first, -nameLen/max(len(first), 1)), 64
		}
		pieces := []string{first, one, two, three}
		more := func(i int) (string, bool) {
			if i < 1 || i >= len(pieces) {
				t.Fatalf("asked for piece %d", i)
			}
			return pieces[i], pieces[i] != ""
		}
		got, whole := Join(first, more)
		if !whole && got != "" {
			t.Fatalf("%q, although a piece is lacking", got)
		}
		if len(got) > len(first)+len(one)+len(two)+len(three) {
			t.Fatal("more came out than went in")
		}

		// Join restores a split value, if it fits into the cookies and does not
		// look split itself.
		if nameLen < 1 || nameLen > 81 || len(first) > 15000-nameLen || len(first) > 1 && first[1] == '.' {
			return
		}
		chunks := Split(strings.Repeat("n", nameLen), first)
		if len(chunks) > MaxChunks {
			t.Fatalf("%d chunks", len(chunks))
		}
		back, whole := Join(chunks[0], func(i int) (string, bool) { return chunks[i], true })
		if !whole || back != first {
			t.Fatalf("%q came back as %q", first, back)
		}
	})
}
