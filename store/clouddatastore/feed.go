package clouddatastore

import (
	"context"

	"github.com/sojourn-go/sojourn/internal/entity"
	"github.com/sojourn-go/sojourn/store"
)

// Ends implements [store.EndFeed], by one query that reads nothing but an index.
// It goes by the clocks of the processes that end sessions, and returns what
// ended within a minute and a half before the last look once more: an end is
// missed if two processes' clocks differ by more than a minute, or if writing it
// took more than half a minute.
func (s *Store) Ends(ctx context.Context, cursor string, limit int) (store.EndPage, error) {
	const doing = "read the feed of ends"
	if err := ctx.Err(); err != nil {
		return store.EndPage{}, failed(ctx, doing, err)
	}
	page, err := entity.ReadFeed(cursor, limit, func(after string, limit int) ([]string, error) {
		var found []entity.Projection
		q := s.query().FilterField(entity.Feed, ">", after).Order(entity.Feed).Project(entity.Feed).Limit(limit)
		_, err := s.client.GetAll(ctx, q, &found)
		return entity.Feeds(found), err
	})
	return page, failed(ctx, doing, err)
}
