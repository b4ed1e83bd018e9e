package stored

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// big returns a value of one letter, which has a chunk of its own.
func big(letter string) string { return strings.Repeat(letter, record.ChunkSize-10) }

// putLong stores a session with a value a, b and c in chunks of their own.
func (g *rig) putLong(user string) *State {
	g.limits.MaxSize = 1 << 20
	return g.put(user, "a="+big("a")+" b="+big("b")+" c="+big("c"))
}

// tear damages the chunk of value b of a session.
func (g *rig) tear(st *State) {
	r := g.row(st.ID)
	r.Data = bytes.Clone(r.Data)
	r.Data[len(r.Data)/2] ^= 1
	g.plant(r)
}

func (g *rig) load(who Who) *State {
	g.t.Helper()
	st, err := g.Load(g.ctx(), who, 0)
	if err != nil {
		g.t.Fatal(err)
	}
	return st
}

func TestAValueOfALongRecordIsReadAndChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.load(g.putLong("anna").Who)
		if _, err := g.save(g.Sessions, change(st, set("b", "small"))); err != nil {
			t.Fatal(err)
		}
		if got := g.values(st.Who); got != "a="+big("a")+" b=small c="+big("c") {
			t.Errorf("%.20s… of %d bytes", got, len(got))
		}
		st = g.load(st.Who)
		if _, err := g.save(g.Sessions, change(st, func(d *draft.Draft) { d.Clear() })); err != nil {
			t.Fatal(err)
		}
		if got := g.values(st.Who); got != "" {
			t.Errorf("%.20s… of %d bytes", got, len(got))
		}
	})
}

func TestADamagedPartOfARecordIsNeverBuiltUpon(t *testing.T) {
	for name, do := range map[string]func(*draft.Draft){
		"another value is changed":  set("a", "new"),
		"a value is added":          set("d", "new"),
		"the value itself is set":   set("b", "new"),
		"the value is removed":      func(d *draft.Draft) { d.Remove("b") },
		"another value is removed":  func(d *draft.Draft) { d.Remove("a") },
		"all values are removed":    func(d *draft.Draft) { d.Clear() },
		"the value is updated":      update("b", more),
		"another value is updated":  update("c", more),
		"another value is taken":    take("a"),
		"a volatile value is set":   func(d *draft.Draft) { d.Set(draft.Slot{Name: "v", Flags: record.Volatile}, []byte("x"), false) },
		"the credential is rotated": func(d *draft.Draft) { d.Rotate(0, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newRig(t)
				st := g.putLong("anna")
				g.tear(st)
				before := g.row(st.ID)
				st = g.load(st.Who) // what is asked for first is sound
				if f, ok := st.Rec.Find("a"); !ok || string(f.Value) != big("a") {
					t.Fatal("a sound value does not open")
				}
				_, err := g.save(g.Sessions, change(st, do))
				var gone *Gone
				if !errors.As(err, &gone) || !gone.Damaged {
					t.Errorf("got %v", err)
				}
				if after := g.row(st.ID); !bytes.Equal(after.Data, before.Data) || after.Version != before.Version {
					t.Error("something was written")
				}
				if g.seen.of("damaged") != 1 {
					t.Errorf("observed %v", g.seen.count)
				}
			})
		})
	}
}

func TestALoginDoesNotFailBecauseTheSessionBeforeIsDamaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.putLong("")
		g.tear(st)
		st = g.load(st.Who)
		to := NewWho()
		next, err := g.Move(g.ctx(), Move{
			Change: change(st, func(*draft.Draft) {}), To: to, Ends: true, Login: &draft.Login{User: "anna", At: g.Now(), Created: g.Now().UnixMilli()}, Limit: store.UserLimit{},
		})
		if err != nil || next.Rec.Header.User != "anna" || next.Rec.Len() != 0 {
			t.Fatalf("%+v, %v", next, err)
		}
		if got := g.values(st.Who); got != "over: replaced" {
			t.Errorf("the session before: %.40s", got)
		}
		if got := g.values(to); got != "" {
			t.Errorf("the new one has values: %.40s", got)
		}
	})
}

func TestALogoutEndsADamagedSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.putLong("anna")
		g.tear(st)
		st = g.load(st.Who)
		if err := g.End(g.ctx(), change(st, func(*draft.Draft) {})); err != nil {
			t.Fatal(err)
		}
		if got := g.values(st.Who); got != "over: replaced" {
			t.Errorf("%.40s", got)
		}
	})
}

