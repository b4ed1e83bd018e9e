package main

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// Sessions of a user, with one probe. Several at once are in identity_test.go.

func TestSessionsListsAUsersSessionsAndNobodyElses(t *testing.T) {
	t.Parallel()
	base := startInside(t, "-insecure")
	before := time.Now().Add(-time.Second)
	laptop, phone := newBrowser(t, base), newBrowser(t, base)
	one, two := laptop.mustPost("/login?user=ada").Handle, phone.mustPost("/login?user=ada").Handle
	newBrowser(t, base).mustPost("/login?user=bob")
	newBrowser(t, base).mustPost("/set-serverside?key=k&value=v")

	r := laptop.get("/sessions?user=ada")
	if len(r.Sessions) != 2 {
		t.Fatalf("got %s", r.Body)
	}
	for _, d := range r.Sessions {
		if d.Handle != one && d.Handle != two || d.Current != (d.Handle == one) {
			t.Errorf("to the first of %s and %s: %+v", one, two, d)
		}
		if d.UserAgent != "Go-http-client/1.1" || d.IP != "127.0.0.1" || d.Created.Before(before) || d.LastSeen.Before(before) {
			t.Errorf("incomplete: %+v", d)
		}
	}
	if got := laptop.handles("nobody"); len(got) != 0 {
		t.Errorf("a user who never came has %v", got)
	}
	if r := newBrowser(t, base).get("/sessions?user=ada"); r.Header["Set-Cookie"] != nil || len(r.Sessions) != 2 {
		t.Errorf("somebody without a session gets cookies %v and %s", r.Header["Set-Cookie"], r.Body)
	}
}

func TestRevokeEndsOneSessionOfThatUserOnly(t *testing.T) {
	t.Parallel()
	base := startInside(t, "-insecure")
	laptop, phone := newBrowser(t, base), newBrowser(t, base)
	laptop.mustPost("/login?user=ada")
	lost := phone.mustPost("/login?user=ada").Handle

	for _, path := range []string{"/revoke?user=bob&handle=" + lost, "/revoke?user=ada&handle=nonsense"} {
		if r := laptop.post(path); r.Status != http.StatusOK || r.Revoked != 0 {
			t.Errorf("POST %s: %d %s", path, r.Status, r.Body)
		}
	}
	if r := phone.get("/info"); r.User != "ada" {
		t.Fatalf("then the phone has %s", r.Body)
	}
	if r := laptop.mustPost("/revoke?user=ada&handle=" + lost); r.Revoked != 1 {
		t.Errorf("got %s", r.Body)
	}
	if r := phone.get("/info"); r.User != "" || r.Placement != "none" {
		t.Errorf("the phone still has %s", r.Body)
	}
	if r := laptop.get("/info"); r.User != "ada" {
		t.Errorf("the laptop has %s", r.Body)
	}
	if r := laptop.mustPost("/revoke?user=ada&handle=" + lost); r.Revoked != 0 {
		t.Errorf("ended twice: %s", r.Body)
	}
}

func TestRevokeUserEndsAllSessionsButThoseToKeep(t *testing.T) {
	t.Parallel()
	base := startInside(t, "-insecure")
	var browsers []*browser
	var handles []string
	for range 4 {
		b := newBrowser(t, base)
		browsers, handles = append(browsers, b), append(handles, b.mustPost("/login?user=ada").Handle)
	}
	if r := browsers[0].mustPost("/revoke-user?user=ada&keep=" + handles[0] + "&keep=" + handles[1]); r.Revoked != 2 {
		t.Errorf("got %s", r.Body)
	}
	left := browsers[0].handles("ada")
	slices.Sort(left)
	if want := slices.Sorted(slices.Values(handles[:2])); !slices.Equal(left, want) {
		t.Errorf("%v are left, want %v", left, want)
	}
	if r := browsers[0].mustPost("/revoke-user?user=ada"); r.Revoked != 2 {
		t.Errorf("without keep, his own included: %s", r.Body)
	}
	for i, b := range browsers {
		if r := b.get("/info"); r.User != "" {
			t.Errorf("browser %d still has %s", i, r.Body)
		}
	}
}

func TestALoginBeyondTheCapEndsTheOldestSession(t *testing.T) {
	t.Parallel()
	base := startInside(t, "-insecure", "-max-per-user", "2")
	oldest, second, third := newBrowser(t, base), newBrowser(t, base), newBrowser(t, base)
	for _, b := range []*browser{oldest, second, third} {
		b.mustPost("/login?user=ada")
	}
	if r := oldest.get("/info"); r.User != "" {
		t.Errorf("the oldest still has %s", r.Body)
	}
	for _, b := range []*browser{second, third} {
		if r := b.get("/info"); r.User != "ada" {
			t.Errorf("one of the newest two has %s", r.Body)
		}
	}
}

func TestWithoutAnIndexByUserSessionsAreNotListed(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure", "-store", "none"))
	b.mustPost("/login?user=ada")
	for _, r := range []client.Answer{b.get("/sessions?user=ada"), b.post("/revoke-user?user=ada")} {
		if r.Status != http.StatusInternalServerError || r.Error == "" {
			t.Errorf("got %d %s", r.Status, r.Body)
		}
	}
}
