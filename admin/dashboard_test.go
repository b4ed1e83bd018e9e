package admin_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/admin"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

func TestNobodyGetsInWithoutAuthorisation(t *testing.T) {
	s := open(t, set{})
	ada := s.login("ada", firefox, "192.0.2.1")
	for _, target := range []string{"/ops/", "/ops/style.css", "/ops/search?q=ada", "/ops/sessions?user=ada", "/ops/session?handle=" + ada.handle(), "/ops/revoke?handle=" + ada.handle(), "/ops/revoke-user?user=ada", "/ops/nowhere"} {
		w := ada.get(target)
		wants(t, w, http.StatusForbidden)
		if got := strings.TrimSpace(w.Body.String()); got != "Forbidden" {
			t.Errorf("%s says %q", target, got)
		}
	}
	for _, target := range []string{"/ops/revoke", "/ops/revoke-user", "/ops/sweep"} {
		wants(t, ada.post(target, "handle", ada.handle(), "user", "ada"), http.StatusForbidden)
	}
	if s.live("ada") != 1 || len(s.audited()) != 0 {
		t.Errorf("%d sessions are left; actions %v", s.live("ada"), s.audited())
	}
}

func TestAuthorizeMayAskForTheSession(t *testing.T) {
	var s *site
	s = open(t, set{ops: func(o *admin.DashboardOptions) {
		o.Authorize = func(r *http.Request) bool {
			session, err := s.sessions.Get(r.Context())
			return err == nil && session.User() == "olga"
		}
	}})
	wants(t, s.login("olga", firefox, "192.0.2.1").get("/ops/"), http.StatusOK)
	wants(t, s.login("ada", firefox, "192.0.2.1").get("/ops/"), http.StatusForbidden)
}

func TestSearchFindsUsersAndHandles(t *testing.T) {
	s := open(t, set{})
	ada, ops := s.login("ada@example.com", firefox, "192.0.2.1"), s.operator("olga")
	goesTo(t, ops.get("/ops/search?q=+ada%40example.com+"), "sessions?user=ada%40example.com")
	goesTo(t, ops.get("/ops/search?q="+ada.handle()), "session?handle="+ada.handle())
	goesTo(t, ops.get("/ops/search?q="), "./")
	wants(t, ops.get("/ops/sessions?user=ada%40example.com"), http.StatusOK, "Firefox 133 on Linux", "192.0.2.1", ada.handle())
	wants(t, ops.get("/ops/sessions?user=nobody"), http.StatusOK, "no live session")
	wants(t, ops.get("/ops/session?handle="+ada.handle()), http.StatusOK, "ada@example.com", firefox, "stored", "<code>pwd</code>")
	wants(t, ops.get("/ops/session?handle="+strings.Repeat("a", 26)), http.StatusNotFound, "No such session")
}

func TestOperatorsEndOneSession(t *testing.T) {
	s := open(t, set{})
	ada, other, ops := s.login("ada", firefox, "192.0.2.1"), s.login("ada", iphone, "192.0.2.2"), s.operator("olga")
	handle := ada.handle()
	wants(t, ops.get("/ops/revoke?handle="+handle), http.StatusOK, "End this session?", "belongs to ada")
	goesTo(t, ops.post("/ops/revoke", "handle", handle), "sessions?user=ada")
	if ada.user() != "" || other.user() != "ada" {
		t.Errorf("signed in: %q and %q", ada.user(), other.user())
	}
	wants(t, ops.get("/ops/sessions?user=ada"), http.StatusOK, "The session is ended")
	lacks(t, ops.get("/ops/sessions?user=ada"), "The session is ended")
	wants(t, ops.post("/ops/revoke", "handle", handle), http.StatusNotFound)
}

func TestOperatorsEndAllSessionsOfAUser(t *testing.T) {
	s := open(t, set{})
	for range 3 {
		s.login("ada", firefox, "192.0.2.1")
	}
	ben, ops := s.login("ben", iphone, "192.0.2.2"), s.operator("olga")
	wants(t, ops.get("/ops/revoke-user?user=ada"), http.StatusOK, "3 sessions")
	goesTo(t, ops.post("/ops/revoke-user", "user", "ada"), "sessions?user=ada")
	if s.live("ada") != 0 || ben.user() != "ben" {
		t.Errorf("%d sessions are left; somebody else is %q", s.live("ada"), ben.user())
	}
	wants(t, ops.get("/ops/sessions?user=ada"), http.StatusOK, "3 sessions ended")
}

