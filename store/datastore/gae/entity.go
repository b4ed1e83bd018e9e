package gae

import (
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
