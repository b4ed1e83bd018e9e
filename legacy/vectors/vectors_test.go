package vectors_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/gaesessions"
	"github.com/sojourn-go/sojourn/legacy/gaeutilities"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
	"github.com/sojourn-go/sojourn/legacy/vectors"
)

func recordedFiles(t testing.TB) map[string]*vectors.File {
	t.Helper()
	names, err := filepath.Glob("../testdata/*.json")
	if err != nil || len(names) != 9 {
		t.Fatalf("%d files of recorded sessions, want 9: %v", len(names), err)
	}
	files := map[string]*vectors.File{}
	for _, name := range names {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := vectors.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(name)] = f
	}
	return files
}

// sameReason reports whether a refusal is of the recorded kind. Some kinds are
// indistinguishable: for example, a wrong key of an unauthenticated cipher
// looks like damaged data.
func sameReason(system string, want, got reason.Reason) bool {
	either := func(a, b reason.Reason) bool {
		return (want == a || want == b) && (got == a || got == b)
	}
	switch {
	case want == got:
		return true
	case either(reason.Decrypt, reason.Decode):
		return system == "beaker-cookie" || system == "beaker-session"
	case either(reason.Malformed, reason.BadSignature):
		return system == "gae-sessions"
	case either(reason.NotFound, reason.BadToken):
		return system == "gaeutilities"
	}
	return false
}

func TestEveryRecordedSessionGivesItsDataOrIsRefusedForItsReason(t *testing.T) {
	for name, file := range recordedFiles(t) {
		for _, c := range file.Cases {
			t.Run(name+"/"+c.Name, func(t *testing.T) {
				got := c.Check(context.Background())
				if !c.Expect.Valid {
					if got.Valid {
						if !c.Optional {
							t.Fatalf("accepted as %s, want %s", got.Data, *c.Expect.Reason)
						}
						return
					}
					if !sameReason(c.System, *c.Expect.Reason, reason.Reason(*got.Reason)) {
						t.Errorf("refused with %s, want %s", *got.Reason, *c.Expect.Reason)
					}
					return
				}
				if !got.Valid {
					if !c.Optional {
						t.Fatalf("refused with %s", *got.Reason)
					}
					return
				}
				if !equalTagged(t, got.Data, c.Expect.Data) {
					t.Errorf("data is\n%s, want\n%s", got.Data, c.Expect.Data)
				}
				switch want := c.Expect.SID; {
				case want == nil && got.SID != nil:
					t.Errorf("identifier %q, want none", *got.SID)
				case want != nil && (got.SID == nil || *got.SID != *want):
					t.Errorf("identifier %v, want %q", got.SID, *want)
				}
			})
		}
	}
	pwned, err := filepath.Glob(filepath.Join(os.TempDir(), "vec_pwned_*"))
	if err != nil || len(pwned) != 0 {
		t.Errorf("a hostile pickle was executed: %v %v", pwned, err)
	}
}