func TestEveryActionIsAudited(t *testing.T) {
	s := open(t, set{})
	ada, ops := s.login("ada", firefox, "192.0.2.1"), s.operator("olga")
	s.login("ada", iphone, "192.0.2.2")
	handle := ada.handle()
	ops.get("/ops/sessions?user=ada")
	ops.get("/ops/session?handle=" + handle)
	ops.post("/ops/revoke", "handle", handle)
	ops.post("/ops/revoke", "handle", handle)
	ops.post("/ops/revoke-user", "user", "ada")
	ops.post("/ops/sweep")
	ops.get("/ops/session?handle=" + hostileQuery)
	want := []string{
		"find_user ada  2 done", "view_session  " + handle + " 1 done", "revoke_session ada " + handle + " 1 done",
		"revoke_session  " + handle + " 0 not found", "revoke_user ada  1 done", "sweep   0 done", "view_session   0 not found",
	}
	var got []string
	for _, a := range s.audited() {
		outcome := "done"
		if errors.Is(a.Err, sojourn.ErrNotFound) {
			outcome = "not found"
		}
		got = append(got, fmt.Sprintf("%s %s %s %d %s", a.Kind, a.User, a.Session, a.Count, outcome))
		if a.Operator != "olga" || a.IP != "192.0.2.9" || time.Since(a.Time) > time.Hour {
			t.Errorf("who and when: %+v", a)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the audit heard\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, line := range []string{"action=revoke_session operator=olga ip=192.0.2.9 user=ada session=" + handle, "action=sweep operator=olga"} {
		if !strings.Contains(s.logged(), line) {
			t.Errorf("the log does not say %q:\n%s", line, s.logged())
		}
	}
}

const hostileQuery = "%3Cscript%3E"

func TestValuesAreShownOnlyWhereThatIsSet(t *testing.T) {
	s := open(t, set{})
	ada := s.login("ada", firefox, "192.0.2.1")
	w := s.operator("olga").get("/ops/session?handle=" + ada.handle())
	wants(t, w, http.StatusOK, "belong to the visitor", `Values <span class="number">1</span>`)
	lacks(t, w, "value of ada", "<code>note</code>")

	s = open(t, set{ops: func(o *admin.DashboardOptions) { o.ShowValues = true }})
	ada = s.login("ada", firefox, "192.0.2.1")
	wants(t, s.operator("olga").get("/ops/session?handle="+ada.handle()), http.StatusOK, "<code>note</code>", "value of ada")
}

func TestOverviewCountsWhatIsLive(t *testing.T) {
	s := open(t, set{})
	for range 3 {
		s.login("ada", firefox, "192.0.2.1")
	}
	page := s.operator("olga").get("/ops/")
	wants(t, page, http.StatusOK, "not countable", `<dt>In the store</dt><dd>3</dd>`, `<dt>Signed in</dt><dd>3</dd>`, `<dt>Anonymous</dt><dd>0</dd>`)
	wants(t, page, http.StatusOK, "memory", "answers", `aria-label="Logins over time: 3 in all"`)
}

// tallied counts how often it counts.
type tallied struct {
	*memory.Store
	n atomic.Int64
}

func (s *tallied) Count(ctx context.Context) (store.Counts, error) {
	s.n.Add(1)
	return s.Store.Count(ctx)
}

func TestTheStoreIsNotCountedWithEveryLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &tallied{Store: memory.New()}
		s := open(t, set{config: func(c *sojourn.Config) { c.Store = db }})
		ada, ops := s.login("ada", firefox, "192.0.2.1"), s.operator("olga")
		for _, step := range []struct {
			name string
			do   func()
			want int64
		}{
			{"three looks", func() { ops.get("/ops/"); ops.get("/ops/"); ops.get("/ops/") }, 1},
			{"ten seconds later", func() { time.Sleep(10 * time.Second); ops.get("/ops/") }, 2},
			{"after an end", func() { ops.post("/ops/revoke", "handle", ada.handle()); ops.get("/ops/") }, 3},
		} {
			step.do()
			if got := db.n.Load(); got != step.want {
				t.Errorf("%s: counted %d times, want %d", step.name, got, step.want)
			}
		}
		never := &tallied{Store: memory.New()}
		s = open(t, set{config: func(c *sojourn.Config) { c.Store = never }, ops: func(o *admin.DashboardOptions) { o.CountEvery = -1 }})
		wants(t, s.operator("olga").get("/ops/"), http.StatusOK, "Counting is switched off.")
		if got := never.n.Load(); got != 0 {
			t.Errorf("switched off, it counted %d times", got)
		}
	})
}

