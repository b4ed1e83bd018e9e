package storetest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// harness is a scenario's test and its own empty store.
type harness struct {
	*testing.T
	store store.Store
	settings
}

// some returns n, or a fraction of it if calls are slow.
func (s settings) some(n int) int { return n / s.part }

// now is the current time in the stores' precision.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

func newSaveID() store.SaveID { return store.SaveID(rand.Uint64()) }

func newID() store.ID {
	return store.HashIdentifier(fmt.Appendf(nil, "%x%x", rand.Uint64(), rand.Uint64()))
}

func newUser() store.UserHash { return store.UserHash(newID()) }

// first returns an anonymous session's first record, live for an hour.
func first() store.Record {
	at := now()
	return store.Record{
		ID:       newID(),
		Version:  1,
		SaveIDs:  []store.SaveID{newSaveID()},
		Created:  at,
		Seen:     at,
		Deadline: at.Add(time.Hour),
		Expires:  at.Add(24 * time.Hour),
		Data:     []byte("version 1"),
	}
}

// expired returns a session's first record, with a deadline two hours ago.
func expired() store.Record {
	rec := first()
	rec.Created = rec.Created.Add(-3 * time.Hour)
	rec.Seen = rec.Created
	rec.Deadline = rec.Created.Add(time.Hour)
	return rec
}

// next returns the record of the next save after rec: the next version, with a
// new save ID before the earlier ones.
func next(rec store.Record) store.Record {
	rec.Version++
	rec.SaveIDs = append([]store.SaveID{newSaveID()}, rec.SaveIDs...)
	rec.SaveIDs = rec.SaveIDs[:min(len(rec.SaveIDs), store.RecentSaveIDs)]
	rec.Data = fmt.Appendf(nil, "version %d", rec.Version)
	return rec
}

// ended returns the tombstone that replaces rec, kept for the given time.
func ended(rec store.Record, keep time.Duration) store.Record {
	rec = next(rec)
	rec.Ended = now()
	rec.Deadline = rec.Ended.Add(keep)
	rec.Data = nil
	return rec
}

// saved stores rec, based on base, and returns it. It fails the test if it
// cannot.
func (h *harness) saved(rec store.Record, base store.Base) store.Record {
	h.Helper()
	if err := h.store.Save(h.Context(), rec, base); err != nil {
		h.Fatalf("Save of version %d on base version %d: %v, want it saved", rec.Version, base.Version, err)
	}
	return rec
}

// inserted stores a session's first record.
func (h *harness) inserted(rec store.Record) store.Record {
	h.Helper()
	return h.saved(rec, store.Base{})
}

// following stores the next record after rec, and returns it.
func (h *harness) following(rec store.Record) store.Record {
	h.Helper()
	return h.saved(next(rec), rec.Base())
}

func (h *harness) deleted(id store.ID, until time.Time) {
	h.Helper()
	if err := h.store.Delete(h.Context(), id, until); err != nil {
		h.Fatalf("Delete: %v, want the session ended", err)
	}
}

// load returns the record with that ID. It fails the test if there is none.
func (h *harness) load(id store.ID) store.Record {
	h.Helper()
	rec, err := h.store.Load(h.Context(), id)
	if err != nil {
		h.Fatalf("Load: %v, want the record that was stored", err)
	}
	return rec
}

// holds fails the test unless the store holds want.
func (h *harness) holds(want store.Record) {
	h.Helper()
	h.same(h.load(want.ID), want)
}

// same fails the test unless got is want.
func (h *harness) same(got, want store.Record) {
	h.Helper()
	if diff := difference(got, want); diff != "" {
		h.Fatalf("the loaded record differs from the one that should be stored:\n%s", diff)
	}
}

// conflicts fails the test unless saving rec is refused. why says what goes
// wrong otherwise.
func (h *harness) conflicts(rec store.Record, base store.Base, why string) {
	h.Helper()
	if err := h.store.Save(h.Context(), rec, base); !errors.Is(err, store.ErrConflict) {
		h.Fatalf("Save of version %d on base version %d: %v, want store.ErrConflict: %s", rec.Version, base.Version, err, why)
	}
}

// staysEnded fails the test if the session is live, or its tombstone has values.
func (h *harness) staysEnded(id store.ID) {
	h.Helper()
	mark := h.load(id)
	if !mark.IsEnd() {
		h.Fatalf("the session is live again (version %d), want its tombstone: logout must be final", mark.Version)
	}
	if len(mark.Data) != 0 {
		h.Fatalf("the tombstone has %d bytes of Data, want none: the values end with the session", len(mark.Data))
	}
}

// difference describes how two records differ; "" means not at all.
func difference(got, want store.Record) string {
	var b strings.Builder
	say := func(field string, g, w any) { fmt.Fprintf(&b, "\t%s: got %v, want %v\n", field, g, w) }
	sayTime := func(field string, g, w time.Time) {
		switch {
		case !g.Equal(w):
			say(field, g.Format(time.RFC3339Nano), w.Format(time.RFC3339Nano))
		case g.Location() != time.UTC:
			say(field+"'s location", g.Location(), time.UTC)
		}
	}
	if got.ID != want.ID {
		say("ID", got.ID, want.ID)
	}
	if got.Version != want.Version {
		say("Version", got.Version, want.Version)
	}
	if !slices.Equal(got.SaveIDs, want.SaveIDs) {
		say("SaveIDs", got.SaveIDs, want.SaveIDs)
	}
	if got.User != want.User {
		say("User", got.User, want.User)
	}
	sayTime("Created", got.Created, want.Created)
	sayTime("Seen", got.Seen, want.Seen)
	sayTime("Deadline", got.Deadline, want.Deadline)
	sayTime("Expires", got.Expires, want.Expires)
	sayTime("Ended", got.Ended, want.Ended)
	if !bytes.Equal(got.Data, want.Data) {
		at := 0
		for at < min(len(got.Data), len(want.Data)) && got.Data[at] == want.Data[at] {
			at++
		}
		fmt.Fprintf(&b, "\tData: got %d bytes, want %d; they differ from byte %d on\n", len(got.Data), len(want.Data), at)
	}
	if got.Shorten {
		say("Shorten", true, "false: it is not stored")
	}
	return b.String()
}

// together starts n goroutines at the same moment and waits for them.
func together(n int, run func(i int)) {
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range n {
		wg.Go(func() {
			<-start
			run(i)
		})
	}
	close(start)
	wg.Wait()
}
