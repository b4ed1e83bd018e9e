package adoption

import (
	"fmt"
	"net/http"
	"testing"
	"testing/synctest"

	"github.com/sojourn-go/sojourn/adopt"
)

func TestNoCopyTakesThePlaceOfALegacySessionThatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBack(t)
		st := g.insert("ada", "7")
		in := http.Header{"Cookie": {"old=1"}}
		g.old.away = fmt.Errorf("%w: %w", adopt.ErrUnreadable, adopt.Refusal("decode_error"))
		if done := g.WriteBack(g.ctx(), in, st, false, nil, true); done.SetCookie != nil || done.Linked {
			t.Errorf("%+v", done)
		}
		if s := g.Stats()[g.old.name]; s.Written != 0 || s.WriteErrors != 1 {
			t.Errorf("%+v", s)
		}
		// A session that no application accepts does not block anything.
		g.old.away = nil
		if done := g.WriteBack(g.ctx(), in, st, false, nil, true); !done.Linked || g.Stats()[g.old.name].Written != 1 {
			t.Errorf("%+v", done)
		}
	})
}

func TestACopyThatOutlivesItsSessionIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newBack(t)
		st, _ := g.write(g.insert("ada", "7"))
		done := g.WriteBack(g.ctx(), http.Header{}, st, false, nil, true)
		if g.Outlived(g.ctx(), st.ID, done) {
			t.Error("the session lives")
		}
		g.must(g.Sessions.Delete(g.ctx(), st))
		if !g.Outlived(g.ctx(), st.ID, done) {
			t.Error("the session has ended")
		}
		if setCookie := g.TakeBack(g.ctx(), done); len(setCookie) != 1 || len(g.old.sessions) != 0 {
			t.Errorf("%q, %d sessions of the old application", setCookie, len(g.old.sessions))
		}
		if g.Outlived(g.ctx(), st.ID, Copied{}) || g.TakeBack(g.ctx(), Copied{}) != nil {
			t.Error("nothing was written")
		}
	})
}
