package entity

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

func session(n byte) store.Record {
	now := time.UnixMilli(1_760_000_000_123).UTC()
	return store.Record{
		ID: store.ID{n}, Version: 1 << 63, SaveIDs: []store.SaveID{1 << 63, 2}, User: store.UserHash{n},
		Created: now, Seen: now.Add(time.Second), Deadline: now.Add(time.Hour), Expires: now.Add(24 * time.Hour),
		Data: []byte("sealed"),
	}
}

func TestARecordComesBackFromItsProperties(t *testing.T) {
	mark := session(2)
	mark.Ended, mark.Data = mark.Seen, nil
	for name, want := range map[string]store.Record{"a session": session(1), "a tombstone": mark, "next to nothing": {ID: store.ID{3}, Version: 1}} {
		for _, apart := range []bool{false, true} {
			got := store.Record{ID: want.ID}
			set := func(name string, value any) {
				if err := Set(&got, name, value); err != nil {
					t.Fatal(err)
				}
			}
			for _, p := range Properties(&want) {
				saveIDs, ok := p.Value.([]int64)
				var all []any
				for _, saveID := range saveIDs {
					if apart { // as the bundled datastore has them
						set(p.Name, saveID)
					}
					all = append(all, saveID)
				}
				switch {
				case !ok:
					set(p.Name, p.Value)
				case !apart:
					set(p.Name, all)
				}
			}
			set("colour", "blue") // of a newer program
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s: got %+v, want %+v", name, got, want)
			}
		}
	}
}

func TestAPropertyOfAnotherTypeIsAnError(t *testing.T) {
	for name, value := range map[string]any{
		Version: "1", SaveIDs: "a", User: "short", Created: 1, Seen: nil, Deadline: int64(7), Expires: "", Ended: 1.5, Data: "text",
	} {
		if err := Set(new(store.Record), name, value); !errors.Is(err, ErrNotRecord) {
			t.Errorf("%s of type %T: %v, want ErrNotRecord", name, value, err)
		}
	}
	if err := Set(new(store.Record), SaveIDs, []any{int64(1), "2"}); !errors.Is(err, ErrNotRecord) {
		t.Errorf("a save ID that is a text: %v, want ErrNotRecord", err)
	}
}

// A feed in memory: the results of a query for the property.
type index []string

func (x index) query(after string, limit int) ([]string, error) {
	x = slices.Sorted(slices.Values(x))
	from, _ := slices.BinarySearch(x, after)
	for from < len(x) && x[from] == after {
		from++
	}
	return x[from:min(from+limit, len(x))], nil
}

func (x *index) end(n byte, until time.Time) {
	rec := store.Record{ID: store.ID{n}, Ended: time.Now(), Deadline: until}
	for _, p := range Properties(&rec) {
		if p.Name == Feed {
			*x = append(*x, p.Value.(string))
		}
	}
}

func TestTheFeedTellsEachEndAndGoesBackAMinuteAndAHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var feed index
		hour := time.Now().Add(time.Hour)
		read := func(cursor string, want ...byte) (next string) {
			t.Helper()
			var got []byte
			for {
				page, err := ReadFeed(cursor, 2, feed.query)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range page.Ends {
					got = append(got, e.ID[0])
				}
				if cursor = page.Cursor; !page.More {
					break
				}
			}
			if slices.Sort(got); !slices.Equal(got, want) {
				t.Errorf("ends %v, want %v", got, want)
			}
			return cursor
		}
		feed.end(1, hour)
		feed.end(2, time.Now().Add(time.Minute))
		time.Sleep(2 * time.Minute)
		live := read(store.FeedFromNow)
		feed.end(3, hour)
		feed.end(4, hour)
		feed.end(5, hour)
		live = read(live, 3, 4, 5)
		time.Sleep(time.Minute)
		feed.end(6, hour)
		live = read(live, 3, 4, 5, 6) // some of it once more
		time.Sleep(time.Minute)
		feed.end(7, hour)
		live = read(live, 3, 4, 5, 6, 7) // the previous call was a minute ago
		live = read(live, 6, 7)
		read(store.FeedFromStart, 1, 3, 4, 5, 6, 7) // the tombstone of 2 has expired
		time.Sleep(time.Hour)
		read(live, 6, 7)
	})
}

