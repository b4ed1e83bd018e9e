package record

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"
)

var errTorn = errors.New("torn")

// sheets are chunks in the clear.
type sheets struct {
	head, body []byte
	cuts       []int // within body
	torn       map[int]bool
	opened     []int
	mu         sync.Mutex
}

func cutUp(r *Record) *sheets {
	plain, cuts, _ := r.AppendCut(nil)
	s := &sheets{head: plain, torn: map[int]bool{}}
	if len(cuts) > 0 {
		s.head, s.body = plain[:cuts[0]], plain[cuts[0]:]
		for _, c := range cuts {
			s.cuts = append(s.cuts, c-cuts[0])
		}
	}
	return s
}

func (s *sheets) Open(dst []byte, number, before, size int) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened = append(s.opened, number)
	if s.torn[number] {
		return nil, errTorn
	}
	if before != s.cuts[number-1] || before+size != append(s.cuts[1:], len(s.body))[number-1] {
		return nil, fmt.Errorf("chunk %d is not at %d with %d bytes", number, before, size)
	}
	return append(dst, s.body[before:before+size]...), nil
}

func (s *sheets) fits(chunks, size int) bool { return chunks == len(s.cuts) && size == len(s.body) }

func (s *sheets) parse(t testing.TB) Record {
	t.Helper()
	r, err := ParseCut(s.head, s, s.fits)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// long returns a record with n values of that size, and something beside them.
func long(n, size int) Record {
	r := full()
	for i := range n {
		r.Put(Field{Name: fmt.Sprintf("long%02d", i), Value: bytes.Repeat([]byte{byte('A' + i)}, size)})
	}
	return r
}

func TestALongRecordComesBackAsItWas(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		r := full()
		for i := range random.IntN(30) {
			size := []int{0, 1, 100, 1000, 2047, 2048, 2049, 9000}[random.IntN(8)]
			r.Put(Field{Name: fmt.Sprintf("%c%d", 'a'+random.IntN(26), i), Flags: Flags(random.IntN(3)), Value: bytes.Repeat([]byte{byte(i)}, size)})
		}
		s := cutUp(&r)
		if len(s.cuts) == 0 {
			if whole := r.Append(nil); !bytes.Equal(s.head, whole) {
				t.Fatalf("%d bytes are cut otherwise than as a whole", len(whole))
			}
			continue
		}
		if whole := r.Append(nil); len(s.head)+len(s.body) != len(whole) || len(whole) <= ChunkSize {
			t.Fatalf("%d and %d bytes, %d as a whole", len(s.head), len(s.body), len(whole))
		}
		got := s.parse(t)
		if got.Size() != r.Size() || got.Len() != r.Len() || len(s.opened) > 0 {
			t.Fatalf("size %d and %d, %d and %d fields, opened %v", got.Size(), r.Size(), got.Len(), r.Len(), s.opened)
		}
		if !reflect.DeepEqual(got.Fields(), r.Fields()) || !reflect.DeepEqual(got.Header, r.Header) || !got.Whole() {
			t.Fatal("it has come back different")
		}
		again := cutUp(&got)
		if !bytes.Equal(again.head, s.head) || !bytes.Equal(again.body, s.body) || !slices.Equal(again.cuts, s.cuts) {
			t.Fatal("it has two spellings")
		}
	}
}

func TestARecordIsCutOnceItIsLong(t *testing.T) {
	r := full()
	r.Put(Field{Name: "x", Value: make([]byte, 200)}) // more would make its length take more
	short := len(r.Append(nil))
	r.Put(Field{Name: "x", Value: make([]byte, 200+ChunkSize-short)})
	if plain, cuts, _ := r.AppendCut(nil); len(plain) != ChunkSize || cuts != nil {
		t.Errorf("%d bytes are cut at %v", len(plain), cuts)
	}
	r.Put(Field{Name: "x", Value: make([]byte, 201+ChunkSize-short)})
	if plain, cuts, _ := r.AppendCut(nil); len(plain) != ChunkSize+1 || cuts == nil {
		t.Errorf("%d bytes are cut at %v", len(plain), cuts)
	}
	for i := range 400 { // without any value
		r.Put(Field{Name: fmt.Sprintf("name%03d", i), Value: []byte{}})
	}
	for _, f := range r.Fields() {
		r.Remove(f.Name)
		r.Put(Field{Name: f.Name})
	}
	s := cutUp(&r)
	if got := s.parse(t); len(s.head) <= ChunkSize || len(s.body) > 0 || !got.Whole() || len(got.Fields()) != r.Len() {
		t.Errorf("names alone: %d bytes and %d", len(s.head), len(s.body))
	}
}

