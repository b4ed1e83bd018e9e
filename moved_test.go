package sojourn_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

func idOf(t *testing.T, handle string) store.ID {
	t.Helper()
	id, err := store.ParseID(handle)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// overwrite puts rec into a store, as a process with write access to its table can.
func overwrite(t *testing.T, db store.Store, rec store.Record) {
	t.Helper()
	have, err := db.Load(t.Context(), rec.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		t.Fatal(err)
	}
	if rec.HasSaveID(have.Base().SaveID) { // else it is the same save
		rec.SaveIDs = append([]store.SaveID{store.SaveID(len(rec.SaveIDs)) + 1}, rec.SaveIDs...)
	}
	rec.Shorten = true
	if err := db.Save(t.Context(), rec, have.Base()); err != nil {
		t.Fatal(err)
	}
}

func recordOf(t *testing.T, db store.Store, handle string) store.Record {
	t.Helper()
	rec, err := db.Load(t.Context(), idOf(t, handle))
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// A copy of a row in a table has another ID: only the seal shows that the record does
// not belong to that session.
func TestARowCopiedUnderAnotherKeyIsNobodysSession(t *testing.T) {
	db := memory.New()
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db}))
	m := site.Manager
	anna, annas := sitetest.LoginAs(t, site, "anna")
	thief := sitetest.NewBrowser()
	var thiefs string
	sitetest.Does(t, thief, site, func(s *sojourn.Session) { sitetest.Visits.Set(s, 1); thiefs = s.Handle() })
	row := recordOf(t, db, annas)
	row.ID = idOf(t, thiefs)
	overwrite(t, db, row)

	sitetest.Look(t, thief, site, func(s *sojourn.Session) {
		if s.User() != "" || !s.IsNew() {
			t.Errorf("the thief is %q", s.User())
		}
	})
	if _, err := ops.For(m).Find(t.Context(), thiefs); !errors.Is(err, sojourn.ErrNotFound) {
		t.Errorf("Find: %v", err)
	}
	if err := m.Revoke(t.Context(), "anna", thiefs); !errors.Is(err, sojourn.ErrNotFound) {
		t.Errorf("Revoke: %v", err)
	}
	if err := ops.For(m).End(t.Context(), thiefs); !errors.Is(err, sojourn.ErrNotFound) {
		t.Errorf("End: %v", err)
	}
	if list, err := m.Sessions(t.Context(), "anna"); err != nil || len(list) != 1 || list[0].Handle != annas {
		t.Errorf("anna's sessions are %v, %v", list, err)
	}
	if all, err := m.ExportUser(t.Context(), "anna"); err != nil || len(all) != 1 || all[0].Handle != annas {
		t.Errorf("anna's export is %v, %v", all, err)
	}
	sitetest.Look(t, anna, site, func(s *sojourn.Session) {
		if s.User() != "anna" {
			t.Errorf("anna is %q", s.User())
		}
	})
	if n, err := m.RevokeUser(t.Context(), "anna"); n != 1 || err != nil {
		t.Errorf("RevokeUser ended %d, %v; want anna's one session", n, err)
	}
	if left, err := db.ByUser(t.Context(), row.User); err != nil || len(left) != 0 {
		t.Errorf("%d rows are still listed under anna, %v", len(left), err)
	}
	if ops.For(m).Stats().DamagedRecords == 0 {
		t.Error("nothing was counted")
	}
}

func TestARowGivenToAnotherUserIsNoSessionOfTheirs(t *testing.T) {
	db := memory.New()
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db}))
	_, annas := sitetest.LoginAs(t, site, "anna")
	bob, bobs := sitetest.LoginAs(t, site, "bob")
	row := recordOf(t, db, bobs)
	row.User = recordOf(t, db, annas).User
	overwrite(t, db, row)
	if list, err := site.Manager.Sessions(t.Context(), "anna"); err != nil || len(list) != 1 || list[0].Handle != annas {
		t.Errorf("anna's sessions are %v, %v", list, err)
	}
	sitetest.Look(t, bob, site, func(s *sojourn.Session) {
		if s.User() != "" {
			t.Errorf("bob is %q through a row that says anna", s.User())
		}
	})
	if n, err := site.Manager.RevokeUser(t.Context(), "anna"); n != 1 || err != nil {
		t.Errorf("RevokeUser ended %d, %v", n, err)
	}
}

