package main

import (
	"net/http"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// TestALinkedSessionThatWasCopiedEndsWithItsProvider: the notes of links are copied.
func TestALinkedSessionThatWasCopiedEndsWithItsProvider(t *testing.T) {
	t.Parallel()
	const issuer = "https://login.example"
	m := newMove(t)
	keys := sitetest.Keys(t)
	before := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Keys: keys, Store: m.from}))
	logIn := func(sid string) func(*sojourn.Session) {
		return func(s *sojourn.Session) { s.Link(issuer, sid); s.Login("ada") }
	}
	browser := sitetest.NewBrowser()
	if a := browser.Visit(before, logIn("1")); a.Status != http.StatusOK {
		t.Fatalf("login: %d %s", a.Status, a.Body)
	}
	if _, err := before.Manager.RevokeLinked(t.Context(), issuer, "2"); err != nil {
		t.Fatal(err)
	}
	m.copies(t)
	if again := m.copies(t); again.Inserted+again.Ended > 0 {
		t.Errorf("a second pass copies it again: %+v", again)
	}

	after := sitetest.Serve(t, sitetest.Manager(t, sojourn.Config{Keys: keys, Store: m.to}))
	browser.Visit(after, func(s *sojourn.Session) {
		if s.User() != "ada" {
			t.Error("the session was not copied")
		}
	})
	if n, err := after.Manager.RevokeLinked(t.Context(), issuer, "1"); n != 1 || err != nil {
		t.Errorf("RevokeLinked: %d sessions, %v", n, err)
	}
	browser.Visit(after, func(s *sojourn.Session) {
		if s.User() != "" {
			t.Error("the session has outlived its provider's")
		}
	})
	if a := sitetest.NewBrowser().Visit(after, logIn("2")); a.Status != http.StatusConflict {
		t.Errorf("a login after its provider's logout got %d", a.Status)
	}
}
