// Package cloud keeps session records in Google Cloud Datastore, that is, in a
// Firestore database in Datastore mode.
//
//	db, err := cloud.Open(ctx, "my-project", cloud.Options{})
//	defer db.Close()
//
// It keeps one entity per session, named by the session's handle, and needs no
// composite index. Compare-and-set is a transaction. If several processes write
// one session at once, the others retry with growing pauses until their context
// ends.
package cloud

import (
	"context"
	"errors"
	"fmt"

	"cloud.google.com/go/datastore"

	"github.com/sojourn-go/sojourn/store/datastore/internal/entity"
)

// Options are a store's settings. The zero value is a sensible default.
type Options struct {
	// Kind is the entities' kind: up to 100 letters, digits, ".", "_" and "-",
	// not beginning with "__". "" = "SojournSession".
	Kind string

	// Namespace holds the entities: up to 100 letters, digits, ".", "_" and
	// "-". "" = the default namespace.
	Namespace string

	// TTLPolicy means that the kind has a TTL policy on its property
	// "deadline". Then the property is not indexed. This makes saves cheaper
	// and removes the limit of about 500 writes a second for an index of
	// increasing times. Sweep returns [errors.ErrUnsupported].
	TTLPolicy bool
}

// check fills in defaults and returns an error for invalid options.
func (o Options) check() (Options, error) {
	if o.Kind == "" {
		o.Kind = entity.Kind
	}
	if err := entity.CheckNames(o.Kind, o.Namespace); err != nil {
		return o, fmt.Errorf("cloud datastore: %w", err)
	}
	return o, nil
}

// Open opens that project's default database, with the credentials of the
// environment. It connects with the first call. If DATASTORE_EMULATOR_HOST is
// set, it uses that emulator. The caller closes the store. For a named database
// or other credentials, make a client and use New.
func Open(ctx context.Context, project string, o Options) (*Store, error) {
	return connect(ctx, project, "", o)
}

// connect is Open for a database with a name; "" = the default one.
func connect(ctx context.Context, project, database string, o Options) (*Store, error) {
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	client, err := datastore.NewClientWithDatabase(ctx, project, database)
	if err != nil {
		return nil, failed(ctx, "open", err)
	}
	s, err := New(client, o)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	s.own = true
	return s, nil
}

// New returns a store that uses the application's client. The caller still
// closes the client. New does not connect.
func New(client *datastore.Client, o Options) (*Store, error) {
	if client == nil {
		return nil, errors.New("cloud datastore: the client is nil")
	}
	o, err := o.check()
	if err != nil {
		return nil, err
	}
	return &Store{client: client, kind: o.Kind, space: o.Namespace, ttl: o.TTLPolicy}, nil
}

// Close closes the client that Open made.
func (s *Store) Close() error {
	if !s.own {
		return nil
	}
	if err := s.client.Close(); err != nil {
		return fmt.Errorf("cloud datastore: close: %w", err)
	}
	return nil
}

// failed adds the operation to err, unless it is nil.
func failed(ctx context.Context, doing string, err error) error {
	return entity.Failed(ctx, "cloud datastore: "+doing, err)
}
