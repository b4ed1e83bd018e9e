package cloud

import (
	"time"

	"cloud.google.com/go/datastore"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
)

// row is a record in Datastore's form. Its ID is the entity's key.
type row struct {
	rec     store.Record
	unswept bool // not found by Sweep: the deadline is not indexed
}

var _ datastore.PropertyLoadSaver = (*row)(nil)

// Save implements [datastore.PropertyLoadSaver].
func (r *row) Save() ([]datastore.Property, error) {
	var props []datastore.Property
	for _, p := range entity.Properties(&r.rec) {
		value := p.Value
		if saveIDs, ok := value.([]int64); ok {
			list := make([]any, len(saveIDs))
			for i, t := range saveIDs {
				list[i] = t
			}
			value = list
		}
		props = append(props, datastore.Property{
			Name: p.Name, Value: value,
			NoIndex: p.NoIndex || p.Name == entity.Deadline && r.unswept,
		})
	}
	return props, nil
}

// Load implements [datastore.PropertyLoadSaver].
func (r *row) Load(props []datastore.Property) error {
	for _, p := range props {
		if err := entity.Set(&r.rec, p.Name, p.Value); err != nil {
			return err
		}
	}
	return nil
}

func records(rows []*row) []store.Record {
	recs := make([]store.Record, len(rows))
	for i, r := range rows {
		recs[i] = r.rec
	}
	return recs
}

// deadline is the only property of a user's entity. Each limited login writes
// this entity, so that of two concurrent logins only one is committed. It is
// swept once the last session that it covers has expired. Other properties in
// it are ignored.
type deadline struct {
	at      time.Time
	unswept bool
}

var _ datastore.PropertyLoadSaver = (*deadline)(nil)

// Save implements [datastore.PropertyLoadSaver].
func (d *deadline) Save() ([]datastore.Property, error) {
	return []datastore.Property{{Name: entity.Deadline, Value: d.at, NoIndex: d.unswept}}, nil
}

// Load implements [datastore.PropertyLoadSaver].
func (d *deadline) Load(props []datastore.Property) error {
	for _, p := range props {
		if at, ok := p.Value.(time.Time); ok && p.Name == entity.Deadline {
			d.at = at
		}
	}
	return nil
}