// mixedIndex lists one user's sessions under every user.
type mixedIndex struct {
	*memory.Store
	all []store.UserHash
}

func (s *mixedIndex) ByUser(ctx context.Context, _ store.UserHash) (recs []store.Record, err error) {
	for _, user := range s.all {
		some, err := s.Store.ByUser(ctx, user)
		if err != nil {
			return nil, err
		}
		recs = append(recs, some...)
	}
	return recs, nil
}

func TestAnEntryOfAnotherUserIsNeitherListedNorEnded(t *testing.T) {
	db := &mixedIndex{Store: memory.New()}
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db}))
	_, annas := sitetest.LoginAs(t, site, "anna")
	bob, bobs := sitetest.LoginAs(t, site, "bob")
	db.all = []store.UserHash{recordOf(t, db, annas).User, recordOf(t, db, bobs).User}
	if list, err := site.Manager.Sessions(t.Context(), "anna"); err != nil || len(list) != 1 {
		t.Errorf("anna has %d sessions, %v", len(list), err)
	}
	if n, err := site.Manager.RevokeUser(t.Context(), "anna"); n != 1 || err != nil {
		t.Errorf("RevokeUser ended %d, %v", n, err)
	}
	sitetest.Look(t, bob, site, func(s *sojourn.Session) {
		if s.User() != "bob" {
			t.Errorf("bob is %q", s.User())
		}
	})
}

// laggingIndex goes on listing what has ended, as App Engine's does for a while.
type laggingIndex struct {
	*memory.Store
	listed []store.Record
}

func (s *laggingIndex) ByUser(ctx context.Context, user store.UserHash) ([]store.Record, error) {
	recs, err := s.Store.ByUser(ctx, user)
	for _, rec := range recs {
		if !slices.ContainsFunc(s.listed, func(r store.Record) bool { return r.ID == rec.ID }) {
			s.listed = append(s.listed, rec)
		}
	}
	return slices.Clone(s.listed), err
}

func TestRevokeUserEndsEachSessionOnceThoughTheIndexLagsBehind(t *testing.T) {
	db := &laggingIndex{Store: memory.New()}
	site := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Store: db}))
	for range 3 {
		sitetest.LoginAs(t, site, "anna")
	}
	if n, err := site.Manager.RevokeUser(t.Context(), "anna"); n != 3 || err != nil {
		t.Errorf("ended %d, %v", n, err)
	}
}

// forgedFeed tells of an end that has not happened.
type forgedFeed struct {
	*faults.Store
	id *atomic.Pointer[store.ID]
}

func (s *forgedFeed) Ends(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	page, err := s.Store.Ends(ctx, cursor, limit)
	if id := s.id.Load(); id != nil {
		page.Ends = append(page.Ends, store.End{ID: *id, Until: time.Now().Add(time.Hour)})
	}
	return page, err
}

func TestAnEndOfAnotherSessionInTheFeedEndsNoStream(t *testing.T) {
	var forged atomic.Pointer[store.ID]
	forge := func(s store.Store) store.Store { return &forgedFeed{s.(*faults.Store), &forged} }
	sitetest.Listening(t, forge, func(a *sitetest.Audience, done <-chan struct{}, why func() error) {
		id := idOf(t, a.Handle)
		forged.Store(&id)
		if sitetest.EndsWithin(time.Minute, done) {
			t.Fatalf("the stream of a live session ended: %v", why())
		}
		if err := ops.For(a.There.Manager).End(a.Context(), a.Handle); err != nil {
			t.Fatal(err)
		}
		if !sitetest.EndsWithin(time.Second, done) || !errors.Is(why(), sojourn.ErrEnded) {
			t.Errorf("its own end ends it with %v", why())
		}
	})
}

