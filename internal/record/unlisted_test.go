package record

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
)

// varied returns a record of n fields of every kind, which is long enough to be cut.
func varied(random *rand.Rand, n int) Record {
	r := Record{Header: full().Header}
	for i := range n {
		r.Put(Field{
			Name:   fmt.Sprintf("n%03d", 2*i),
			Flags:  Flags(random.IntN(3)),
			Stamp:  uint64(random.IntN(2)) * uint64(i+1),
			Expiry: int64(random.IntN(2)) * int64(i+50),
			Value:  bytes.Repeat([]byte{byte(i)}, []int{0, 1, 100, 3000}[random.IntN(4)]),
		})
	}
	r.Put(Field{Name: "zz", Value: make([]byte, ChunkSize)})
	return r
}

// A search in the bytes finds the same field as the list.
func TestAFieldIsTheSameWhetherItWasListedOrNot(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{1, 2, 9, short - 2, short - 1, short, short + 1, 3 * short} {
		r := varied(random, n)
		s := cutUp(&r)
		lazy, listed := s.parse(t), s.parse(t)
		listed.Frames()
		listed.own()
		if lazy.unlisted != (n+1 <= short) {
			t.Errorf("%d fields are listed at once: %v", n+1, !lazy.unlisted)
		}
		for i := range 2*n + 2 {
			for _, name := range []string{fmt.Sprintf("n%03d", i), "", "a", "zz", "zzz"} {
				a, okA := lazy.Find(name)
				b, okB := listed.Find(name)
				want, ok := r.Find(name)
				if okA != ok || okB != ok || !reflect.DeepEqual(a, b) || ok && !reflect.DeepEqual(a, want) {
					t.Fatalf("%q of %d: %v %v %v, %+v and %+v, want %+v", name, n, okA, okB, ok, a, b, want)
				}
			}
		}
		if lazy.Len() != n+1 || lazy.Size() != r.Size() || !bytes.Equal(lazy.Append(nil), r.Append(nil)) {
			t.Errorf("%d fields: it differs from what it was made of", n)
		}
	}
}

// Changes have the same effect on a cut and an uncut record.
func TestChangesOfAnUnlistedRecordAreThoseOfAListedOne(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for range 300 {
		r := varied(random, 1+random.IntN(short))
		base := cutUp(&r).parse(t)
		before := base.Append(nil)
		got, want := base.Clone(), r.Clone()
		for range 1 + random.IntN(8) {
			name, now := fmt.Sprintf("n%03d", random.IntN(2*short)), random.Int64N(120)
			op := random.IntN(6)
			for _, c := range []*Record{&got, &want} {
				switch op {
				case 0:
					c.Put(Field{Name: name, Value: []byte("new")})
				case 1:
					c.Remove(name)
				case 2:
					c.Expire(now)
				case 3:
					c.Settle()
				case 4:
					*c = c.Clone()
				case 5:
					if now < 20 {
						c.RemoveAll()
					}
				}
			}
			if got.Len() != want.Len() {
				t.Fatalf("%d fields, want %d, after %d", got.Len(), want.Len(), op)
			}
		}
		if !bytes.Equal(got.Append(nil), want.Append(nil)) {
			t.Fatal("the changes came out different")
		}
		if !bytes.Equal(base.Append(nil), before) {
			t.Fatal("changes of a clone changed the record")
		}
	}
}

func TestRecordsAreTheSameOnlyIfTheyShareTheirFields(t *testing.T) {
	r := long(10, 1000)
	s := cutUp(&r)
	a, other := s.parse(t), s.parse(t)
	view := a
	if !view.Same(&a) || a.Same(&other) {
		t.Error("a record is not the same as itself, or is the same as another one")
	}
	view = a.Clone()
	view.Put(Field{Name: "long00", Value: []byte("new")})
	if view.Same(&a) || a.Same(&view) {
		t.Error("a record is the same as a clone that was changed")
	}
	view = a.Clone()
	view.RemoveAll()
	if view.Same(&a) || a.Same(&view) {
		t.Error("a record is the same as one without fields")
	}
}

func TestOneRecordIsListedByManyAtOnce(t *testing.T) {
	r := long(20, 1000)
	got := cutUp(&r).parse(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			switch i % 4 {
			case 0:
				if len(got.Frames()) != r.Len() {
					t.Error("fields are lacking")
				}
			case 1:
				if f, ok := got.Find("long07"); !ok || len(f.Value) != 1000 {
					t.Error("a value is lacking")
				}
			case 2:
				c := got.Clone()
				c.Put(Field{Name: "long07", Value: []byte("mine")})
				c.Settle()
			case 3:
				if got.Size() != r.Size() || len(got.Append(nil)) != len(r.Append(nil)) {
					t.Error("it has another size")
				}
			}
		})
	}
	wg.Wait()
	if f, _ := got.Find("long07"); len(f.Value) != 1000 || !bytes.Equal(got.Append(nil), r.Append(nil)) {
		t.Error("one goroutine's changes are in another's record")
	}
}

// Unchanged pieces are copied from one record to the next without being cached.
func TestARecordIsWrittenFromTheOneThatItWasMadeOf(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	for range 300 {
		r := varied(random, 1+random.IntN(2*short))
		s := cutUp(&r)
		base := s.parse(t)
		got, want := base.Clone(), r.Clone()
		for range random.IntN(4) {
			name := fmt.Sprintf("n%03d", random.IntN(2*short))
			switch random.IntN(3) {
			case 0:
				got.Find(name)
			case 1:
				got.Remove(name)
				want.Remove(name)
			case 2:
				f := Field{Name: name, Value: make([]byte, random.IntN(3000))}
				got.Put(f)
				want.Put(f)
			}
		}
		a, cutsA, whole := got.AppendCut([]byte("before"))
		b, cutsB, _ := want.AppendCut([]byte("before"))
		if !bytes.Equal(a, b) || !reflect.DeepEqual(cutsA, cutsB) || !whole {
			t.Fatalf("%d and %d bytes, cut at %v and %v, whole: %v", len(a), len(b), cutsA, cutsB, whole)
		}
		opened := map[int]int{}
		for _, n := range s.opened {
			opened[n]++
		}
		for n := range len(s.cuts) {
			if opened[n+1] != 1 {
				t.Errorf("chunk %d was opened %d times", n+1, opened[n+1])
			}
		}
		torn := 1 + random.IntN(len(s.cuts))
		s.torn[torn] = true
		fresh := s.parse(t)
		if _, _, whole := fresh.AppendCut(nil); whole {
			t.Errorf("chunk %d of %d does not open, and the record is whole", torn, len(s.cuts))
		}
		fresh = s.parse(t)
		fresh.RemoveAll()
		fresh.Put(Field{Name: "new", Value: make([]byte, random.IntN(5000))})
		if _, _, whole := fresh.AppendCut(nil); whole {
			t.Errorf("chunk %d of %d, which the record has no more, does not open, and it is whole", torn, len(s.cuts))
		}
	}
}
