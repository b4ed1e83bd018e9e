// Package cloud keeps session records in Google Cloud Datastore, that is, in a
// Firestore database in Datastore mode.
//
//	db, err := cloud.Open(ctx, "my-project", cloud.Options{})
//	defer db.Close()
//
// It keeps one entity per session, named by the session's handle, and needs no
// composite index. Compare-and-set is a transaction; where several processes
// write one session at once, the losers try again with growing pauses until
// their context is over.
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

	// TTLPolicy says that the kind has a TTL policy on its property "deadline".
	// Then the property is not indexed, which makes saves cheaper and lifts the
	// limit that an index of ever later times sets (about 500 writes a second),
	// and Sweep answers [errors.ErrUnsupported].
	TTLPolicy bool
}

// check fills in defaults, and says what is wrong.
func (o Options) check() (Options, error) {
	if o.Kind == "" {
		o.Kind = entity.Kind
	}
	if err := entity.CheckNames(o.Kind, o.Namespace); err != nil {
		return o, fmt.Errorf("cloud datastore: %w", err)
	}
	return o, nil
}

// Open connects to that project's default database, with the credentials that
// the environment gives. The connection is made with the first call. If
// DATASTORE_EMULATOR_HOST is set, that emulator is used. The caller closes the
// store. For a named database or other credentials, make a client and use New.
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

// New keeps records through a client that the application already has. The
// client stays the caller's. It does not connect.
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

// failed says what was being done when err came back, unless it is nil.
func failed(ctx context.Context, doing string, err error) error {
	return entity.Failed(ctx, "cloud datastore: "+doing, err)
}