// notes returns the notes about refused legacy sessions.
func notes(t *testing.T, db *memory.Store) (found []store.Record) {
	t.Helper()
	all, _, err := db.Scan(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range all {
		if !rec.IsEnd() && rec.User == (store.UserHash{}) {
			found = append(found, rec)
		}
	}
	return found
}

func TestANoteOfAnotherUserIsNoLeaveToAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memory.New()
		s, old := sitetest.NewMove(t, func(c *sojourn.Config) { c.Store = db })
		refuse := func(user string) store.Record {
			t.Helper()
			before := notes(t, db)
			if err := s.RefuseLegacy(t.Context(), user); err != nil {
				t.Fatal(err)
			}
			for _, rec := range notes(t, db) {
				if !slices.ContainsFunc(before, func(r store.Record) bool { return r.ID == rec.ID }) {
					return rec
				}
			}
			t.Fatal("there is no note")
			return store.Record{}
		}
		berts := refuse("bert")
		time.Sleep(time.Hour)
		old.Put("a", sitetest.DayOld(sitetest.Anna()))
		time.Sleep(time.Hour)
		annas := refuse("anna")
		// Bert's older note takes the place of anna's.
		moved := berts
		moved.ID = annas.ID
		overwrite(t, db, moved)
		if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" {
			t.Errorf("%s's refused session is adopted", user)
		}
		if s.Stats().DamagedRecords == 0 {
			t.Error("nothing was counted")
		}
		// And it can be refused again, without a permanent 503.
		if err := s.RefuseLegacy(t.Context(), "anna"); err != nil {
			t.Error(err)
		}
		if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" {
			t.Errorf("%s's refused session is adopted", user)
		}
	})
}

func TestANoteThatALegacySessionWasAdoptedCannotBeReplacedByASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memory.New()
		s, old := sitetest.NewMove(t, func(c *sojourn.Config) { c.Store, c.IdleTimeout = db, time.Hour })
		old.Put("a", sitetest.DayOld(sitetest.Anna()))
		s.Who(sitetest.Bring(t, "a"))
		all, _, err := db.Scan(t.Context(), "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(r store.Record) bool { return r.IsEnd() })
		j := slices.IndexFunc(all, func(r store.Record) bool { return !r.IsEnd() })
		replaced := memory.New() // a tombstone takes no save, so the table is written again
		session, note := all[j], all[j]
		note.ID = all[i].ID
		overwrite(t, replaced, session)
		overwrite(t, replaced, note)
		again, _ := sitetest.NewMove(t, func(c *sojourn.Config) {
			c.Store, c.Keys, c.IdleTimeout = replaced, s.Keys, time.Hour
			c.Adopt.From = []adopt.Format{old}
		})
		time.Sleep(2 * time.Hour)
		if user, _, _ := again.Who(sitetest.Bring(t, "a")); user != "" {
			t.Errorf("%s's session that has expired was adopted once more", user)
		}
	})
}

func TestARefusalNotedByAClockAheadRefusesUpToNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		old.Put("before", sitetest.DayOld(sitetest.Anna()))
		restore := sojourn.SetClockAhead(s.Manager, 5*365*24*time.Hour)
		if err := s.RefuseLegacy(t.Context(), "anna"); err != nil {
			t.Fatal(err)
		}
		restore()
		time.Sleep(time.Hour)
		ahead := sitetest.DayOld(sitetest.Anna())
		ahead.Issued = ahead.Issued.Add(time.Hour)
		old.Put("ahead", ahead)
		for _, id := range []string{"before", "ahead"} {
			if user, _, _ := s.Who(sitetest.Bring(t, id)); user != "" {
				t.Errorf("%s is adopted", id)
			}
		}
		time.Sleep(time.Minute)
		old.Put("after", sitetest.DayOld(sitetest.Anna()))
		if user, _, _ := s.Who(sitetest.Bring(t, "after")); user != "anna" {
			t.Error("what was issued after the clock was right again is refused")
		}
		if user, _, _ := s.Who(sitetest.Bring(t, "before")); user != "" {
			t.Error("what was issued before is adopted")
		}
	})
}

func TestALegacySessionAdoptedByAClockAheadIsNotAdoptedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t, sitetest.KeepOld, func(c *sojourn.Config) { c.IdleTimeout = time.Hour })
		c := sitetest.DayOld(sitetest.Anna())
		c.Expires = time.Now().Add(300 * 24 * time.Hour)
		old.Put("a", c)
		restore := sojourn.SetClockAhead(s.Manager, 100*24*time.Hour)
		v := sitetest.Bring(t, "a")
		if user, _, _ := s.Who(v); user != "anna" {
			t.Fatal("not adopted")
		}
		restore()
		if user, _, _ := s.Who(v); user != "anna" {
			t.Error("the adopted session is lost")
		}
		time.Sleep(3 * time.Hour)
		if user, _, _ := s.Who(sitetest.Bring(t, "a")); user != "" {
			t.Error("its lifetime begins anew whenever it was idle")
		}
	})
}