func TestContentionIsRetriedWithGrowingPausesUntilTheContextIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var at []time.Duration
		begin := time.Now()
		err := Retry(ctx, func() error { at = append(at, time.Since(begin)); return errNotCursor }, func(error) bool { return true }, func() error { return nil })
		if !errors.Is(err, errNotCursor) || ctx.Err() == nil {
			t.Errorf("%v with the context's error %v, want the last attempt's after the context is over", err, ctx.Err())
		}
		for i := range len(at) - 1 {
			most := min(firstPause<<i, lastPause)
			if pause := at[i+1] - at[i]; pause < most/2 || pause > most {
				t.Errorf("pause %d is %v, want %v to %v", i+1, pause, most/2, most)
			}
		}
		if len(at) < 17 || len(at) > 28 {
			t.Errorf("%d attempts in 10 s, want one or two a second in the end", len(at))
		}
	})
}

func TestAFeedEntryOfSomebodyElseDoesNotStopTheFeed(t *testing.T) {
	now := time.Now()
	ours := feedEntry(now, store.ID{7}, now.Add(time.Hour))
	id := store.ID{1}.String()
	for _, bad := range []string{
		"/.0." + id, "..." + id, "%2F.0." + id, "0.0." + id, feedTime(now) + ".+5." + id, feedTime(now) + ".05." + id, "", "\x00", "zzz", "a/b/live", "é", "\xff",
	} {
		feed := []string{bad, ours}
		cursor, ends := store.FeedFromStart, []store.End{}
		for range len(feed) + 1 {
			page, err := ReadFeed(cursor, 1, func(after string, limit int) ([]string, error) {
				rest := feed[slices.Index(feed, after)+1:]
				if cursor == store.FeedFromStart {
					rest = feed
				}
				return rest[:min(len(rest), limit)], nil
			})
			if err != nil {
				t.Fatalf("%q: %v", bad, err)
			}
			ends = append(ends, page.Ends...)
			if cursor = page.Cursor; !page.More {
				break
			}
		}
		if len(ends) != 1 || ends[0].ID != (store.ID{7}) {
			t.Errorf("after %q the feed tells %v", bad, ends)
		}
	}
}

func FuzzReadFeed(f *testing.F) {
	now := time.UnixMilli(1_760_000_000_123)
	f.Add(feedCursor{after: feedTime(now), start: true}.String(), feedEntry(now, store.ID{1}, now))
	f.Add("//live", "1.2")
	f.Add(feedCursor{after: "/.0.x", then: feedTime(now)}.String(), "/.0."+store.ID{1}.String())
	f.Fuzz(func(t *testing.T, cursor, entry string) {
		asked := ""
		page, err := ReadFeed(cursor, 1, func(after string, _ int) ([]string, error) { asked = after; return []string{entry}, nil })
		switch {
		case err != nil && !errors.Is(err, errNotCursor):
			t.Fatal(err)
		case err != nil || cursor == store.FeedFromNow:
			return
		}
		if at, err := parseCursor(cursor); cursor != store.FeedFromStart && (err != nil || at.after != asked || at.String() != cursor) {
			t.Errorf("%q asks for what comes after %q (%v)", cursor, asked, err)
		}
		if len(page.Ends) > 1 || !page.More {
			t.Errorf("one entry made %+v", page)
		}
		for _, e := range page.Ends {
			if !strings.HasSuffix(entry, fmt.Sprintf(".%d.%s", e.Until.UnixMilli(), e.ID)) {
				t.Errorf("%q is read as %+v", entry, e)
			}
		}
		if _, err := ReadFeed(page.Cursor, 1, func(after string, _ int) ([]string, error) { asked = after; return nil, nil }); err != nil || asked != entry {
			t.Errorf("after %q it asks for what comes after %q: %v", entry, asked, err)
		}
	})
}