func TestOverviewWithoutAStore(t *testing.T) {
	s := open(t, set{config: func(c *sojourn.Config) { c.Store, c.Mode = nil, sojourn.CookieOnly }})
	wants(t, s.operator("olga").get("/ops/"), http.StatusOK, "lives in its visitor's cookie", "nothing to count", "no store and no cache", "there is no store.")
	wants(t, s.operator("olga").get("/ops/session?handle="+strings.Repeat("a", 26)), http.StatusNotFound)
}

func TestOverviewExplainsEveryCounter(t *testing.T) {
	s := open(t, set{})
	ada := s.login("ada", firefox, "192.0.2.1")
	ada.cookies["session"] = "garbage"
	ada.get("/handle")
	groups := admin.StatNames(ops.For(s.sessions).Stats())
	fields := reflect.TypeFor[ops.Stats]()
	for i := range fields.NumField() {
		if name := fields.Field(i).Name; groups[name] != 1 {
			t.Errorf("%s is shown %d times", name, groups[name])
		}
	}
	wants(t, s.operator("olga").get("/ops/"), http.StatusOK, "a jump means that somebody guesses")
}

var errAway = errors.New("away")

func TestOverviewShowsTheHealthOfEachTier(t *testing.T) {
	for _, heard := range []bool{true, false} {
		text := "cache, copies up to 1s old, because it does not learn of ends elsewhere"
		if heard {
			text = "cache, copies up to 30s old<"
		}
		s := open(t, set{config: func(c *sojourn.Config) {
			origin := faults.Wrap(c.Store)
			if !heard {
				origin.OnEnds = func(context.Context, string, int) (store.EndPage, error) { return store.EndPage{}, errAway }
			}
			layered, err := tiered.New(origin, tiered.Layer{Cache: tiered.NewMemory(1 << 20), Name: "in process"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := layered.Ends(t.Context(), store.FeedFromNow, 1); (err == nil) != heard {
				t.Fatal(err)
			}
			c.Store = layered
		}})
		wants(t, s.operator("olga").get("/ops/"), http.StatusOK, "in process", text, "reachable", "store, behind the caches")
	}
}

// away is an unreachable cache.
type away struct{ *tiered.Memory }

func (away) Delete(context.Context, store.ID) error { return errAway }

func TestOverviewShowsACacheThatIsAway(t *testing.T) {
	s := open(t, set{config: func(c *sojourn.Config) {
		layered, err := tiered.New(c.Store, tiered.Layer{Cache: away{tiered.NewMemory(1 << 20)}, Name: "shared", Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		c.Store = layered
	}})
	ada, olga := s.login("ada", firefox, "192.0.2.1"), s.operator("olga")
	if err := ops.For(s.sessions).End(t.Context(), ada.handle()); err != nil {
		t.Fatal(err)
	}
	wants(t, olga.get("/ops/"), http.StatusOK, "passed over since a failure, 1 failed call", `badge-bad`, "answers", "The cache “shared” cannot be reached", "1 problem<")
}

// silent is a store that does not answer before the caller's context ends.
type silent struct{ *memory.Store }

func (silent) Load(ctx context.Context, _ store.ID) (store.Record, error) {
	<-ctx.Done()
	return store.Record{}, ctx.Err()
}

func (silent) Ping(context.Context) error { return nil }

// status is the overview's first message.
func status(w *httptest.ResponseRecorder) string {
	_, rest, _ := strings.Cut(w.Body.String(), `<section class="status`)
	text, _, _ := strings.Cut(rest, "</section>")
	return text
}

func TestOverviewSaysFirstWhatIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, set{})
		page := s.operator("olga").get("/ops/")
		if got := status(page); !strings.Contains(got, "All is well") || strings.Index(page.Body.String(), got) > strings.Index(page.Body.String(), "<h2") {
			t.Errorf("a healthy site: %q", got)
		}
		victim := s.login("ada", iphone, "192.0.2.2")
		thief := s.browser(firefox, "203.0.113.66")
		for name, value := range victim.cookies {
			thief.cookies[name] = value
		}
		victim.post("/rotate")
		victim.get("/handle")
		time.Sleep(10 * time.Minute) // of the bubble's clock: beyond the grace
		thief.get("/handle")
		for name, c := range map[string]struct {
			*site
			says []string
		}{
			"a copied cookie":       {s, []string{"1 problem<", "Suspected thefts: 1", "change their passwords"}},
			"a store that fails":    {open(t, set{config: func(c *sojourn.Config) { c.Store = unwell{memory.New()} }}), []string{"1 problem<", "fails", "Check that the store runs"}},
			"a store without count": {open(t, set{config: func(c *sojourn.Config) { c.Store = broken{memory.New()} }}), []string{"1 problem<", "could not be counted", "CountEvery"}},
		} {
			got := status(c.operator("olga").get("/ops/"))
			for _, text := range c.says {
				if !strings.Contains(got, text) {
					t.Errorf("%s: the status lacks %q: %s", name, text, got)
				}
			}
			if strings.Contains(got, "All is well") {
				t.Errorf("%s: all is well", name)
			}
		}
	})
}

func TestOverviewDoesNotWaitForASilentStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, set{config: func(c *sojourn.Config) { c.Store = silent{memory.New()} }})
		wants(t, s.operator("olga").get("/ops/"), http.StatusOK, "did not answer within 2s")
	})
}

// unwell is a store that loads but does not ping.
type unwell struct{ *memory.Store }

func (unwell) Ping(context.Context) error { return errAway }

func TestOverviewPingsAStoreThatCanBePinged(t *testing.T) {
	s := open(t, set{config: func(c *sojourn.Config) { c.Store = unwell{memory.New()} }})
	wants(t, s.operator("olga").get("/ops/"), http.StatusOK, "fails; the log says why")
}

func TestSweepNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t, set{config: func(c *sojourn.Config) { c.IdleTimeout = time.Hour }})
		s.login("ada", firefox, "192.0.2.1")
		time.Sleep(3 * time.Hour) // of the bubble's clock
		ops := s.operator("olga")
		wants(t, ops.get("/ops/"), http.StatusOK, `<dt>Expired, not yet removed</dt><dd>1</dd>`)
		goesTo(t, ops.post("/ops/sweep"), "./#sweep")
		wants(t, ops.get("/ops/"), http.StatusOK, "Cleaned up: 1 old record removed", `<dt>Expired, not yet removed</dt><dd>0</dd>`)
	})
}

func TestAThousandSessionsOfAUserArePaged(t *testing.T) {
	s := open(t, set{})
	for range 1000 {
		s.login("a&b", iphone, "192.0.2.2")
	}
	ops := s.operator("olga")
	seen := map[string]bool{}
	rows := regexp.MustCompile(`session\?handle=([a-z2-7]{26})`)
	next := "/ops/sessions?user=a%26b"
	pages := 0
	for next != "" {
		w := ops.get(next)
		for _, f := range rows.FindAllStringSubmatch(w.Body.String(), -1) {
			seen[f[1]] = true
		}
		pages++
		next = ""
		if m := regexp.MustCompile(`rel="next" href="([^"]*)"`).FindStringSubmatch(w.Body.String()); m != nil {
			next = "/ops/sessions" + strings.ReplaceAll(m[1], "&amp;", "&")
		}
	}
	if pages != 20 || len(seen) != 1000 {
		t.Errorf("%d pages with %d sessions, want 20 with 1000", pages, len(seen))
	}
	wants(t, ops.get("/ops/sessions?user=a%26b"), http.StatusOK, "End all 1\u202f000")
}

func TestAPlantedNoteSaysNothingOfItsOwn(t *testing.T) {
	s := open(t, set{})
	for _, planted := range []string{"x.1", "revoke_user.-1", "revoke_user.<b>", "revoke_user", hostile} {
		ops := s.operator("olga")
		ops.cookies["sojourn-ops-note"] = planted
		w := ops.get("/ops/")
		wants(t, w, http.StatusOK)
		lacks(t, w, `<p class="message`, "<script")
	}
}

func TestUnknownPages(t *testing.T) {
	s := open(t, set{})
	ops := s.operator("olga")
	wants(t, ops.get("/ops/nowhere"), http.StatusNotFound)
	wants(t, ops.send(httptest.NewRequest(http.MethodHead, "/ops/", nil)), http.StatusOK)
	wants(t, ops.send(httptest.NewRequest(http.MethodDelete, "/ops/", nil)), http.StatusMethodNotAllowed)
	style := ops.get("/ops/style.css")
	wants(t, style, http.StatusOK, "light-dark(")
	if got := style.Header().Get("Content-Type"); got != "text/css; charset=utf-8" {
		t.Errorf("the stylesheet is %q", got)
	}
}
