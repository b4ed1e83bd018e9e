package entity

import (
	"os/exec"
	"strings"
	"testing"
)

// An application compiles only the client library of the store that it uses.
func TestEachStoreBringsItsOwnClientLibraryAlone(t *testing.T) {
	const here = "github.com/sojourn-go/sojourn/store/datastore/"
	for store, other := range map[string]string{
		"internal/entity": "google",
		"cloud":           "google.golang.org/appengine",
		"gae":             "cloud.google.com/go",
	} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", here+store).Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		deps := strings.Fields(string(out))
		if len(deps) < 10 {
			t.Fatalf("%s: go list found %d packages", store, len(deps))
		}
		for _, dep := range deps {
			if strings.HasPrefix(dep, other) {
				t.Errorf("%s imports %s", store, dep)
			}
		}
	}
}
