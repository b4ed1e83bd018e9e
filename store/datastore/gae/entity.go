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

// deadline is all that there is in the entity where parallel logins of one user
// meet: each writes it, so that of two which know nothing of each other only one
// is committed. It is swept when the last session that it let in is over for good.
// It is also what a sweep reads of any entity. Nothing else in an entity is in the
// way of either.
type deadline struct{ at time.Time }

var _ datastore.PropertyLoadSaver = (*deadline)(nil)

// Save implements [datastore.PropertyLoadSaver].
func (d *deadline) Save() ([]datastore.Property, error) {
	return []datastore.Property{{Name: entity.Deadline, Value: d.at}}, nil
}

// Load implements [datastore.PropertyLoadSaver]. Of several deadlines, which an
// entity of ours never has, the first counts: that is the one that a sweep found.
func (d *deadline) Load(props []datastore.Property) error {
	for _, p := range props {
		if at, ok := p.Value.(time.Time); ok && p.Name == entity.Deadline && (d.at.IsZero() || at.Before(d.at)) {
			d.at = at
		}
	}
	return nil
}
