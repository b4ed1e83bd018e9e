package gae

import (
	"time"

	"google.golang.org/appengine/v2/datastore"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
)

// row is a record in the datastore's form. Its ID is the entity's key.
type row struct{ rec store.Record }

var _ datastore.PropertyLoadSaver = (*row)(nil)

// Save implements [datastore.PropertyLoadSaver].
func (r *row) Save() ([]datastore.Property, error) {
	var props []datastore.Property
	for _, p := range entity.Properties(&r.rec) {
		if saveIDs, ok := p.Value.([]int64); ok {
			for _, t := range saveIDs {
				props = append(props, datastore.Property{Name: p.Name, Value: t, NoIndex: p.NoIndex, Multiple: true})
			}
			continue
		}
		props = append(props, datastore.Property{Name: p.Name, Value: p.Value, NoIndex: p.NoIndex})
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

// deadline is the only property of a user's entity. Each limited login writes
// this entity, so that of two concurrent logins only one is committed. It is
// swept once the last session that it covers has expired. A sweep also reads
// only this property of any entity. Other properties are ignored.
type deadline struct{ at time.Time }

var _ datastore.PropertyLoadSaver = (*deadline)(nil)

// Save implements [datastore.PropertyLoadSaver].
func (d *deadline) Save() ([]datastore.Property, error) {
	return []datastore.Property{{Name: entity.Deadline, Value: d.at}}, nil
}

// Load implements [datastore.PropertyLoadSaver]. If an entity that is not ours
// has several deadlines, the first counts: the sweep found that one.
func (d *deadline) Load(props []datastore.Property) error {
	for _, p := range props {
		if at, ok := p.Value.(time.Time); ok && p.Name == entity.Deadline && (d.at.IsZero() || at.Before(d.at)) {
			d.at = at
		}
	}
	return nil
}
