package gae

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/appengine/v2/datastore"

	"github.com/sojourn-go/sojourn/store"
)

// The names of an entity's properties, which are those of package
// clouddatastore. Only the deadline, the user of a live session and an end
// mark's place in the feed are indexed. Times and fields that are not set have
// none.
const (
	propVersion  = "version"
	propTags     = "tags"
	propUser     = "user"
	propCreated  = "created"
	propSeen     = "seen"
	propDeadline = "deadline"
	propExpires  = "expires"
	propEnded    = "ended"
	propData     = "data"
	propFeed     = "feed" // in an end mark only, and not read with it
)

var errNotRecord = errors.New("an entity is not a session record")

// entity is a record in the datastore's form. Its ID is the entity's key.
type entity struct{ rec store.Record }

var _ datastore.PropertyLoadSaver = (*entity)(nil)

// Save implements [datastore.PropertyLoadSaver].
func (e *entity) Save() ([]datastore.Property, error) {
	rec := &e.rec
	props := []datastore.Property{
		{Name: propVersion, Value: int64(rec.Version), NoIndex: true},
		{Name: propDeadline, Value: millis(rec.Deadline)},
	}
	for _, t := range rec.Tags {
		props = append(props, datastore.Property{Name: propTags, Value: int64(t), NoIndex: true, Multiple: true})
	}
	if rec.User != (store.UserHash{}) {
		// Left out of the index, an end mark is not among the user's sessions.
		props = append(props, datastore.Property{Name: propUser, Value: userText(rec.User), NoIndex: rec.IsEnd()})
	}
	for _, t := range []struct {
		name string
		at   time.Time
	}{{propCreated, rec.Created}, {propSeen, rec.Seen}, {propExpires, rec.Expires}, {propEnded, rec.Ended}} {
		if !t.at.IsZero() {
			props = append(props, datastore.Property{Name: t.name, Value: millis(t.at), NoIndex: true})
		}
	}
	if rec.IsEnd() {
		props = append(props, datastore.Property{Name: propFeed, Value: feedEntry(time.Now(), rec.ID, rec.Deadline)})
	} else if len(rec.Data) > 0 {
		props = append(props, datastore.Property{Name: propData, Value: rec.Data, NoIndex: true})
	}
	return props, nil
}

// userText is how a user is kept, as 26 letters and digits: the bundled
// datastore cannot be queried for bytes.
func userText(u store.UserHash) string { return store.ID(u).String() }

// Load implements [datastore.PropertyLoadSaver]. Properties that it does not
// know are left alone, for those of a newer program.
func (e *entity) Load(props []datastore.Property) error {
	rec := &e.rec
	for _, p := range props {
		ok := true
		switch p.Name {
		case propVersion:
			var n int64
			n, ok = p.Value.(int64)
			rec.Version = uint64(n)
		case propTags:
			var n int64
			n, ok = p.Value.(int64)
			rec.Tags = append(rec.Tags, store.Tag(n))
		case propUser:
			var text string
			text, ok = p.Value.(string)
			id, err := store.ParseID(text)
			ok = ok && err == nil
			rec.User = store.UserHash(id)
		case propCreated:
			rec.Created, ok = timestamp(p.Value)
		case propSeen:
			rec.Seen, ok = timestamp(p.Value)
		case propDeadline:
			rec.Deadline, ok = timestamp(p.Value)
		case propExpires:
			rec.Expires, ok = timestamp(p.Value)
		case propEnded:
			rec.Ended, ok = timestamp(p.Value)
		case propData:
			rec.Data, ok = p.Value.([]byte)
		}
		if !ok {
			return fmt.Errorf("property %q: %w", p.Name, errNotRecord)
		}
	}
	return nil
}

func timestamp(v any) (time.Time, bool) {
	t, ok := v.(time.Time)
	return t.UTC(), ok
}

const (
	maxEntity = 1<<20 - 4

	// fixedSize is the room that an entity's parts but its data, kind and
	// namespace take at most by the datastore's reckoning, and some to spare: the
	// key's 27 bytes of handle, the properties' names and values with all tags,
	// and what is added for each key and entity.
	fixedSize = 512
)

// fits returns store.ErrTooLarge if the service would refuse the record.
func (s *Store) fits(rec *store.Record) error {
	size := len(rec.Data) + fixedSize + len(s.kind) + len(s.space)
	if size > maxEntity {
		return fmt.Errorf("gae: save: an entity of %d bytes, at most %d are possible: %w", size, maxEntity, store.ErrTooLarge)
	}
	return nil
}

// millis cuts a time to what a store keeps.
func millis(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
