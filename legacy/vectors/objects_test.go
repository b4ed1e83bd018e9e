package vectors_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/legacy/pickle"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// TestObjectsOfRealPythonsSurviveAChangeOfTheSession has every installed Python
// pickle sessions with objects of many kinds, changes another value of each
// session, and checks with the same Python that the objects are unchanged.
func TestObjectsOfRealPythonsSurviveAChangeOfTheSession(t *testing.T) {
	tested := map[string]bool{}
	for _, p := range candidates() {
		out, err := p.command("-c", "import sys; print(sys.version.split()[0])").Output()
		version := strings.TrimSpace(string(out))
		if err != nil || tested[version] || strings.HasPrefix(version, "3.6") { // that has no dataclasses
			continue
		}
		tested[version] = true
		t.Run(version, func(t *testing.T) {
			var again []map[string]any
			for _, raw := range p.run(t, "objects.py", nil) {
				var a struct {
					Name   string
					Pickle []byte
				}
				if err := json.Unmarshal(raw, &a); err != nil {
					t.Fatal(err)
				}
				v, err := pickle.Decode(a.Pickle)
				if err != nil {
					t.Errorf("%s: %v", a.Name, err)
					continue
				}
				v.(*value.Dict).Set("seen", int64(1))
				written, err := pickle.Encode(v)
				if err != nil {
					t.Errorf("%s: %v", a.Name, err)
					continue
				}
				again = append(again, map[string]any{"name": a.Name, "first": a.Pickle, "second": written})
			}
			for _, raw := range p.run(t, "objects.py", again, "--reread") {
				var a answer
				if err := json.Unmarshal(raw, &a); err != nil || a.Error != "" {
					t.Errorf("%s: %s, %v", a.Name, a.Error, err)
				}
			}
			t.Logf("%d sessions", len(again))
		})
	}
	if len(tested) == 0 {
		missing(t, "any Python")
	}
}
