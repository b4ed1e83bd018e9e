package record

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

func TestALongListOfFieldsIsChangedAsAShortOneIs(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var r Record
		model := map[string]Field{}
		look := func() {
			t.Helper()
			want := []Field{}
			for _, name := range slices.Sorted(maps.Keys(model)) {
				want = append(want, model[name])
			}
			if r.Len() != len(want) {
				t.Fatalf("Len is %d, want %d", r.Len(), len(want))
			}
			if random.IntN(2) == 0 { // changes go on before the list is read
				return
			}
			c := r.Clone()
			if got := c.Fields(); !slices.EqualFunc(got, want, func(a, b Field) bool { return reflect.DeepEqual(a, b) }) {
				t.Fatalf("%d fields, want %d:\n%v\n%v", len(got), len(want), got, want)
			}
			parsed, err := Parse(r.Append(nil))
			if err != nil || !reflect.DeepEqual(parsed, r.Done()) && len(want) > 0 {
				t.Fatalf("comes back as %+v, %v", parsed, err)
			}
		}
		names := 1 + random.IntN(4*short)
		for i := range 2000 {
			name := fmt.Sprint("n", random.IntN(names))
			switch f := (Field{Name: name, Value: []byte{byte(i)}, Expiry: int64(1 + random.IntN(1000))}); random.IntN(10) {
			case 0, 1, 2, 3, 4:
				r.Put(f)
				model[name] = f
			case 5, 6, 7:
				r.Remove(name)
				delete(model, name)
			case 8:
				got, ok := r.Find(name)
				want, there := model[name]
				if ok != there || ok && !reflect.DeepEqual(*got, want) {
					t.Fatalf("Find: %v, %v, want %v, %v", got, ok, want, there)
				}
			default:
				if random.IntN(50) == 0 {
					now := int64(random.IntN(1000))
					r.Expire(now)
					maps.DeleteFunc(model, func(_ string, f Field) bool { return f.Expiry < now })
				}
				if random.IntN(100) == 0 {
					r.RemoveAll()
					clear(model)
				}
				look()
			}
		}
		look()
	}
}

func TestACloneOfALongListIsItsOwn(t *testing.T) {
	var r Record
	for i := range 2 * short {
		r.Put(Field{Name: fmt.Sprintf("%04d", i)})
	}
	before := r.Done()
	r.Put(Field{Name: "0003x"})
	c := r.Clone()
	c.Remove("0001")
	c.Put(Field{Name: "0002x"})
	r.Remove("0000")
	for what, test := range map[string]struct {
		r    *Record
		name string
		want bool
	}{
		"of the clone": {&r, "0001", true}, "put in the clone": {&r, "0002x", false}, "own": {&r, "0000", false},
		"after cloning": {&c, "0000", true}, "before cloning": {&c, "0003x", true}, "first": {&before, "0000", true}, "second": {&before, "0003x", false},
	} {
		if _, got := test.r.Find(test.name); got != test.want {
			t.Errorf("%s: %v", what, got)
		}
	}
	if before.Len() != 2*short || len(before.Fields()) != 2*short || r.Len() != 2*short || c.Len() != 2*short+1 {
		t.Errorf("%d, %d, %d fields", before.Len(), r.Len(), c.Len())
	}
}

// Changes of a long list must not move its fields, one change after the other.
func TestChangesOfALongListMoveNoFields(t *testing.T) {
	var r Record
	for i := range 1000 {
		r.Put(Field{Name: fmt.Sprintf("m%04d", i)})
	}
	r.merge()
	for i := range 1000 {
		r.Put(Field{Name: fmt.Sprintf("a%04d", 1000-i)})
		r.Remove(fmt.Sprintf("m%04d", i))
		if len(r.fields) != 1000 || r.fields[0].Name != "m0000" || r.fields[i].Name != fmt.Sprintf("m%04d", i) {
			t.Fatal("the list has changed before anybody asked for it")
		}
	}
	if got := r.Fields(); len(got) != 1000 || got[0].Name != "a0001" || got[999].Name != "a1000" {
		t.Errorf("%d fields", len(got))
	}
}
