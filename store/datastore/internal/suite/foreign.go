package suite

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
)

// Foreign tests that damaged and foreign entities do not disturb operations
// that read more than one entity.
func (e Engine) Foreign(t *testing.T) {
	at := Alone()
	s := e.Open(t, at, nil)
	user := store.UserHash{1}
	sound := map[store.ID]store.Record{}
	for i := range byte(6) {
		rec := Session(i)
		rec.User = user
		Save(t, s, rec, store.Base{})
		sound[rec.ID] = rec
	}
	e.putForeign(t, at)

	t.Run("a walk passes over them and returns the others", func(t *testing.T) {
		for _, limit := range []int{0, 2, 3, 100} {
			found := map[store.ID]store.Record{}
			pages := 0
			for cursor := ""; ; pages++ {
				recs, next, err := s.Scan(t.Context(), cursor, limit)
				if err != nil {
					t.Fatalf("Scan of page %d: %v", pages, err)
				}
				for _, rec := range recs {
					if _, again := found[rec.ID]; again {
						t.Errorf("Scan by %d returned a record twice", limit)
					}
					found[rec.ID] = rec
				}
				if cursor = next; cursor == "" {
					break
				}
				if pages > 100 {
					t.Fatalf("Scan by %d has not ended", limit)
				}
			}
			if !maps.EqualFunc(found, sound, func(a, b store.Record) bool { return a.Base() == b.Base() }) {
				t.Errorf("Scan by %d returned %d records, want the %d sound ones", limit, len(found), len(sound))
			}
		}
	})

	t.Run("what is no cursor is an error", func(t *testing.T) {
		for _, cursor := range []string{"-", "a", Session(1).ID.String()} {
			if _, _, err := s.Scan(t.Context(), cursor, 1); err == nil {
				t.Errorf("Scan from %q: %v, want an error", cursor, err)
			}
		}
	})

	t.Run("a count counts the others", func(t *testing.T) {
		counter, ok := s.(store.Counter)
		if !ok {
			return // Cloud Datastore's store has none
		}
		if c, err := counter.Count(t.Context()); err != nil || c.Live != int64(len(sound)) || c.LoggedIn != c.Live {
			t.Errorf("Count: %+v, %v; want %d sessions", c, err, len(sound))
		}
	})

	t.Run("a user's sessions are the others", func(t *testing.T) {
		if recs, err := s.ByUser(t.Context(), user); err != nil || len(recs) != len(sound) {
			t.Errorf("ByUser: %d sessions, %v; want %d", len(recs), err, len(sound))
		}
	})

	t.Run("a login ends the others, and none of them is in its way", func(t *testing.T) {
		// A foreign entity in place of the user's.
		e.put(t, userKey(at, user), []entity.Property{{Name: entity.Deadline, Value: "soon"}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		rec := Session(100)
		rec.User = user
		ended, err := s.SaveLimited(ctx, rec, store.UserLimit{Max: 1, Until: time.Now().Add(time.Hour)})
		if err != nil || len(ended) != len(sound) {
			t.Errorf("SaveLimited ended %d sessions, %v; want %d", len(ended), err, len(sound))
		}
	})

	t.Run("a sweep removes what is over, however few at once", func(t *testing.T) {
		at := Alone()
		s := e.Open(t, at, nil)
		old := Expired(1)
		Save(t, s, old, store.Base{})
		e.putForeign(t, at)
		past, future := old.Deadline.Add(-time.Hour), time.Now().Add(time.Hour)
		for i, deadline := range []any{past, int64(7), []any{past, future}, []any{future, past}, "soon", 1.5} {
			e.put(t, Key{Place: at, ID: int64(i + 1)}, []entity.Property{{Name: entity.Deadline, Value: deadline}})
		}
		e.put(t, Key{Place: at, Name: Session(2).ID.String(), Parent: &Key{Place: at, Name: Session(3).ID.String()}},
			[]entity.Property{{Name: entity.Deadline, Value: past}})
		for sweeps := 0; ; sweeps++ {
			n, err := s.Sweep(t.Context(), time.Hour, 1)
			if err != nil || sweeps > 100 {
				t.Fatalf("sweep %d removed %d: %v", sweeps, n, err)
			}
			if n == 0 {
				break
			}
		}
		if _, err := s.Load(t.Context(), old.ID); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Load of what was over: %v, want it removed", err)
		}
	})

	t.Run("the feed tells the ends beside them", func(t *testing.T) {
		at := Alone()
		s := e.Open(t, at, nil)
		ends := map[store.ID]bool{}
		for i := range byte(3) {
			id := Session(i).ID
			if err := s.Delete(t.Context(), id, time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			ends[id] = true
		}
		id := Session(9).ID.String()
		for i, feed := range []any{
			"/.0." + id, "0.0." + id, "000000000000000.-." + id, "999999999999999.1." + id, "9/../%", "1%zz", "2+ /live", "5\x00\n", "é", "zzz", strings.Repeat("8", 1500),
			int64(7), 1.5, true, time.Now(), []byte("9.9." + id),
			[]any{"3", "4", "zz", int64(5)},
			nil,
		} {
			for _, key := range []Key{{Place: at, ID: int64(i + 1)}, {Place: at, Name: fmt.Sprintf("/.%d.%s", i, id)}} {
				e.put(t, key, []entity.Property{{Name: entity.Feed, Value: feed}})
			}
		}
		for _, limit := range []int{1, 2, 100} {
			told := map[store.ID]bool{}
			cursor := store.FeedFromStart
			for pages := 0; ; pages++ {
				page, err := s.Ends(t.Context(), cursor, limit)
				if err != nil {
					t.Fatalf("Ends of page %d by %d: %v", pages, limit, err)
				}
				for _, end := range page.Ends {
					told[end.ID] = true
				}
				if cursor = page.Cursor; !page.More {
					break
				}
				if pages > 100 {
					t.Fatalf("Ends by %d has not ended", limit)
				}
			}
			if !maps.Equal(told, ends) {
				t.Errorf("Ends by %d told of %d ends, want %d", limit, len(told), len(ends))
			}
			if _, err := s.Ends(t.Context(), cursor, limit); err != nil {
				t.Errorf("Ends from there: %v", err)
			}
		}
	})
}

// putForeign puts entities between the sessions that Session returns, before,
// and after them, with keys and properties that other programs may use.
func (e Engine) putForeign(t *testing.T, at Place) {
	t.Helper()
	name := func(text string) Key { return Key{Place: at, Name: text} }
	record := entity.Properties(&store.Record{
		Version: 1, SaveIDs: []store.SaveID{1}, User: store.UserHash{1},
		Created: time.Now(), Seen: time.Now(), Deadline: time.Now().Add(time.Hour), Expires: time.Now().Add(time.Hour),
	})
	for _, letter := range "27hpz" { // handles begin with any of them
		e.put(t, name(string(letter)), record)
		e.put(t, name(strings.Repeat(string(letter), 25)+"a"), []entity.Property{{Name: entity.Version, Value: "1"}})
	}
	for _, key := range []Key{
		name("0"), name("~"), name("é"), name("/.0." + Session(1).ID.String()), name("a b%2F\n\x01"), name(strings.Repeat("n", 1500)), name(strings.ToUpper(Session(1).ID.String())),
		{Place: at, ID: 1},
		{Place: at, ID: 1 << 60},
	} {
		e.put(t, key, record)
	}
	// A child of a session, and of an entity of another kind, before and after.
	for _, parent := range []Key{name(Session(1).ID.String()), {Place: Place{"A", at.Namespace}, Name: "a"}, {Place: Place{"Z", at.Namespace}, ID: 5}} {
		child := name(Session(200).ID.String())
		child.Parent = &parent
		e.put(t, child, record)
	}
	for i, p := range wrong {
		e.put(t, name(Session(byte(210+i)).ID.String()), append(slices.DeleteFunc(slices.Clone(record), func(q entity.Property) bool { return q.Name == p.Name }), p))
	}
}
