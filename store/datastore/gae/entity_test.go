package gae_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/appengine/v2"
	"google.golang.org/appengine/v2/datastore"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/gae"
)

func testEntities(t *testing.T, _ *servers.Server) {
	at := func(namespace string, id store.ID) (s inRequest, load func(any) error, put func(any) error) {
		s = open(t, gae.Options{Kind: "S", Namespace: namespace})
		ctx, err := appengine.Namespace(s.in(t.Context()), namespace)
		if err != nil {
			t.Fatal(err)
		}
		key := datastore.NewKey(ctx, "S", id.String(), 0, nil)
		load = func(dst any) error { return datastore.Get(ctx, key, dst) }
		put = func(src any) error { _, err := datastore.Put(ctx, key, src); return err }
		return s, load, put
	}

	t.Run("the largest is kept and a larger one refused", func(t *testing.T) {
		s := open(t, gae.Options{Kind: strings.Repeat("k", 100), Namespace: strings.Repeat("n", 100)})
		rec := session(1)
		rec.Version, rec.User = 1<<62, store.UserHash{1}
		for range store.RecentSaveIDs - 1 {
			rec.SaveIDs = append(rec.SaveIDs, 1<<63)
		}
		rec.Data = make([]byte, 1<<20-4-512-200)
		save(t, s, rec, store.Base{})
		larger := next(rec)
		larger.Data = append(larger.Data, 0)
		if err := s.Save(t.Context(), larger, rec.Base()); !errors.Is(err, store.ErrTooLarge) {
			t.Errorf("Save of one byte more: %v, want ErrTooLarge", err)
		}
		holds(t, s, rec)
	})

	t.Run("only what is queried is indexed", func(t *testing.T) {
		rec := session(2)
		rec.User = store.UserHash{1}
		mark := next(rec)
		mark.Ended, mark.Data = mark.Seen, nil
		for _, c := range []struct {
			name string
			rec  store.Record
			want []string
		}{
			{"a-session", rec, []string{"deadline", "user"}},
			{"a-tombstone", mark, []string{"deadline", "feed"}},
		} {
			s, load, _ := at(c.name, c.rec.ID)
			save(t, s, c.rec, store.Base{})
			var props datastore.PropertyList
			if err := load(&props); err != nil {
				t.Fatal(err)
			}
			var indexed []string
			for _, p := range props {
				if !p.NoIndex {
					indexed = append(indexed, p.Name)
				}
			}
			slices.Sort(indexed)
			if !slices.Equal(indexed, c.want) {
				t.Errorf("%s: indexed are %v, want %v", c.name, indexed, c.want)
			}
		}
	})

	t.Run("one that is not a record is an error", func(t *testing.T) {
		rec := session(3)
		s, _, put := at("foreign", rec.ID)
		for name, value := range map[string]any{"version": "1", "save_ids": "a", "user": "short", "deadline": int64(7), "data": "text"} {
			if err := put(&datastore.PropertyList{{Name: name, Value: value}}); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Load(t.Context(), rec.ID); err == nil || errors.Is(err, store.ErrNotFound) {
				t.Errorf("Load of an entity whose %s is %T: %v, want an error", name, value, err)
			}
		}
	})

	t.Run("what a newer program added is no trouble", func(t *testing.T) {
		rec := session(4)
		s, load, put := at("newer", rec.ID)
		save(t, s, rec, store.Base{})
		var props datastore.PropertyList
		if err := load(&props); err != nil {
			t.Fatal(err)
		}
		props = append(props, datastore.Property{Name: "colour", Value: "blue"})
		if err := put(&props); err != nil {
			t.Fatal(err)
		}
		holds(t, s, rec)
	})

	t.Run("a sweep leaves users whose sessions are not over", func(t *testing.T) {
		s := open(t, gae.Options{Kind: "S", Namespace: "users"})
		ctx, err := appengine.Namespace(s.in(t.Context()), "users")
		if err != nil {
			t.Fatal(err)
		}
		for i, expires := range []time.Duration{-3 * time.Hour, 3 * time.Hour} {
			rec := session(byte(i))
			rec.User = store.UserHash{byte(i + 1)}
			rec.Deadline, rec.Expires = time.Now().Add(expires), time.Now().Add(expires)
			if _, err := s.SaveLimited(t.Context(), rec, store.UserLimit{Max: 1}); err != nil {
				t.Fatal(err)
			}
		}
		sweep(t, s, 10, 1)
		if n, err := datastore.NewQuery("SUser").Count(ctx); err != nil || n != 1 {
			t.Errorf("%d users are left, %v; want 1", n, err)
		}
	})
}

