package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

// The tour is its own test: it fails at the first page that does not show what the
// visitor should see.
func TestTheWholeMove(t *testing.T) {
	for _, kind := range []string{oldRecorded, oldBeaker, oldWebapp2} {
		t.Run(kind, func(t *testing.T) {
			var story bytes.Buffer
			err := tourInTemporaryFolder(kind, &story)
			switch {
			case errors.Is(err, errMissing) && os.Getenv("REQUIRE_LEGACY_PYTHON") != "1":
				t.Logf("NOT TESTED: side by side with the real %s: %v", kind, err)
			case err != nil:
				t.Errorf("%v, after\n%s", err, story.String())
			case !strings.Contains(story.String(), "The move is over."):
				t.Errorf("the story has no end:\n%s", story.String())
			}
		})
	}
}

func openRecorded(t *testing.T) *shop {
	t.Helper()
	s, err := openShop(oldRecorded, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestTheSwitchboardMovesPagesAndPhasesInOrder(t *testing.T) {
	board := openRecorded(t).front.admin()
	ask := func(method, path string) (int, status) {
		w := httptest.NewRecorder()
		board.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		var s status
		if w.Code == http.StatusOK {
			if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
				t.Fatal(err)
			}
		}
		return w.Code, s
	}
	for _, step := range []struct {
		path string
		want int
	}{
		{"/phase?to=adopt", http.StatusConflict}, // the old shop still answers pages
		{"/phase?to=alone", http.StatusConflict},
		{"/route?path=/nowhere&to=new", http.StatusConflict},
		{"/route?path=/cart&to=elsewhere", http.StatusBadRequest},
		{"/route?path=/cart&to=new", http.StatusOK},
		{"/route?path=/cart&to=old", http.StatusOK},
		{"/route?path=/cart&to=new", http.StatusOK},
		{"/route?path=/login&to=new", http.StatusOK},
		{"/route?path=/logout&to=new", http.StatusOK},
		{"/route?path=/&to=new", http.StatusOK},
		{"/phase?to=adopt", http.StatusOK},
		{"/route?path=/cart&to=old", http.StatusConflict}, // the old shop does not know the new sessions
		{"/phase?to=alone", http.StatusOK},
	} {
		if got, _ := ask(http.MethodPost, step.path); got != step.want {
			t.Errorf("POST %s: status %d, want %d", step.path, got, step.want)
		}
	}
	_, s := ask(http.MethodGet, "/")
	if s.Phase != alone || s.OldApp != "stopped" || s.Routes["/cart"] != "new" || s.Left == nil || *s.Left != 3 {
		t.Errorf("status %+v", s)
	}
}

func TestAnOldPageWithoutTheOldShopSaysSo(t *testing.T) {
	w := httptest.NewRecorder()
	openRecorded(t).site.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/cart", nil))
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "no Python") {
		t.Errorf("status %d, %s", w.Code, w.Body)
	}
}

func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	r := httptest.NewRequest(http.MethodPost, "/logout", nil)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	w := httptest.NewRecorder()
	openRecorded(t).site.ServeHTTP(w, r)
	if w.Code != http.StatusForbidden {
		t.Errorf("status %d", w.Code)
	}
}

func TestMistakesOnTheCommandLineHaveTheirStatus(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"-h"}, 0},
		{[]string{"-no-such-flag"}, 2},
		{[]string{"argument"}, 2},
		{[]string{"-tour", "-old", "cobol"}, 1},
	} {
		var out, messages bytes.Buffer
		if got := run(t.Context(), c.args, &out, &messages); got != c.want {
			t.Errorf("%v: status %d, want %d: %s", c.args, got, c.want, messages.String())
		}
	}
}