// Removed, moved or foreign chunks count as damage. The first chunk alone may
// reveal it.
func TestChunksOfAnotherSaveAreNoPartOfARecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t)
		st := g.putLong("anna")
		old := g.row(st.ID)
		if _, err := g.save(g.Sessions, change(g.load(st.Who), set("x", "1"))); err != nil {
			t.Fatal(err)
		}
		now := g.row(st.ID)
		other := g.row(g.putLong("anna").ID)
		chunk := len(big("a")) + 28
		last := len(now.Data) - 4 - chunk // the last chunk but x, which is shorter than the rest of it
		for name, data := range map[string][]byte{
			"of an older version":   splice(now.Data, last, old.Data[len(old.Data)-4-chunk:][:chunk]),
			"of another session":    splice(now.Data, last, other.Data[len(other.Data)-4-chunk:][:chunk]),
			"the older whole":       old.Data,
			"the other one's whole": other.Data,
			"the last one lost":     append(bytes.Clone(now.Data[:last]), now.Data[len(now.Data)-4:]...),
			"the end lost":          now.Data[:last],
		} {
			r := now
			r.Data = data
			g.plant(r)
			got, err := g.Load(g.ctx(), st.Who, 0)
			if err == nil && got.Rec.Whole() {
				t.Errorf("%s: taken for the session", name)
			}
		}
		g.plant(now)
		if !strings.HasSuffix(g.values(st.Who), " x=1") {
			t.Error("the session itself is not there")
		}
	})
}

func splice(b []byte, at int, part []byte) []byte {
	return append(append(bytes.Clone(b[:at]), part...), b[at+len(part):]...)
}

func TestVolatileValuesMayBeLong(t *testing.T) {
	g := newRig(t)
	g.limits.MaxSize = 1 << 20
	var values record.Record
	values.Put(record.Field{Name: "v", Flags: record.Volatile, Value: bytes.Repeat([]byte("x"), 3*record.ChunkSize)})
	st := g.put("anna", "a=1")
	next := *st
	next.Rec, next.Volatile = values, newSaveID()
	data, err := g.sealVolatile(&next)
	if err != nil {
		t.Fatal(err)
	}
	r, err := g.open(st.ID, data, wireVolatile(g, &next))
	if err != nil || text(&r) != text(&values) {
		t.Errorf("%.20s…, %v", text(&r), err)
	}
	// Volatile values do not open as a record, and a record not as volatile values.
	if r, err := g.open(st.ID, data, wireRecord(g, &next)); err == nil {
		t.Errorf("opened as a record: %.20s…", text(&r))
	}
}

func wireVolatile(g *rig, st *State) []byte { return wire.BindVolatile(g.bound, &st.Meta) }
func wireRecord(g *rig, st *State) []byte   { return wire.BindRecord(g.bound, &st.Meta) }

// A record may be long because of its header or its names alone, so that it has no
// values to cut it at.
func TestARecordOfAnySizeOpens(t *testing.T) {
	g := newRig(t)
	for what, make := range map[string]func(n int) record.Record{
		"a user's name": func(n int) record.Record {
			return record.Record{Header: record.Header{User: strings.Repeat("u", n)}}
		},
		"a note of another library": func(n int) record.Record {
			r := record.Record{Header: record.Header{Legacy: strings.Repeat("l", n)}}
			r.Put(record.Field{Name: "flag", Value: []byte{}})
			return r
		},
		"names": func(n int) (r record.Record) {
			for i := range n / 200 {
				r.Put(record.Field{Name: strings.Repeat(string(rune('A'+i)), 195), Value: []byte{}})
			}
			r.Put(record.Field{Name: strings.Repeat("z", n%200+1), Value: []byte{}})
			return r
		},
		"a value": func(n int) (r record.Record) {
			r.Put(record.Field{Name: "a", Value: bytes.Repeat([]byte("v"), n)})
			return r
		},
		"a user's name and a value": func(n int) record.Record {
			r := record.Record{Header: record.Header{User: strings.Repeat("u", n)}}
			r.Put(record.Field{Name: "a", Value: []byte("v")})
			return r
		},
	} {
		for n := record.ChunkSize - 150; n < record.ChunkSize+150; n++ {
			r := make(n)
			want := r.Append(nil)
			data, err := SealRecord(g.Ring(), &r, []byte("aad"), 1<<20)
			if err != nil {
				t.Fatalf("%s, %d: %v", what, n, err)
			}
			got, _, err := OpenRecord(g.Ring(), data, []byte("aad"), func(error) { t.Errorf("%s, %d: damaged", what, n) })
			if err != nil {
				t.Fatalf("%s, %d bytes: %v", what, n, err)
			}
			if again := got.Append(nil); !bytes.Equal(again, want) {
				t.Fatalf("%s, %d bytes: %d bytes come back as %d", what, n, len(want), len(again))
			}
		}
	}
}