func TestAClockThatWasAheadHoldsUpNoSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := memory.New()
		site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db}))
		restore := sojourn.SetClockAhead(site.Manager, 5*365*24*time.Hour)
		time.Sleep(time.Hour)
		sitetest.LoginAs(t, site, "anna") // sweeps
		restore()
		if due := time.Until(ops.For(site.Manager).SweepDue()); due > time.Hour {
			t.Errorf("the next sweep is due in %v", due)
		}
		overwrite(t, db, store.Record{ID: store.ID{7}, Version: 1, SaveIDs: []store.SaveID{1}, Deadline: time.Now().Add(-2 * time.Hour)})
		time.Sleep(time.Hour)
		sitetest.LoginAs(t, site, "anna")
		synctest.Wait()
		if _, err := db.Load(t.Context(), store.ID{7}); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("an old record is still there (%v)", err)
		}
	})
}

func TestAClientThatLeavesTheOldApplicationIsNoOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, old := sitetest.NewMove(t)
		old.Put("a", sitetest.DayOld(sitetest.Anna()))
		old.Err = faults.ErrLost
		ctx, leave := context.WithCancel(t.Context())
		old.OnFind = leave
		h := http.Header{"Cookie": {"old=a"}}
		if _, _, err := sitetest.Begin(ctx, s.Manager, h); err == nil {
			t.Fatal("it works")
		}
		if got := s.AdoptStats()["old"].Outages; got != 0 {
			t.Errorf("%d outages", got)
		}
		old.OnFind = nil
		for range 5 {
			if _, _, err := sitetest.Begin(t.Context(), s.Manager, h); err == nil {
				t.Fatal("it works")
			}
		}
		if got := s.AdoptStats()["old"].Outages; got != 5 {
			t.Errorf("%d outages, want 5", got)
		}
		if got := s.Log.With("WARN"); len(got) != 1 {
			t.Errorf("five outages are logged as %q", got)
		}
	})
}

func TestWhatAClockAheadHasNotedIsWrittenAnew(t *testing.T) {
	for kind, begin := range map[string]func(*sojourn.Session){
		"a login": sitetest.Login("anna"),
		"a cart":  func(s *sojourn.Session) { sitetest.Visits.Set(s, 1) },
		"rotated": func(s *sojourn.Session) { s.Login("anna"); _ = s.Save(context.Background()); s.Rotate() },
	} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := memory.New()
				site := sitetest.Local(sitetest.Manager(t, sojourn.Config{Store: db, Mode: sojourn.StoredOnly, Lifetime: 24 * time.Hour}))
				v := sitetest.NewBrowser()
				restore := sojourn.SetClockAhead(site.Manager, 5*365*24*time.Hour)
				sitetest.Does(t, v, site, begin)
				restore()
				var handle string
				sitetest.Look(t, v, site, func(s *sojourn.Session) { handle = s.Handle() })
				rec := recordOf(t, db, handle)
				for name, at := range map[string]time.Time{
					"Created": rec.Created, "Seen": rec.Seen,
					"Expires": rec.Expires.Add(-24 * time.Hour), "Deadline": rec.Deadline.Add(-24 * time.Hour),
				} {
					if d := time.Until(at); d > time.Minute {
						t.Errorf("after the next request, the record's %s is still %v ahead", name, d)
					}
				}
				// The browser's cookie, knows the new end.
				time.Sleep(23 * time.Hour)
				if sitetest.IsNew(t, v, site) {
					t.Error("it ended early")
				}
				saves := ops.For(site.Manager).Stats().Saves
				sitetest.Look(t, v, site, func(*sojourn.Session) {})
				if n := ops.For(site.Manager).Stats().Saves - saves; n != 0 {
					t.Errorf("it is written anew with each request")
				}
			})
		})
	}
}
