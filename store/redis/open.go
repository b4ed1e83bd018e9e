package redis

import (
	"context"
	"fmt"
	"io"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/open"
)

// A program that imports this package can open its stores and caches by URL.
// Opening a store creates nothing in the database.
func init() {
	open.Register(open.Engine{
		Schemes: []string{"redis", "rediss", "rediscluster", "redisclusters", "redissentinel", "redissentinels"},
		Forms:   []string{"redis://HOST", "rediscluster://HOST,HOST", "redissentinel://HOST,HOST/NAME"},
		Store: func(ctx context.Context, url string) (store.Store, io.Closer, error) {
			o, err := ParseURL(url)
			if err != nil {
				return nil, nil, fmt.Errorf("%w: %w", open.ErrURL, err)
			}
			db, err := Open(ctx, o)
			if err != nil {
				return nil, nil, err
			}
			return db, db, nil
		},
		Cache: func(url string) (store.Cache, io.Closer, error) {
			o, err := ParseURL(url)
			if err != nil {
				return nil, nil, fmt.Errorf("%w: %w", open.ErrURL, err)
			}
			c, err := NewCache(o)
			if err != nil {
				return nil, nil, fmt.Errorf("%w: %w", open.ErrURL, err)
			}
			return c, c, nil
		},
	})
}
