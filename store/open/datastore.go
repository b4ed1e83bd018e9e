package open

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"cloud.google.com/go/datastore"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/cloud"
)

func openDatastore(ctx context.Context, text string) (store.Store, io.Closer, error) {
	u, query, err := parse(text, "namespace", "kind", "ttl_policy")
	if err != nil {
		return nil, nil, err
	}
	project, database := u.hosts, u.path
	if project == "" {
		return nil, nil, urlError("datastore: needs the project, such as datastore://my-project")
	}
	o := cloud.Options{Namespace: query["namespace"], Kind: query["kind"]}
	if text, given := query["ttl_policy"]; given {
		if o.TTLPolicy, err = strconv.ParseBool(text); err != nil {
			return nil, nil, urlError("ttl_policy is true or false")
		}
	}
	// The options first: connecting fails where there are no credentials.
	if _, err := cloud.New(new(datastore.Client), o); err != nil {
		return nil, nil, urlError("%w", err)
	}
	// Credentials are renewed with the client's context, long after the opening.
	client, err := datastore.NewClientWithDatabase(context.WithoutCancel(ctx), project, database)
	if err != nil {
		return nil, nil, fmt.Errorf("datastore: %w", err)
	}
	db, err := cloud.New(client, o)
	if err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	if err := answers(ctx, db); err != nil {
		return nil, nil, errors.Join(err, client.Close())
	}
	return db, client, nil
}