// The entities as the Datastore API shows them, which is what package
// cloud reads and writes.
func testEntitiesAreThoseOfCloudDatastore(t *testing.T, emulator *servers.Server) {
	s := open(t, gae.Options{})
	rec := session(1)
	rec.User = store.UserHash{1}
	rec.SaveIDs = append(rec.SaveIDs, 1<<63)
	mark := next(session(2))
	mark.Ended, mark.Data = mark.Seen, nil

	// api calls a method of the Datastore API with that request.
	api := func(method string, request any) []byte {
		t.Helper()
		body, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://%s/v1/projects/%s:%s", emulator.Addr, project, method), bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v\n%s", method, resp.Status, err, answer)
		}
		return answer
	}
	type object = map[string]any
	key := func(id store.ID) object {
		return object{"partitionId": object{"projectId": project}, "path": []object{{"kind": "SojournSession", "name": id.String()}}}
	}
	lookUp := func(id store.ID) (properties object) {
		t.Helper()
		var found struct {
			Found []struct{ Entity struct{ Properties object } }
		}
		if err := json.Unmarshal(api("lookup", object{"keys": []object{key(id)}}), &found); err != nil || len(found.Found) != 1 {
			t.Fatalf("the Datastore API has %d entities, %v; want 1", len(found.Found), err)
		}
		return found.Found[0].Entity.Properties
	}
	stamp := func(at time.Time) string { return at.Format(time.RFC3339) }
	unindexed := func(kind string, value any) object { return object{kind: value, "excludeFromIndexes": true} }
	saveID := func(n store.SaveID) object { return unindexed("integerValue", fmt.Sprint(int64(n))) }

	save(t, s, rec, store.Base{})
	want := object{
		"version":  unindexed("integerValue", "1"),
		"save_ids": object{"arrayValue": object{"values": []object{saveID(rec.SaveIDs[0]), saveID(rec.SaveIDs[1])}}},
		"user":     object{"stringValue": store.ID(rec.User).String()},
		"created":  unindexed("timestampValue", stamp(rec.Created)),
		"seen":     unindexed("timestampValue", stamp(rec.Seen)),
		"expires":  unindexed("timestampValue", stamp(rec.Expires)),
		"deadline": object{"timestampValue": stamp(rec.Deadline)},
		"data":     unindexed("blobValue", rec.Data),
	}
	got, err := json.Marshal(lookUp(rec.ID))
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, wanted) {
		t.Errorf("the Datastore API shows\n%s, want\n%s", got, wanted)
	}

	save(t, s, mark, store.Base{})
	if feed := lookUp(mark.ID)["feed"]; feed == nil {
		t.Errorf("the tombstone has no place in the feed")
	}

	// And the other way round.
	two := session(3)
	two.User, two.SaveIDs = rec.User, rec.SaveIDs
	api("commit", object{"mode": "NON_TRANSACTIONAL", "mutations": []object{{"insert": object{"key": key(two.ID), "properties": want}}}})
	holds(t, s, two)
	if recs, err := s.ByUser(t.Context(), rec.User); err != nil || len(recs) != 2 {
		t.Errorf("ByUser: %d sessions, %v; want 2", len(recs), err)
	}
	save(t, s, next(two), two.Base())
}

func TestNewRefusesNamesThatTheDatastoreWould(t *testing.T) {
	for _, o := range []gae.Options{
		{Kind: "__reserved__"},
		{Kind: "a/b"},
		{Kind: strings.Repeat("k", 101)},
		{Namespace: "__reserved__"},
		{Namespace: "ä"},
		{Namespace: strings.Repeat("n", 101)},
	} {
		if _, err := gae.New(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}
