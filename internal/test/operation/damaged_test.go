package operation_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
)

// The undamaged parts of a long session can be read. The first change detects
// the damage: it fails, and the visitor starts a new session.
func TestASessionWithADamagedPartEndsWithItsFirstChange(t *testing.T) {
	site := sitetest.NewLab(t)
	anna := sitetest.NewGuest(t)
	long := func(i int) string { return fmt.Sprintf("long%d", i) }
	site.Do(anna, func(s *sojourn.Session) {
		s.Login("anna")
		for i := range 5 {
			s.Set(long(i), strings.Repeat("x", 2000))
		}
	})
	var id store.ID
	site.Do(anna, func(s *sojourn.Session) { id, _ = store.ParseID(s.Handle()) })
	rec, err := site.Store.Load(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	base := rec.Base()
	rec.Data = bytes.Clone(rec.Data)
	rec.Data[len(rec.Data)/2] ^= 1 // in long2
	rec.SaveIDs = []store.SaveID{7}
	if err := site.Store.Inner.Save(context.Background(), rec, base); err != nil {
		t.Fatal(err)
	}

	site.Do(anna, func(s *sojourn.Session) {
		var text string
		if err := s.Get(long(1), &text); err != nil || len(text) != 2000 || s.User() != "anna" {
			t.Errorf("a sound value: %d bytes, %v", len(text), err)
		}
		key := sojourn.NewKey[string](long(2))
		if _, err := key.Lookup(s); err == nil || !strings.Contains(err.Error(), sojourn.ErrBadValue.Error()) {
			t.Errorf("the damaged value: %v", err)
		}
		if err := s.Get(long(2), &text); err == nil {
			t.Error("the damaged value can be read")
		}
		if got := len(s.Names()); got != 5 {
			t.Errorf("%d names", got)
		}
	})
	resp := site.Serve(anna, func(w http.ResponseWriter, r *http.Request, s *sojourn.Session) { s.Set("more", 1) })
	if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusConflict {
		t.Errorf("a change was answered with %s", resp.Status)
	}
	if len(anna.Cookies) != 0 {
		t.Errorf("the browser keeps %d cookies", len(anna.Cookies))
	}
	if n := site.Stats().DamagedRecords; n != 2 { // in the request that read it, and in the one that changed it
		t.Errorf("%d damaged records", n)
	}
	site.Do(anna, func(s *sojourn.Session) {
		if !s.IsNew() {
			t.Error("the session goes on")
		}
		s.Set("more", 1)
	})
}
