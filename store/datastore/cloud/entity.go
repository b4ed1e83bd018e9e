package cloud

import (
	"cloud.google.com/go/datastore"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
)

// row is a record in Datastore's form. Its ID is the entity's key.
type row struct {
	rec     store.Record
	unswept bool // Sweep does not look for it: the deadline is not indexed
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
