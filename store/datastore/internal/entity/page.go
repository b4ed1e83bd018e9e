package entity

import "github.com/sojourn-go/sojourn/store"

// Key is the key of an entity, of either client library.
type Key interface {
	comparable
	Encode() string // for DecodeKey of its package
}

// Found is the result of a query.
type Found[K Key] struct {
	Records []store.Record
	all     int // entities, including those that are not records
	last    K
}

// Collect reads a query's results. next returns the next entity: its key, and
// the key's name if the key has no parent, as a record's. If next returns an
// error with a key, that entity is skipped. Any other error ends the query:
// done at its end.
func Collect[K Key](next func(*store.Record) (key K, name string, err error), done error) (Found[K], error) {
	var found Found[K]
	for {
		var none K
		var rec store.Record
		key, name, err := next(&rec)
		if key == none {
			return found, Unless(done, err)
		}
		found.all++
		found.last = key
		var unnamed error
		if rec.ID, unnamed = store.ParseID(name); err == nil && unnamed == nil {
			found.Records = append(found.Records, rec)
		}
	}
}

// ByUser is [store.UserIndex]'s. The zero user has no sessions.
func ByUser(tx Tx, user store.UserHash) ([]store.Record, error) {
	if user == (store.UserHash{}) {
		return nil, nil
	}
	return tx.ByUser(user)
}

// ReadPage is [store.Scanner]'s Scan. query finds at most limit entities that
// come after that one in the order of their keys; the zero key is before all.
// The cursor is the key of the last entity, so that the scan continues after
// any entity, even a foreign one.
func ReadPage[K Key](cursor string, limit int, decode func(string) (K, error), query func(after K, limit int) (Found[K], error)) (recs []store.Record, next string, err error) {
	var after K
	if cursor != "" {
		if after, err = decode(cursor); err != nil {
			return nil, "", errNotCursor
		}
	}
	limit = max(limit, 1)
	found, err := query(after, limit)
	switch {
	case err != nil:
		return nil, "", err
	case found.all < limit:
		return found.Records, "", nil
	}
	return found.Records, found.last.Encode(), nil
}
