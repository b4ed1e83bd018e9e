package adoption

import (
	"errors"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/store"
)

// newBack is a rig that writes sessions back to the old application, which it
// adopts from as well.
func newBack(t *testing.T, change ...func(*Options)) *rig {
	return newRig(t, append([]func(*Options){func(o *Options) { o.Back = o.From[0].(adopt.Writer) }}, change...)...)
}

func (g *rig) insert(user, cart string) *stored.State {
	g.t.Helper()
	r := record.Record{Header: record.Header{User: user}}
	r.Put(record.Field{Name: "cart", Value: []byte(cart)})
	st, err := g.Sessions.Insert(g.ctx(), r, stored.NewWho(), store.UserLimit{}, nil)
	g.must(err)
	return st
}

// write writes a session back and keeps its link.
func (g *rig) write(st *stored.State) (*stored.State, Copied) {
	g.t.Helper()
	done := g.WriteBack(g.ctx(), http.Header{}, st, false, nil, true)
	if done.Linked {
		st = g.change(st, func(d *draft.Draft) { d.SetLegacy(done.Link) })
	}
	return st, done
}

func TestASessionIsWrittenBackAndLinked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBack(t)
		st, done := g.write(g.insert("ada", "7"))
		if !done.Linked || len(done.SetCookie) != 1 || done.SetCookie[0] != "old=written0" || g.Stats()[g.old.name].Written != 1 {
			t.Fatalf("%+v", done)
		}
		written := g.old.sessions["written0"]
		if written.User != "ada" || written.Values["cart"] != "cart=7" || written.Values[originName] == nil {
			t.Errorf("%+v", written.Values)
		}
		// The next one is the same, and needs no new link.
		st = g.change(st, func(d *draft.Draft) { d.Set(draft.Slot{Name: "cart"}, []byte("8"), false) })
		if _, done := g.write(st); done.Linked || g.old.sessions["written0"].Values["cart"] != "cart=8" || len(g.old.sessions) != 1 {
			t.Errorf("%+v, %d sessions", done, len(g.old.sessions))
		}
		// Without cookies only that can be written.
		if done := g.WriteBack(g.ctx(), http.Header{}, st, false, nil, false); g.Stats()[g.old.name].Written != 3 || done.Linked {
			t.Errorf("%+v", done)
		}
		if done := g.WriteBack(g.ctx(), http.Header{}, g.insert("bob", "1"), false, nil, false); done.SetCookie != nil || g.Stats()[g.old.name].Written != 3 {
			t.Errorf("one that would need a cookie: %+v", done)
		}
		// It ends with the session.
		g.must(g.BeforeEnd(g.ctx(), st))
		if _, err := g.AfterEnd(g.ctx(), &st.Rec.Header); err != nil || len(g.old.sessions) != 0 {
			t.Errorf("%v, %d sessions are left", err, len(g.old.sessions))
		}
		g.old.put("written0", "ada") // the old application saves it once more, without its origin
		g.wantRefused("old=written0", "ended")
	})
}

func TestAfterALoginAnotherLegacySessionIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBack(t)
		st, _ := g.write(g.insert("", "7"))
		before := st.Rec.Header
		done := g.WriteBack(g.ctx(), http.Header{}, st, true, &before, true)
		if !done.Linked || done.SetCookie[0] != "old=written1" || len(g.old.sessions) != 1 || len(g.old.ended) != 1 || g.old.ended[0] != "written0" {
			t.Errorf("%+v, ended %q", done, g.old.ended)
		}
	})
}

func TestAFailureToWriteBackIsCountedAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBack(t)
		st := g.insert("ada", "7")
		g.old.away = errors.New("no answer")
		if _, done := g.write(st); done.Linked || done.SetCookie != nil || g.Stats()[g.old.name].WriteErrors != 1 {
			t.Errorf("%+v, %+v", done, g.Stats())
		}
		g.old.away = nil
		g.Values = func(*stored.State) (map[string]any, error) { return nil, errors.New("no") }
		if _, done := g.write(st); done.Linked || g.Stats()[g.old.name].WriteErrors != 2 {
			t.Errorf("%+v, %+v", done, g.Stats())
		}
		g.Values = func(*stored.State) (map[string]any, error) { return nil, nil }
		if _, done := g.write(st); done.Linked || g.Stats()[g.old.name].WriteErrors != 2 || g.Stats()[g.old.name].Written != 0 {
			t.Errorf("nothing is to be written: %+v, %+v", done, g.Stats())
		}
	})
}

// A copy is only valid if its original session allows it.
func TestWhetherACopyIsAdopted(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(*rig, *stored.State)
		want string // why not; "" = it is
	}{
		"its session lives":          {func(*rig, *stored.State) {}, "superseded"},
		"its session was logged out": {func(g *rig, st *stored.State) { g.must(g.Sessions.Replace(g.ctx(), st)) }, "ended"},
		"it was ended elsewhere":     {func(g *rig, st *stored.State) { g.must(g.Sessions.Delete(g.ctx(), st)) }, "ended"},
		"it was idle for too long": {func(g *rig, _ *stored.State) {
			time.Sleep(2 * time.Hour)
		}, "spent"},
		"it was idle, and the old application used": {func(g *rig, _ *stored.State) {
			time.Sleep(2 * time.Hour)
			g.old.change("written0", func(s *adopt.Session) { s.Issued = time.Now() })
		}, ""},
		"its lifetime is over": {func(g *rig, _ *stored.State) {
			time.Sleep(31 * 24 * time.Hour)
			g.old.change("written0", func(s *adopt.Session) { s.Issued, s.Expires = time.Now(), time.Now().Add(time.Hour) })
		}, "expired"},
		"it names nothing": {func(g *rig, _ *stored.State) {
			g.old.change("written0", func(s *adopt.Session) { s.Values[originName] = "x" })
		}, "unmapped"},
		"its user's sessions were refused": {func(g *rig, _ *stored.State) {
			time.Sleep(2 * time.Hour)
			g.old.change("written0", func(s *adopt.Session) { s.Issued = time.Now() })
			g.must(g.Refuse(g.ctx(), "ada"))
		}, "revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newBack(t)
				began := time.Now()
				st, _ := g.write(g.insert("ada", "7"))
				test.do(g, st)
				if test.want != "" {
					g.wantRefused("old=written0", test.want)
					return
				}
				heir := g.adopted("old=written0")
				if h := heir.Rec.Header; h.User != "ada" || h.Created != began.UnixMilli() || heir.ID == st.ID {
					t.Errorf("%+v", h)
				}
				// All copies are adopted as one session.
				g.old.put("copy", "ada", func(s *adopt.Session) { s.Values = g.old.sessions["written0"].Values })
				g.wantRefused("old=copy", "superseded")
				if again := g.adopted("old=written0"); again.ID != heir.ID {
					t.Error("there are two heirs")
				}
				g.must(g.BeforeEnd(g.ctx(), heir))
				g.must(g.Sessions.Delete(g.ctx(), heir))
				g.wantRefused("old=copy", "ended")
				g.wantRefused("old=written0", "ended")
			})
		})
	}
}

func (o *oldApp) change(id string, f func(*adopt.Session)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.sessions[id]
	f(&s)
	o.sessions[id] = s
}
