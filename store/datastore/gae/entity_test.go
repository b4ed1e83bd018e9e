package gae_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/datastore/gae"
	"github.com/sojourn-go/sojourn/store/datastore/internal/suite"
)

// The entities as the Datastore API shows them, which is what package
// cloud reads and writes.
func testEntitiesAreThoseOfCloudDatastore(t *testing.T, emulator *servers.Server) {
	s := open(t, gae.Options{})
	rec := suite.Session(1)
	rec.User = store.UserHash{1}
	rec.SaveIDs = append(rec.SaveIDs, 1<<63)
	mark := suite.Next(suite.Session(2))
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

	suite.Save(t, s, rec, store.Base{})
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

	suite.Save(t, s, mark, store.Base{})
	if feed := lookUp(mark.ID)["feed"]; feed == nil {
		t.Errorf("the tombstone has no place in the feed")
	}

	// And the other way round.
	two := suite.Session(3)
	two.User, two.SaveIDs = rec.User, rec.SaveIDs
	api("commit", object{"mode": "NON_TRANSACTIONAL", "mutations": []object{{"insert": object{"key": key(two.ID), "properties": want}}}})
	suite.Holds(t, s, two)
	if recs, err := s.ByUser(t.Context(), rec.User); err != nil || len(recs) != 2 {
		t.Errorf("ByUser: %d sessions, %v; want 2", len(recs), err)
	}
	suite.Save(t, s, suite.Next(two), two.Base())
}
