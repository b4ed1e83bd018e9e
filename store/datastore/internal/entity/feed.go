package entity

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

// feedOverlap is how far before its previous call a reader starts: a minute for
// different clocks, and half a minute from the time in a tombstone until its
// commit.
const feedOverlap = 90 * time.Second

// feedEntry is a tombstone's place in the feed: when it was written, until when
// it is kept, and the handle. Entries sort by time, and no two are equal, so the
// index on them alone answers a reader.
func feedEntry(written time.Time, id store.ID, until time.Time) string {
	return fmt.Sprintf("%s.%d.%s", feedTime(written), until.UnixMilli(), id)
}

func feedTime(t time.Time) string { return fmt.Sprintf("%015d", t.UnixMilli()) }

// parseFeedEntry parses the result of feedEntry.
func parseFeedEntry(text string) (e store.End, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return store.End{}, false
	}
	written, err1 := strconv.ParseInt(parts[0], 10, 64)
	until, err2 := strconv.ParseInt(parts[1], 10, 64)
	id, err3 := store.ParseID(parts[2])
	if err := errors.Join(err1, err2, err3); err != nil {
		return store.End{}, false
	}
	e = store.End{ID: id, Until: time.UnixMilli(until).UTC()}
	return e, feedEntry(time.UnixMilli(written), id, e.Until) == text
}

// feedCursor is a reader's position.
type feedCursor struct {
	after string // read entries after this one, which may be any text
	then  string // where to continue after the last page
	start bool   // leave out expired tombstones
}

// String returns the cursor as text: its parts, escaped where a foreign entry
// requires it, and separated by "/". parseCursor reads it.
func (c feedCursor) String() string {
	mode := "live"
	if c.start {
		mode = "start"
	}
	return strings.Join([]string{url.QueryEscape(c.after), c.then, mode}, "/")
}

func parseCursor(text string) (c feedCursor, err error) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 || parts[2] != "live" && parts[2] != "start" {
		return c, errNotCursor
	}
	after, err := url.QueryUnescape(parts[0])
	if err != nil {
		return c, errNotCursor
	}
	if c = (feedCursor{after, parts[1], parts[2] == "start"}); c.String() != text {
		return feedCursor{}, errNotCursor
	}
	return c, nil
}

var errNotCursor = errors.New("not a cursor of this store")

// FeedEnd sorts after every entry of feedEntry, because they begin with a
// digit. A query for entries before it finds only texts, even among foreign
// entities, so the last value of a page is always a valid position.
const FeedEnd = ":"

// ReadFeed is [store.EndFeed]'s Ends. query returns at most limit values of the
// Feed property, in their order, after a given one and before FeedEnd.
//
// The feed uses the clocks of the processes that end sessions, and each call
// repeats the ends of the last 90 seconds before the previous call. An end is
// missed if two processes' clocks differ by more than a minute, or if writing
// it takes more than half a minute. Foreign entries are skipped, because an
// error would block the feed.
func ReadFeed(cursor string, limit int, query func(after string, limit int) ([]string, error)) (store.EndPage, error) {
	now := time.Now()
	then := feedTime(now.Add(-feedOverlap))
	var at feedCursor
	switch cursor {
	case store.FeedFromNow:
		return store.EndPage{Cursor: feedCursor{after: then}.String()}, nil
	case store.FeedFromStart:
		at = feedCursor{then: then, start: true}
	default:
		var err error
		if at, err = parseCursor(cursor); err != nil {
			return store.EndPage{}, err
		}
		if at.then == "" {
			at.then = then
		}
	}
	limit = max(limit, 1)
	entries, err := query(at.after, limit)
	if err != nil {
		return store.EndPage{}, err
	}
	var page store.EndPage
	for _, e := range entries {
		end, ok := parseFeedEntry(e)
		if ok && (!at.start || !end.Until.Before(now)) {
			page.Ends = append(page.Ends, end)
		}
	}
	if page.More = len(entries) == limit; page.More {
		at.after = entries[limit-1]
		page.Cursor = at.String()
	} else {
		page.Cursor = feedCursor{after: at.then}.String()
	}
	return page, nil
}

// Projection is the part of a tombstone that ReadFeed's query reads.
type Projection struct {
	Feed string `datastore:"feed"`
}

// Feeds returns the values of a query's Projections.
func Feeds(found []Projection) []string {
	feeds := make([]string, len(found))
	for i, p := range found {
		feeds[i] = p.Feed
	}
	return feeds
}
