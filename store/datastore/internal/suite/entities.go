package suite

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
)

// Entities tests the stored entities.
func (e Engine) Entities(t *testing.T) {
	t.Run("the largest is kept and a larger one refused", func(t *testing.T) {
		s := e.Open(t, Place{strings.Repeat("k", 100), strings.Repeat("n", 100)}, nil)
		rec := Session(1)
		rec.Version, rec.User = 1<<62, store.UserHash{1}
		for range store.RecentSaveIDs - 1 {
			rec.SaveIDs = append(rec.SaveIDs, 1<<63)
		}
		rec.Data = make([]byte, 1<<20-4-512-200)
		Save(t, s, rec, store.Base{})
		larger := Next(rec)
		larger.Data = append(larger.Data, 0)
		if err := s.Save(t.Context(), larger, rec.Base()); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("Save of one byte more: %v, want ErrTooLarge", err)
		}
		Holds(t, s, rec)
	})

	t.Run("only what is queried is indexed", func(t *testing.T) {
		at := Alone()
		s := e.Open(t, at, nil)
		rec := Session(1)
		rec.User = store.UserHash{1}
		mark := Next(Session(2))
		mark.Ended, mark.Data = mark.Seen, nil
		for _, c := range []struct {
			rec  store.Record
			want []string
		}{
			{rec, []string{"deadline", "user"}},
			{mark, []string{"deadline", "feed"}},
		} {
			Save(t, s, c.rec, store.Base{})
			if got := e.Indexed(t, at, c.rec); !slices.Equal(got, c.want) {
				t.Errorf("indexed are %v, want %v", got, c.want)
			}
		}
	})

	t.Run("one that is not a record is an error", func(t *testing.T) {
		at := Alone()
		s := e.Open(t, at, nil)
		rec := Session(1)
		for _, p := range wrong {
			e.put(t, Key{Place: at, Name: rec.ID.String()}, []entity.Property{p})
			if _, err := s.Load(t.Context(), rec.ID); !errors.Is(err, store.ErrDamaged) {
				t.Errorf("Load of an entity whose %s is %T: %v, want ErrDamaged", p.Name, p.Value, err)
			}
		}
	})

	t.Run("what a newer program added is no trouble", func(t *testing.T) {
		at := Alone()
		s := e.Open(t, at, nil)
		rec := Session(1)
		rec.User = store.UserHash{1}
		added := entity.Property{Name: "colour", Value: "blue"}
		login := func() {
			t.Helper()
			if _, err := s.SaveLimited(t.Context(), rec, store.UserLimit{Max: 2}); err != nil {
				t.Errorf("SaveLimited: %v", err)
			}
		}
		login()
		for _, key := range []Key{{Place: at, Name: rec.ID.String()}, userKey(at, rec.User)} {
			e.put(t, key, append(e.Get(t, key), added))
		}
		Holds(t, s, rec)
		rec.ID = Session(2).ID
		login()
	})

	t.Run("a sweep leaves users whose sessions are not over", func(t *testing.T) {
		at := Alone()
		s := e.Open(t, at, nil)
		users := []store.UserHash{{1}, {2}}
		for i, expires := range []time.Duration{-3 * time.Hour, 3 * time.Hour} {
			rec := Session(byte(i))
			rec.User = users[i]
			rec.Deadline, rec.Expires = time.Now().Add(expires), time.Now().Add(expires)
			if _, err := s.SaveLimited(t.Context(), rec, store.UserLimit{Max: 1}); err != nil {
				t.Fatal(err)
			}
		}
		Sweep(t, s, 10, 1)
		for i, want := range []bool{false, true} {
			if left := e.Get(t, userKey(at, users[i])) != nil; left != want {
				t.Errorf("user %d is left: %v, want %v", i, left, want)
			}
		}
	})

	t.Run("names that Datastore would refuse are refused before", func(t *testing.T) {
		for _, at := range []Place{
			{Kind: "__reserved__"},
			{Kind: "a/b"},
			{Kind: strings.Repeat("k", 101)},
			{Namespace: "__reserved__"},
			{Namespace: "ä"},
			{Namespace: strings.Repeat("n", 101)},
		} {
			if e.Check(at) == nil {
				t.Errorf("%+v is accepted", at)
			}
		}
	})
}

// Indexed returns the names of a record's properties that are indexed, and fails
// the test unless the deadline is a timestamp, which a TTL policy uses.
func (e Engine) Indexed(t *testing.T, at Place, rec store.Record) (names []string) {
	t.Helper()
	for _, p := range e.Get(t, Key{Place: at, Name: rec.ID.String()}) {
		if !p.NoIndex {
			names = append(names, p.Name)
		}
		if stamp, ok := p.Value.(time.Time); p.Name == entity.Deadline && (!ok || !stamp.Equal(rec.Deadline)) {
			t.Errorf("the deadline is %v, want the timestamp %v", p.Value, rec.Deadline)
		}
	}
	slices.Sort(names)
	return names
}

// wrong are properties that no record may have.
var wrong = []entity.Property{
	{Name: entity.Version, Value: "1"},
	{Name: entity.SaveIDs, Value: []any{"a"}},
	{Name: entity.User, Value: "short"},
	{Name: entity.Deadline, Value: int64(7)},
	{Name: entity.Data, Value: "text"},
}

func userKey(at Place, user store.UserHash) Key {
	if at.Kind == "" {
		at.Kind = entity.Kind
	}
	return Key{Place: Place{at.Kind + entity.UserSuffix, at.Namespace}, Name: entity.UserText(user)}
}
