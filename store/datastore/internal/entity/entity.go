// Package entity is the shared code of the stores on Datastore: the form of
// session records as entities, and the logic of saves, ends, touches, logins
// and the feed. Packages cloud and gae use different client libraries but keep
// the same entities.
package entity

import (
	"fmt"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// The names of an entity's properties. Only the deadline, the user of a live
// session and a tombstone's place in the feed are indexed. Times and fields
// that are not set have no property. The key is the record's ID.
const (
	Version  = "version"
	SaveIDs  = "save_ids"
	User     = "user"
	Created  = "created"
	Seen     = "seen"
	Deadline = "deadline"
	Expires  = "expires"
	Ended    = "ended"
	Data     = "data"
	Feed     = "feed" // in a tombstone only, and ignored when a record is read
)

// UserSuffix ends the kind of the users' entities.
const UserSuffix = "User"

// ErrNotRecord means that an entity is not a session record.
var ErrNotRecord = fmt.Errorf("an entity is not a session record: %w", store.ErrDamaged)

// Property is a property of an entity. Value is an int64, a string, a time.Time,
// a []byte, or for SaveIDs a []int64.
type Property struct {
	Name    string
	Value   any
	NoIndex bool
}

// Properties returns a record as properties.
func Properties(rec *store.Record) []Property {
	props := []Property{
		{Version, int64(rec.Version), true},
		{Deadline, Millis(rec.Deadline), false},
	}
	if len(rec.SaveIDs) > 0 {
		saveIDs := make([]int64, len(rec.SaveIDs))
		for i, t := range rec.SaveIDs {
			saveIDs[i] = int64(t)
		}
		props = append(props, Property{SaveIDs, saveIDs, true})
	}
	if rec.User != (store.UserHash{}) {
		// A tombstone's user is not indexed, so queries for the user's sessions do not find it.
		props = append(props, Property{User, UserText(rec.User), rec.IsEnd()})
	}
	for _, t := range []struct {
		name string
		at   time.Time
	}{{Created, rec.Created}, {Seen, rec.Seen}, {Expires, rec.Expires}, {Ended, rec.Ended}} {
		if !t.at.IsZero() {
			props = append(props, Property{t.name, Millis(t.at), true})
		}
	}
	if rec.IsEnd() {
		props = append(props, Property{Feed, feedEntry(time.Now(), rec.ID, rec.Deadline), false})
	} else if len(rec.Data) > 0 {
		props = append(props, Property{Data, rec.Data, true})
	}
	return props
}

// Set sets the field of a record that a property holds: for SaveIDs all, as a
// []any, or one more. It ignores unknown properties, which a newer program may
// have written. A value of a wrong type is ErrNotRecord.
func Set(rec *store.Record, name string, value any) error {
	ok := true
	switch name {
	case Version:
		var n int64
		n, ok = value.(int64)
		rec.Version = uint64(n)
	case SaveIDs:
		ok = addSaveIDs(rec, value)
	case User:
		var text string
		text, ok = value.(string)
		id, err := store.ParseID(text)
		ok = ok && err == nil
		rec.User = store.UserHash(id)
	case Created:
		rec.Created, ok = timestamp(value)
	case Seen:
		rec.Seen, ok = timestamp(value)
	case Deadline:
		rec.Deadline, ok = timestamp(value)
	case Expires:
		rec.Expires, ok = timestamp(value)
	case Ended:
		rec.Ended, ok = timestamp(value)
	case Data:
		rec.Data, ok = value.([]byte)
	}
	if !ok {
		return fmt.Errorf("property %q: %w", name, ErrNotRecord)
	}
	return nil
}

func addSaveIDs(rec *store.Record, value any) bool {
	if n, ok := value.(int64); ok {
		rec.SaveIDs = append(rec.SaveIDs, store.SaveID(n))
		return true
	}
	list, ok := value.([]any)
	for _, v := range list {
		n, isInt := v.(int64)
		ok = ok && isInt
		rec.SaveIDs = append(rec.SaveIDs, store.SaveID(n))
	}
	return ok
}

func timestamp(v any) (time.Time, bool) {
	t, ok := v.(time.Time)
	return t.UTC(), ok
}

// UserText is a user's stored form, 26 letters and digits: App Engine's bundled
// datastore cannot be queried for bytes.
func UserText(u store.UserHash) string { return store.ID(u).String() }

const (
	maxEntity = 1<<20 - 4

	// fixedSize is more than Datastore counts for an entity besides its data,
	// kind and namespace: the key's 27 bytes of handle, the properties' names
	// and values with all save IDs, and the overhead of each key and entity.
	fixedSize = 512
)

// Fits returns store.ErrTooLarge if Datastore would refuse the record as an
// entity of that kind and namespace.
func Fits(rec *store.Record, kind, namespace string) error {
	size := len(rec.Data) + fixedSize + len(kind) + len(namespace)
	if size > maxEntity {
		return fmt.Errorf("an entity of %d bytes, at most %d are possible: %w", size, maxEntity, store.ErrTooLarge)
	}
	return nil
}

// Millis truncates a time to the precision that stores keep.
func Millis(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.UnixMilli(t.UnixMilli()).UTC()
}

// Later returns the later of two times.
func Later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
