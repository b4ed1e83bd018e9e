package suite

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// A Scenario has two stores on the same sessions: here, whose calls go through
// wire, and elsewhere.
type Scenario struct {
	Name string
	Run  func(t *testing.T, here, elsewhere Store, wire *Wire)
}

// Interleavings tests concurrent changes and lost answers at moments that
// random tests seldom hit: the scenarios of both stores, and more.
func (e Engine) Interleavings(t *testing.T, more ...Scenario) {
	for _, c := range append(e.interleavings(), more...) {
		t.Run(c.Name, func(t *testing.T) {
			at, wire := Alone(), new(Wire)
			c.Run(t, e.Open(t, at, wire), e.Open(t, at, nil), wire)
		})
	}
}

func (e Engine) interleavings() []Scenario {
	rec := Session(1)
	user := store.UserHash{1}
	return []Scenario{
		{"a save that is overtaken between its read and its commit conflicts", func(t *testing.T, here, elsewhere Store, wire *Wire) {
			Save(t, here, rec, store.Base{})
			faster, slower := Next(rec), Next(rec)
			wire.Next("Commit", func(c Call) error {
				Save(t, elsewhere, faster, rec.Base())
				return c.Send()
			})
			if err := here.Save(t.Context(), slower, rec.Base()); !errors.Is(err, store.ErrConflict) {
				t.Errorf("Save: %v, want ErrConflict", err)
			}
			Holds(t, here, faster)
		}},

		{"of two first saves at once one conflicts", func(t *testing.T, here, elsewhere Store, wire *Wire) {
			faster, slower := Session(1), Session(1)
			wire.Next("Commit", func(c Call) error {
				Save(t, elsewhere, faster, store.Base{})
				return c.Send()
			})
			if err := here.Save(t.Context(), slower, store.Base{}); !errors.Is(err, store.ErrConflict) {
				t.Errorf("Save: %v, want ErrConflict", err)
			}
			Holds(t, here, faster)
		}},

		{"a touch that is overtaken by a save is applied on top of it", func(t *testing.T, here, elsewhere Store, wire *Wire) {
			Save(t, here, rec, store.Base{})
			faster := Next(rec)
			wire.Next("Commit", func(c Call) error {
				Save(t, elsewhere, faster, rec.Base())
				return c.Send()
			})
			touched := faster
			touched.Seen, touched.Deadline = rec.Seen.Add(time.Minute), rec.Deadline.Add(time.Minute)
			if err := here.Touch(t.Context(), rec.ID, touched.Seen, touched.Deadline); err != nil {
				t.Errorf("Touch: %v", err)
			}
			Holds(t, here, touched)
		}},

		{"a save whose answer is lost is saved once when it is sent again", func(t *testing.T, here, _ Store, wire *Wire) {
			two := Next(rec)
			for _, c := range []struct {
				rec  store.Record
				base store.Base
			}{{rec, store.Base{}}, {two, rec.Base()}} {
				wire.Next("Commit", func(c Call) error {
					return errors.Join(c.Send(), errors.New("the answer is lost"))
				})
				if err := here.Save(t.Context(), c.rec, c.base); err == nil || errors.Is(err, store.ErrConflict) {
					t.Errorf("Save: %v, want an error that leaves the outcome open", err)
				}
				Save(t, here, c.rec, c.base)
				Holds(t, here, c.rec)
			}
		}},

		{"contention that does not end is over with the context", func(t *testing.T, here, _ Store, wire *Wire) {
			Save(t, here, rec, store.Base{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			tries := 0
			wire.On(func(c Call) error {
				if c.Method != "Commit" {
					return c.Send()
				}
				if tries++; tries == 3 {
					cancel()
				}
				return e.Contended
			})
			err := here.Save(ctx, Next(rec), rec.Base())
			wire.On(nil)
			if !errors.Is(err, context.Canceled) || errors.Is(err, store.ErrConflict) {
				t.Errorf("Save: %v, want an open outcome and the context's error", err)
			}
			if tries != 3 {
				t.Errorf("%d commits were tried, want 3", tries)
			}
			Holds(t, here, rec)
		}},

		{"a sweep leaves what gets a new deadline after it began", func(t *testing.T, here, elsewhere Store, wire *Wire) {
			for i, moment := range []string{"BeginTransaction", "Commit"} {
				old := Expired(byte(i))
				Save(t, elsewhere, old, store.Base{})
				alive := Next(old)
				alive.Deadline = Session(0).Deadline
				wire.Next(moment, func(c Call) error {
					Save(t, elsewhere, alive, old.Base())
					return c.Send()
				})
				Sweep(t, here, 10, 0)
				Holds(t, here, alive)
			}
		}},

		{"a login that another one overtakes makes room for both", func(t *testing.T, here, elsewhere Store, wire *Wire) {
			limit := store.UserLimit{Max: 2, Until: time.Now().Add(time.Hour)}
			logins := make([]store.Record, 4)
			for i := range logins {
				logins[i] = Session(byte(i))
				logins[i].User = user
				logins[i].Created = logins[i].Created.Add(time.Duration(i) * time.Second)
			}
			for _, rec := range logins[:2] {
				Save(t, elsewhere, rec, store.Base{})
			}
			wire.Next("Commit", func(c Call) error {
				if _, err := elsewhere.SaveLimited(t.Context(), logins[2], limit); err != nil {
					t.Errorf("the faster login: %v", err)
				}
				return c.Send()
			})
			ended, err := here.SaveLimited(t.Context(), logins[3], limit)
			if err != nil || len(ended) != 1 || ended[0] != logins[1].ID {
				t.Errorf("SaveLimited ended %d sessions, %v; want the second alone: the faster login ended the first", len(ended), err)
			}
			if live, err := here.ByUser(t.Context(), user); err != nil || len(live) != limit.Max {
				t.Errorf("%d sessions are live, %v; want %d", len(live), err, limit.Max)
			}
		}},

		{"of two first logins at once, where one is allowed, one is refused", func(t *testing.T, here, elsewhere Store, wire *Wire) {
			limit := store.UserLimit{Max: 1, Refuse: true}
			faster, slower := Session(1), Session(2)
			faster.User, slower.User = user, user
			wire.Next("Commit", func(c Call) error {
				if _, err := elsewhere.SaveLimited(t.Context(), faster, limit); err != nil {
					t.Errorf("the faster login: %v", err)
				}
				return c.Send()
			})
			if _, err := here.SaveLimited(t.Context(), slower, limit); !errors.Is(err, store.ErrLimit) {
				t.Errorf("the slower login: %v, want ErrLimit", err)
			}
		}},

		{"a cap that very many sessions exceed ends all of them, in several commits", func(t *testing.T, here, elsewhere Store, wire *Wire) {
			one := Session(1)
			one.User = user
			e.PutMany(t, e.At(elsewhere), e.Many, one)
			var commits []int
			wire.On(func(c Call) error {
				if c.Method == "Commit" && e.Size != nil {
					commits = append(commits, e.Size(c))
				}
				return c.Send()
			})
			ended, err := here.SaveLimited(t.Context(), one, store.UserLimit{Max: 1, Until: time.Now().Add(time.Hour)})
			if err != nil || len(ended) != e.Many {
				t.Errorf("SaveLimited ended %d sessions, %v; want %d", len(ended), err, e.Many)
			}
			if !slices.Equal(commits, e.Commits) {
				t.Errorf("commits of %v, want %v", commits, e.Commits)
			}
			if live, err := here.ByUser(t.Context(), user); err != nil || len(live) != 1 {
				t.Errorf("%d sessions are live, %v; want 1", len(live), err)
			}
		}},

		{"no change makes more calls than it needs", func(t *testing.T, here, _ Store, wire *Wire) {
			for _, c := range []struct {
				name string
				do   func()
				want []string
			}{
				{"first save", func() { Save(t, here, rec, store.Base{}) }, e.FirstSave},
				{"following save", func() { Save(t, here, Next(rec), rec.Base()) }, e.NextSave},
				{"load", func() { _, _ = here.Load(t.Context(), rec.ID) }, e.Load},
				{"delete", func() { _ = here.Delete(t.Context(), rec.ID, time.Now()) }, e.Delete},
			} {
				if made := wire.Since(c.do); !slices.Equal(made, c.want) {
					t.Errorf("%s: calls %v, want %v", c.name, made, c.want)
				}
			}
		}},

		{"errors name no session", func(t *testing.T, here, _ Store, wire *Wire) {
			wire.On(func(Call) error { return errors.New("no luck with /SojournSession," + rec.ID.String()) })
			_, loadErr := here.Load(t.Context(), rec.ID)
			_, _, scanErr := here.Scan(t.Context(), "", 1)
			for call, err := range map[string]error{
				"load":   loadErr,
				"scan":   scanErr,
				"save":   here.Save(t.Context(), rec, store.Base{}),
				"delete": here.Delete(t.Context(), rec.ID, rec.Deadline),
				"touch":  here.Touch(t.Context(), rec.ID, rec.Seen, rec.Deadline),
			} {
				if err == nil || strings.Contains(err.Error(), rec.ID.String()) || !strings.Contains(err.Error(), call+": ") || !strings.Contains(err.Error(), "no luck") {
					t.Errorf("%s: %v, want what was done and what went wrong, without the handle", call, err)
				}
			}
		}},
	}
}