func TestAChunkIsOpenedWhenItIsAskedForAndOnce(t *testing.T) {
	r := long(10, 1000)
	s := cutUp(&r)
	got := s.parse(t)
	for range 3 {
		if f, ok := got.Find("long05"); !ok || len(f.Value) != 1000 || f.Value[0] != 'F' {
			t.Fatalf("%+v", f)
		}
	}
	if len(s.opened) != 1 {
		t.Errorf("opened %v", s.opened)
	}
	if n := len(got.Frames()); n != r.Len() || len(s.opened) != 1 {
		t.Errorf("%d fields, opened %v", n, s.opened)
	}
}

func TestALongRecordCanBeChanged(t *testing.T) {
	r := long(80, 1000) // many: changes are noted apart
	got := cutUp(&r).parse(t)
	change := func(r *Record) {
		r.Put(Field{Name: "long03", Value: []byte("new")})
		r.Put(Field{Name: "long04x", Value: []byte("more")})
		r.Put(Field{Name: "none"})
		r.Remove("long05")
		r.Expire(100) // "b" has expired
		r.Settle()
	}
	c := got.Clone()
	change(&c)
	change(&r)
	if !bytes.Equal(c.Append(nil), r.Append(nil)) {
		t.Error("the changes of a record that was not opened differ")
	}
	if f, _ := got.Find("long03"); len(f.Value) != 1000 {
		t.Error("the record changed together with its clone")
	}
	c.RemoveAll()
	c.Put(Field{Name: "long07", Value: []byte{}})
	if f, ok := c.Find("long07"); !ok || len(f.Value) != 0 || f.Value == nil {
		t.Errorf("%+v", f)
	}
}

func TestADamagedChunkIsFoundBeforeTheRecordIsUsed(t *testing.T) {
	for name, change := range map[string]func(*Record){
		"unchanged":            func(*Record) {},
		"its value is removed": func(r *Record) { r.Remove("long05") },
		"its value is read":    func(r *Record) { r.Find("long05") },
		"all are removed":      func(r *Record) { r.RemoveAll() },
		"another is changed":   func(r *Record) { r.Put(Field{Name: "long00", Value: []byte("new")}) },
	} {
		r := long(10, 2000)
		s := cutUp(&r)
		s.torn[6] = true
		got := s.parse(t)
		if f, ok := got.Find("long04"); !ok || len(f.Value) != 2000 {
			t.Errorf("%s: a sound value: %+v", name, f)
		}
		c := got.Clone()
		change(&c)
		if c.Whole() || got.Whole() {
			t.Errorf("%s: a damaged record is whole", name)
		}
		if f, ok := got.Find("long05"); !ok || f.Value != nil {
			t.Errorf("%s: the damaged value: %+v", name, f)
		}
	}
}

func TestOneRecordIsOpenedByManyAtOnce(t *testing.T) {
	r := long(20, 1000)
	got := cutUp(&r).parse(t)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			c := got.Clone()
			c.Put(Field{Name: "mine", Value: []byte{1}})
			if f, ok := c.Find(fmt.Sprintf("long%02d", i)); !ok || f.Value[0] != byte('A'+i) {
				t.Errorf("%+v", f)
			}
			if !c.Whole() {
				t.Error("not whole")
			}
		})
	}
	wg.Wait()
}

// FuzzParseCut looks for a first chunk that breaks the parser, or that is
// parsed but would be written differently.
func FuzzParseCut(f *testing.F) {
	for _, r := range []Record{long(3, 1000), long(1, 5000), long(30, 100)} {
		f.Add(cutUp(&r).head)
	}
	f.Add([]byte{2, 0, 1, 1, 'a', 0, 0xff, 0xff, 0xff, 0xff, 0x07})
	f.Fuzz(func(t *testing.T, head []byte) {
		s := &sheets{head: head}
		n, size := 0, 0
		r, err := ParseCut(head, s, func(chunks, total int) bool {
			n, size = chunks, total
			return total < 1<<20
		})
		if err != nil {
			return
		}
		s.body = make([]byte, size)
		var at []int
		for i := range r.late.pieces {
			at = append(at, r.late.pieces[i].before)
		}
		if s.cuts = at; len(at) != n {
			t.Fatalf("%d chunks, cut at %v", n, at)
		}
		if !r.Whole() {
			t.Fatal("its own chunks are not sound")
		}
		plain, cuts, _ := r.AppendCut(nil)
		if len(head)+size > ChunkSize && (len(cuts) != n || !bytes.HasPrefix(plain, head)) {
			t.Errorf("%x is written as %x", head, plain[:min(len(plain), len(head))])
		}
	})
}
