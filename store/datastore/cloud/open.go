package cloud

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/open"
)

// A program that imports this package can open its stores by URL. Opening
// creates nothing: a kind exists once it has an entity.
func init() {
	open.Register(open.Engine{
		Schemes: []string{"datastore"},
		Forms:   []string{"datastore://PROJECT"},
		Store:   openURL,
	})
}

// answerTime bounds the wait for the service: the client would wait forever.
const answerTime = 10 * time.Second

func openURL(ctx context.Context, text string) (store.Store, io.Closer, error) {
	at, err := open.Parse(text, "namespace", "kind", "ttl_policy")
	if err != nil {
		return nil, nil, err
	}
	if at.Hosts == "" {
		return nil, nil, fmt.Errorf("%w: datastore: needs the project, such as datastore://my-project", open.ErrURL)
	}
	o := Options{Namespace: at.Options["namespace"], Kind: at.Options["kind"]}
	if text, given := at.Options["ttl_policy"]; given {
		if o.TTLPolicy, err = strconv.ParseBool(text); err != nil {
			return nil, nil, fmt.Errorf("%w: ttl_policy is true or false", open.ErrURL)
		}
	}
	if _, err := o.check(); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", open.ErrURL, err)
	}
	// Credentials are renewed with the client's context, long after the opening.
	db, err := connect(context.WithoutCancel(ctx), at.Hosts, at.Path, o)
	if err != nil {
		return nil, nil, err
	}
	if err := db.answers(ctx); err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, db, nil
}

// answers reports whether the service answers, by loading a record that cannot
// exist.
func (s *Store) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if _, err := s.Load(ctx, store.ID{}); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return nil
}