func equalTagged(t *testing.T, a, b []byte) bool {
	t.Helper()
	x, err := value.ParseTagged(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := value.ParseTagged(b)
	if err != nil {
		t.Fatal(err)
	}
	return value.Equal(x, y)
}

func TestWhatIsWrittenIsReadBackTheSame(t *testing.T) {
	ctx := context.Background()
	for name, file := range recordedFiles(t) {
		for _, c := range file.Cases {
			before, err := c.Read(ctx)
			if c.Pickle != nil || err != nil {
				continue
			}
			t.Run(name+"/"+c.Name, func(t *testing.T) {
				written, err := c.Rewrite(ctx)
				if errors.Is(err, vectors.ErrNotShared) {
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				again := c
				if len(written.SetCookie) > 0 {
					header := legacytest.Header(written.SetCookie...).Get("Cookie")
					again.CookieHeader = &header
				}
				again.Storage = written.Storage
				after, err := again.Read(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if !value.Equal(before.Data, after.Data) {
					t.Errorf("read back %s, want %s", value.MarshalTagged(after.Data), value.MarshalTagged(before.Data))
				}
				if before.ID != after.ID {
					t.Errorf("identifier changed from %q to %q", before.ID, after.ID)
				}
			})
		}
	}
}

func TestRecordedDetailsAreFound(t *testing.T) {
	for name, file := range recordedFiles(t) {
		for _, c := range file.Cases {
			if !c.Expect.Valid || c.Pickle != nil {
				continue
			}
			t.Run(name+"/"+c.Name, func(t *testing.T) {
				s, err := c.Read(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				if want := c.Expect.Expires; want != nil && *want != 0 && s.Expires.Unix() != *want || want != nil && *want == 0 && !s.Expires.IsZero() {
					t.Errorf("expires %v, want %d", s.Expires, *want)
				}
				if len(s.Cookies) == 0 || len(s.Credential) == 0 {
					t.Error("no cookies or no credential")
				}
				tagged := func(what string, got any, want json.RawMessage) {
					if want != nil && !equalTagged(t, value.MarshalTagged(got), want) {
						t.Errorf("%s is %s, want %s", what, value.MarshalTagged(got), want)
					}
				}
				switch d := s.Detail.(type) {
				case *beaker.Detail:
					want, err := value.ParseTagged(c.Expect.Meta)
					if err != nil {
						t.Fatal(err)
					}
					// Old Beakers do not store these two; new ones show defaults.
					got := d.Meta.Clone()
					for _, m := range []*value.Dict{got, want.(*value.Dict)} {
						if m.Get("_domain") == nil && (m.Get("_path") == nil || m.Get("_path") == "/") {
							m.Delete("_domain")
							m.Delete("_path")
						}
					}
					if !value.Equal(got, want) {
						t.Errorf("meta is %s, want %s", value.MarshalTagged(d.Meta), c.Expect.Meta)
					}
				case *gaesessions.Detail:
					if d.SSLOnly != *c.Expect.SSLOnly {
						t.Errorf("ssl-only is %v", d.SSLOnly)
					}
				case *gaeutilities.Detail:
					tagged("flash", d.Flash, c.Expect.Flash)
					tagged("data from the cookie", d.FromCookie, c.Expect.CookieData)
					if want := c.Expect.SessionKey; want != nil && d.Key.Encode() != *want {
						t.Errorf("session key %s, want %s", d.Key.Encode(), *want)
					}
					if want := c.Expect.Rotated; want != nil && d.RotationDue != *want {
						t.Errorf("rotation due: %v", d.RotationDue)
					}
					if want := c.Expect.TokensAfter; want != nil && !slices.Equal(d.Tokens, want) {
						t.Errorf("tokens %v, want %v", d.Tokens, want)
					}
				}
			})
		}
	}
}

func TestChecksAndRewritesAreLinesOfJSON(t *testing.T) {
	ctx := context.Background()
	raw, err := os.ReadFile("../testdata/webapp2_ndb.json")
	if err != nil {
		t.Fatal(err)
	}
	file, err := vectors.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	var checks, rewrites bytes.Buffer
	if err := vectors.Check(ctx, raw, &checks); err != nil {
		t.Fatal(err)
	}
	if err := vectors.Rewrite(ctx, raw, &rewrites); err != nil {
		t.Fatal(err)
	}
	valid := 0
	lines := strings.Split(strings.TrimSpace(checks.String()), "\n")
	for i, c := range file.Cases {
		var line map[string]any
		if err := json.Unmarshal([]byte(lines[i]), &line); err != nil {
			t.Fatal(err)
		}
		for _, field := range []string{"name", "valid", "data", "sid", "reason"} {
			if _, ok := line[field]; !ok {
				t.Errorf("%s has no %q", lines[i], field)
			}
		}
		if line["name"] != c.Name || len(line) != 5 {
			t.Errorf("line %d is %s", i, lines[i])
		}
		if c.Expect.Valid {
			valid++
		}
	}
	lines = strings.Split(strings.TrimSpace(rewrites.String()), "\n")
	if len(lines) != valid {
		t.Errorf("%d rewrites of %d valid cases", len(lines), valid)
	}
	for _, line := range lines {
		var w vectors.Written
		if err := json.Unmarshal([]byte(line), &w); err != nil || w.Error != "" || len(w.SetCookie) != 1 || len(w.Storage) != 2 {
			t.Errorf("%s: %v", line, err)
		}
	}
	for _, other := range []string{"no JSON", "[]", "{}", `{"system":"webapp2-ndb"}`} {
		if err := vectors.Check(ctx, []byte(other), &checks); err == nil {
			t.Errorf("a file of %s was checked", other)
		}
	}
	unknown := []byte(`{"system":"other","cases":[{"name":"x","expect":{"valid":true}}]}`)
	checks.Reset()
	rewrites.Reset()
	if err := vectors.Check(ctx, unknown, &checks); err != nil || !strings.Contains(checks.String(), "unknown system") {
		t.Errorf("%s, %v", checks.String(), err)
	}
	if err := vectors.Rewrite(ctx, unknown, &rewrites); err != nil || !strings.Contains(rewrites.String(), "unknown system") {
		t.Errorf("%s, %v", rewrites.String(), err)
	}
}
