package record

import (
	"testing"
)

func TestRecordsAreEqualInWhatIsCompared(t *testing.T) {
	durable := func(f *Field) bool { return f.Flags&Volatile == 0 }
	for name, tt := range map[string]struct {
		change func(r *Record)
		equal  bool
	}{
		"nothing":                      {func(*Record) {}, true},
		"a value put as it was":        {func(r *Record) { f, _ := r.Find("long05"); r.Put(*f) }, true},
		"another value":                {func(r *Record) { r.Put(Field{Name: "long05", Value: []byte("new")}) }, false},
		"an empty value":               {func(r *Record) { r.Put(Field{Name: "long05"}) }, false},
		"a value less":                 {func(r *Record) { r.Remove("long05") }, false},
		"the last value less":          {func(r *Record) { r.Remove("volatile"); r.Remove("long09") }, false},
		"a value more":                 {func(r *Record) { r.Put(Field{Name: "zz", Value: []byte("new")}) }, false},
		"other flags":                  {func(r *Record) { f, _ := r.Find("long05"); g := *f; g.Flags = ServerSide; r.Put(g) }, false},
		"another expiry":               {func(r *Record) { f, _ := r.Find("long05"); g := *f; g.Expiry = 7; r.Put(g) }, false},
		"a stamp":                      {func(r *Record) { f, _ := r.Find("long05"); g := *f; g.Stamp = 7; r.Put(g) }, true},
		"what is not compared":         {func(r *Record) { r.Put(Field{Name: "volatile", Flags: Volatile, Value: []byte("new")}) }, true},
		"less of what is not compared": {func(r *Record) { r.Remove("volatile") }, true},
		"a value that is compared now": {func(r *Record) { r.Put(Field{Name: "volatile", Value: []byte("old")}) }, false},
	} {
		r := long(10, 1000)
		r.Put(Field{Name: "volatile", Flags: Volatile, Value: []byte("old")})
		s := cutUp(&r)
		a, apart := s.parse(t), s.parse(t)
		b := a.Clone()
		tt.change(&b)
		s.opened = nil
		if Equal(&a, &b, durable) != tt.equal || Equal(&b, &a, durable) != tt.equal {
			t.Errorf("%s: equal is %v, want %v", name, !tt.equal, tt.equal)
		}
		if len(s.opened) > 1 {
			t.Errorf("%s: chunks %v were opened to compare two states of one record", name, s.opened)
		}
		// The same, between records that share nothing.
		for _, other := range []*Record{&apart, &r} {
			if Equal(other, &b, durable) != tt.equal || Equal(&b, other, durable) != tt.equal {
				t.Errorf("%s: equal to another copy is %v, want %v", name, !tt.equal, tt.equal)
			}
		}
	}
}

func TestADamagedValueEqualsOnlyItself(t *testing.T) {
	all := func(*Field) bool { return true }
	r := long(10, 2000)
	s := cutUp(&r)
	s.torn[6] = true
	a, apart := s.parse(t), s.parse(t)
	b := a.Clone()
	if !Equal(&a, &b, all) {
		t.Error("a state is not equal to itself")
	}
	empty := a.Clone()
	empty.Put(Field{Name: "long05", Value: []byte{}})
	if Equal(&a, &apart, all) || Equal(&apart, &empty, all) || Equal(&empty, &a, all) {
		t.Error("a damaged value is equal to another one")
	}
}
