package gobdata_test

import (
	"bytes"
	"encoding/gob"
	"errors"
	"math/big"
	"reflect"
	"runtime"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy/internal/gobdata"
	"github.com/sojourn-go/sojourn/legacy/reason"
)

type address struct {
	Street string
	Tags   map[string][]string
}

type profile struct {
	Name    string
	Age     uint8
	Height  float32
	Home    *address
	Past    []address
	Born    time.Time
	Grid    [2][3]int16
	Any     any
	Complex complex64
	Friends []*profile
	ByID    map[int]profile
	Raw     []byte
	On      bool
	Huge    *big.Int // encodes itself
}

// register makes the test's own types known to gob, as an application does.
func register() {
	gob.Register(profile{})
	gob.Register(&address{})
	gob.Register(map[string]any{})
	gob.Register(map[any]any{})
	gob.Register([]any{})
	gob.Register(time.Time{})
}

func samples() []map[any]any {
	born := time.Date(2000, 1, 2, 3, 4, 5, 6, time.UTC)
	full := profile{
		Name: "ada", Age: 36, Height: 1.5, Home: &address{Street: "x", Tags: map[string][]string{"a": {"b", "c"}}},
		Past: []address{{}, {Street: "y"}}, Born: born, Grid: [2][3]int16{{1, 2, 3}, {-4, 5, 6}}, Any: "text", Complex: 1 + 2i,
		Friends: []*profile{{Name: "grace", Any: &address{Street: "z"}}}, ByID: map[int]profile{7: {Name: "eve"}}, Raw: []byte{1}, On: true, Huge: big.NewInt(5),
	}
	return []map[any]any{
		{},
		{"a": 1},
		{"s": "text", "n": int64(-5), "u": uint(7), "f": 1.5, "b": true, "raw": []byte{0, 255}, "list": []string{"x"}, 5: 'r', "c": 2i},
		{"nested": map[string]any{"deep": map[string]any{"er": []any{1, "x", true}}, "t": born}},
		{"any keys": map[any]any{1: "x", "y": 2.5}},
		{"profile": full, "address": &address{Street: "q"}, "again": full},
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := gob.NewEncoder(&b).Encode(v); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestEverythingThatGobWritesIsDecoded(t *testing.T) {
	register()
	for i, m := range samples() {
		var got map[any]any
		if err := gobdata.Decode(encode(t, m), &got); err != nil {
			t.Errorf("%d: %v", i, err)
		} else if !reflect.DeepEqual(got, m) {
			t.Errorf("%d: got %v", i, got)
		}
	}
	var text string
	if err := gobdata.Decode(encode(t, "an identifier"), &text); err != nil || text != "an identifier" {
		t.Errorf("%q, %v", text, err)
	}
	type record struct {
		Deadline time.Time
		Values   map[string]any
	}
	in := record{time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), map[string]any{"p": samples()[5]["profile"], "m": map[string]any{"x": 1}}}
	var out record
	if err := gobdata.Decode(encode(t, &in), &out); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("got %v, %v", out, err)
	}
}

func TestWhatIsNoGobIsRefused(t *testing.T) {
	register()
	good := encode(t, samples()[3])
	for _, b := range [][]byte{nil, {0}, {1}, {1, 1}, {0xFF}, {0x80}, []byte("hello, world"), good[:len(good)-1], good[1:]} {
		var got map[any]any
		if err := gobdata.Decode(b, &got); !errors.Is(err, reason.Decode) {
			t.Errorf("%q: %v", b, err)
		}
	}
	var got map[any]any
	if err := gobdata.Decode(make([]byte, 5<<20), &got); !errors.Is(err, reason.ResourceLimit) {
		t.Errorf("five megabytes: %v", err)
	}
}

func TestAMapThatClaimsAllMemoryGetsNone(t *testing.T) {
	register()
	// The count of the outer or the inner map becomes 2^24.
	for _, marker := range []string{"outer", "inner"} {
		b := encode(t, map[any]any{"outer": map[string]any{"inner": 1}})
		at := bytes.Index(b, []byte(marker)) - 1 // the length of the key
		if marker == "outer" {
			at = bytes.Index(b, []byte("string")) - 1 // the key's type comes first
		}
		if b[at-1] != 1 {
			t.Fatalf("%s: no count before it: % x", marker, b[:at+1])
		}
		claim := []byte{0xFC, 1, 0, 0, 0}
		broken := append(append(bytes.Clone(b[:at-1]), claim...), b[at:]...)
		// The message is as much longer.
		start := bytes.LastIndex(broken[:at], []byte{0xFF, 0x80, 0x00}) - 1
		broken[start] += byte(len(claim) - 1)
		var got map[any]any
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := gobdata.Decode(broken, &got)
		runtime.ReadMemStats(&after)
		if spent := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, reason.Decode) || spent > 1<<20 {
			t.Errorf("%s: %v with %d bytes allocated", marker, err, spent)
		}
	}
}

func TestDeepNestingIsRefused(t *testing.T) {
	register()
	var v any = 1
	for range 2000 {
		v = []any{v}
	}
	var got map[any]any
	if err := gobdata.Decode(encode(t, map[any]any{"deep": v}), &got); !errors.Is(err, reason.Decode) {
		t.Errorf("got %v", err)
	}
}
