package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy/cookies"
	old "github.com/sojourn-go/sojourn/legacy/value"
	"github.com/sojourn-go/sojourn/legacy/vectors"
)

// recordings are the files of sessions that were recorded from the real
// libraries.
func recordings(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("../../legacy/testdata/*.json")
	if err != nil || len(names) == 0 {
		t.Fatalf("no recorded sessions: %v", err)
	}
	for i, name := range names {
		if names[i], err = filepath.Abs(name); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// recordedCases are all of these sessions. They must not be changed.
func recordedCases(t *testing.T) []vectors.Case {
	t.Helper()
	cases, err := parsedCases()
	if err != nil {
		t.Fatal(err)
	}
	return cases
}

// parsedCases reads them once: they take long to parse.
var parsedCases = sync.OnceValues(func() (cases []vectors.Case, err error) {
	names, err := filepath.Glob("../../legacy/testdata/*.json")
	if err == nil && len(names) == 0 {
		err = errors.New("no recorded sessions")
	}
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		f, err := vectors.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		cases = append(cases, f.Cases...)
	}
	return cases, nil
})

// recorded returns the first case of that system which is as wanted.
func recorded(t *testing.T, system string, wanted func(*vectors.Case) bool) *vectors.Case {
	t.Helper()
	for _, c := range recordedCases(t) {
		if c.System == system && c.CookieHeader != nil && wanted(&c) {
			return &c
		}
	}
	t.Fatalf("there is no such case of %s", system)
	return nil
}

func valid(c *vectors.Case) bool { return c.Expect.Valid }

// jsonLines reads one JSON document from each line.
func jsonLines[T any](t *testing.T, text string) []T {
	t.Helper()
	var out []T
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, len(text)+1)
	for lines.Scan() {
		var v T
		d := json.NewDecoder(strings.NewReader(lines.Text()))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil {
			t.Fatalf("%v in %s", err, lines.Text())
		}
		out = append(out, v)
	}
	return out
}

func sameData(t *testing.T, a, b json.RawMessage) bool {
	t.Helper()
	x, err := old.ParseTagged(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := old.ParseTagged(b)
	if err != nil {
		t.Fatal(err)
	}
	return old.Equal(x, y)
}

// verdictJSON is the documented form of a line of legacy check.
type verdictJSON struct {
	Name   string          `json:"name"`
	Valid  bool            `json:"valid"`
	Data   json.RawMessage `json:"data"`
	SID    *string         `json:"sid"`
	Reason *string         `json:"reason"`
}

func TestLegacyCheckJudgesEveryRecordedSession(t *testing.T) {
	t.Parallel()
	cases := recordedCases(t)
	r := sojournCommand(t, append([]string{"legacy", "check"}, recordings(t)...)...).ok(t)
	verdicts := jsonLines[verdictJSON](t, r.stdout)
	if len(verdicts) != len(cases) {
		t.Fatalf("%d verdicts on %d cases", len(verdicts), len(cases))
	}
	for i, c := range cases {
		got, want := verdicts[i], c.Expect
		if got.Name != c.Name {
			t.Fatalf("line %d is about %s, want %s", i, got.Name, c.Name)
		}
		switch {
		case got.Valid != want.Valid && !c.Optional:
			t.Errorf("%s: got %+v", c.Name, got)
		case !got.Valid && (got.Reason == nil || string(got.Data) != "null" || got.SID != nil):
			t.Errorf("%s: refused as %+v", c.Name, got)
		case got.Valid && want.Valid && (got.Reason != nil || !sameData(t, got.Data, want.Data)):
			t.Errorf("%s: got %s, want %s", c.Name, got.Data, want.Data)
		case got.Valid && want.Valid && (got.SID == nil) != (want.SID == nil), got.SID != nil && want.SID != nil && *got.SID != *want.SID:
			t.Errorf("%s: another identifier", c.Name)
		}
	}
}

func TestRecordedSessionsMayComeOnStandardInput(t *testing.T) {
	t.Parallel()
	file := recordings(t)[0]
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"check", "write"} {
		want := sojournCommand(t, "legacy", command, file).ok(t)
		got := call{stdin: string(text)}.run(t, "legacy", command, "-").ok(t)
		if command == "check" && got.stdout != want.stdout || strings.Count(got.stdout, "\n") != strings.Count(want.stdout, "\n") {
			t.Errorf("%s says something else about standard input", command)
		}
	}
}

func TestWhatLegacyWriteWritesIsReadBackTheSame(t *testing.T) {
	t.Parallel()
	r := sojournCommand(t, append([]string{"legacy", "write"}, recordings(t)...)...).ok(t)
	written := jsonLines[vectors.Written](t, r.stdout)

	// The lines have an old application's data: check them as recordings.
	var again vectors.File
	for _, w := range written {
		if w.Error != "" {
			t.Errorf("%s: %s", w.Name, w.Error)
		}
		header := strings.Join(sentBack(w.SetCookie), "; ")
		again.Cases = append(again.Cases, vectors.Case{
			Name: w.Name, System: w.System, Config: w.Config, Now: w.Now, CookieHeader: &header, Storage: w.Storage,
		})
	}
	text, err := json.Marshal(again)
	if err != nil {
		t.Fatal(err)
	}
	verdicts := jsonLines[verdictJSON](t, call{stdin: string(text)}.run(t, "legacy", "check", "-").ok(t).stdout)

	i := 0
	for _, c := range recordedCases(t) {
		if !c.Expect.Valid || c.Pickle != nil || c.System == "gaeutilities" {
			continue // nothing is written
		}
		if i == len(verdicts) || verdicts[i].Name != c.Name {
			t.Fatalf("%s was not written", c.Name)
		}
		if !verdicts[i].Valid || !sameData(t, verdicts[i].Data, c.Expect.Data) {
			t.Errorf("%s: read back %+v", c.Name, verdicts[i])
		}
		i++
	}
	if i == 0 || i != len(verdicts) {
		t.Errorf("%d sessions were written, want %d", len(verdicts), i)
	}
}

// sentBack is the Cookie header that a browser sends after Set-Cookie fields.
func sentBack(fields []string) []string {
	var out []string
	for _, field := range fields {
		if c := cookies.Parse(http.Header{"Cookie": {field}})[0]; c.Value != "" {
			out = append(out, c.Name+"="+c.Raw)
		}
	}
	return out
}

func TestAFileThatHoldsNoRecordedSessionsIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"text":            "some notes\n",
		"empty":           "",
		"cut off":         `{"system":"webapp2-ndb","cases":[{"name":`,
		"another list":    `[{"name":"x"}]`,
		"another object":  `{"name":"x","version":1}`,
		"cases elsewhere": `{"system":"webapp2-ndb","cases":{"x":1}}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"check", "write"} {
			sojournCommand(t, "legacy", command, path).refused(t, exitFailed, path, "recorded sessions")
		}
		call{stdin: text}.run(t, "legacy", "check", "-").refused(t, exitFailed, "standard input", "recorded sessions")
	}
	missing := filepath.Join(dir, "missing.json")
	for _, command := range []string{"check", "write"} {
		sojournCommand(t, "legacy", command, missing).refused(t, exitFailed, "no such file")
		sojournCommand(t, "legacy", command, dir).refused(t, exitFailed, dir)
	}
}

func TestABadFileDoesNotKeepTheOthersFromBeingChecked(t *testing.T) {
	t.Parallel()
	good, missing := recordings(t)[0], filepath.Join(t.TempDir(), "missing.json")
	want := sojournCommand(t, "legacy", "check", good).ok(t).stdout
	r := sojournCommand(t, "legacy", "check", missing, good)
	if r.status != exitFailed || r.stdout != want || !strings.Contains(r.stderr, "file 1") || strings.Contains(r.stderr, good) {
		t.Errorf("exit status %d, %d bytes, stderr %q", r.status, len(r.stdout), r.stderr)
	}
}

// legacyFindingJSON is the documented output of legacy inspect.
type legacyFindingJSON struct {
	System  string     `json:"system"`
	Verdict string     `json:"verdict"`
	Reason  *string    `json:"reason"`
	Detail  string     `json:"detail"`
	Cookies []string   `json:"cookies"`
	Issued  *time.Time `json:"issued"`
	Expires *time.Time `json:"expires"`
	Values  []struct {
		Name string `json:"name"`
		Kind string `json:"kind"`
	} `json:"values"`
	Data json.RawMessage `json:"data"`
}

// inspectRecorded inspects a case's cookie at the case's time.
func inspectRecorded(t *testing.T, c *vectors.Case, args ...string) result {
	t.Helper()
	at := time.UnixMicro(int64(c.Now * 1e6)).UTC().Format(time.RFC3339Nano)
	args = append([]string{"legacy", "inspect", "--system", c.System, "--config", configFile(t, string(c.Config)), "--at", at}, args...)
	return call{stdin: "Cookie: " + *c.CookieHeader + "\n"}.run(t, args...)
}

func TestLegacyInspectShowsNamesAndKindsAndOnRequestValues(t *testing.T) {
	t.Parallel()
	for _, system := range []string{"webapp2-securecookie", "gae-sessions", "beaker-cookie", "gaeutilities"} {
		t.Run(system, func(t *testing.T) {
			c := recorded(t, system, func(c *vectors.Case) bool {
				return valid(c) && len(c.Storage) == 0 && strings.HasPrefix(c.Name, "ints") || strings.HasPrefix(c.Name, "cookie_writer__ints")
			})
			plain := inspectRecorded(t, c).ok(t).stdout
			values := inspectRecorded(t, c, "--values").ok(t).stdout
			var hiding, showing legacyFindingJSON
			inspectRecorded(t, c, "-json").ok(t).json(t, &hiding)
			inspectRecorded(t, c, "-json", "-values").ok(t).json(t, &showing)

			if hiding.Verdict != "valid" || hiding.System != system || hiding.Reason != nil || len(hiding.Cookies) == 0 || hiding.Data != nil {
				t.Errorf("got %+v", hiding)
			}
			if !sameData(t, showing.Data, c.Expect.Data) {
				t.Errorf("data is %s, want %s", showing.Data, c.Expect.Data)
			}
			var want map[string]json.Number
			if err := json.Unmarshal(c.Expect.Data, &want); err != nil {
				t.Fatal(err)
			}
			if len(hiding.Values) != len(want) || !strings.Contains(plain, "hidden; --values") || strings.Contains(values, "hidden") {
				t.Errorf("%d values, want %d:\n%s%s", len(hiding.Values), len(want), plain, values)
			}
			for _, v := range hiding.Values {
				number, ok := want[v.Name]
				if !ok || v.Kind != "int" || !strings.Contains(plain, v.Name) || !strings.Contains(values, number.String()) {
					t.Errorf("value %+v in\n%s%s", v, plain, values)
				}
				if len(number) > 4 && strings.Contains(plain, number.String()) {
					t.Errorf("%s is shown without --values", v.Name)
				}
			}
		})
	}
}

func TestLegacyInspectNamesEveryKind(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, c := range recordedCases(t) {
		if !c.Expect.Valid || c.CookieHeader == nil {
			continue
		}
		session, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range session.Data.All() {
			seen[legacyKind(v)] = true
		}
	}
	for _, kind := range []string{"none", "bool", "int", "float", "text", "bytes", "list", "dict", "datetime"} {
		if !seen[kind] {
			t.Errorf("no recorded value is of the kind %s", kind)
		}
	}
	for want, v := range map[string]any{
		"tuple": old.Tuple{}, "set": old.Set{}, "frozenset": old.Set{Frozen: true}, "date": old.Date{}, "time": old.Time{},
		"timedelta": old.TimeDelta{}, "decimal": old.Decimal("1"), "uuid": old.UUID{}, "complex": 1i, "object": old.Object{},
	} {
		if got := legacyKind(v); got != want {
			t.Errorf("%T is called %s, want %s", v, got, want)
		}
	}
}

func TestLegacyInspectSaysWhyACookieIsRefused(t *testing.T) {
	t.Parallel()
	genuine := recorded(t, "webapp2-securecookie", valid)
	aged := *genuine
	aged.Config = json.RawMessage(strings.TrimSuffix(strings.TrimSpace(string(genuine.Config)), "}") + `,"max_age":60}`)
	aged.Now += 3600
	forged := *genuine
	header := strings.Replace(*genuine.CookieHeader, "=", "=x", 1)
	forged.CookieHeader = &header
	missing := *genuine
	other := "theme=dark"
	missing.CookieHeader = &other
	for want, c := range map[string]*vectors.Case{"expired": &aged, "bad_signature": &forged, "missing": &missing} {
		var got legacyFindingJSON
		inspectRecorded(t, c, "-json", "--values").ok(t).json(t, &got)
		if got.Verdict != "refused" || got.Reason == nil || *got.Reason != want || len(got.Values) > 0 || got.Data != nil {
			t.Errorf("%s: got %+v", want, got)
		}
		if text := inspectRecorded(t, c).ok(t).stdout; !strings.Contains(text, "refused") || !strings.Contains(text, want) {
			t.Errorf("%s: got %s", want, text)
		}
	}
}

func TestLegacyInspectSaysThatASessionIsKeptElsewhere(t *testing.T) {
	t.Parallel()
	for _, system := range []string{"webapp2-memcache", "webapp2-ndb", "gae-sessions", "beaker-session", "gaeutilities", "diy-memcache"} {
		c := recorded(t, system, func(c *vectors.Case) bool { return valid(c) && len(c.Storage) > 0 })
		var got legacyFindingJSON
		inspectRecorded(t, c, "-json").ok(t).json(t, &got)
		if got.Verdict != "elsewhere" || got.Reason == nil || *got.Reason != "not_found" {
			t.Errorf("%s: got %+v", system, got)
		}
		if text := inspectRecorded(t, c).ok(t).stdout; !strings.Contains(text, "kept on a server") {
			t.Errorf("%s: got %s", system, text)
		}
	}
}

func TestLegacyInspectReadsFiles(t *testing.T) {
	t.Parallel()
	c := recorded(t, "gae-sessions", func(c *vectors.Case) bool { return valid(c) && len(c.Storage) == 0 && len(c.SetCookie) > 1 })
	dir := t.TempDir()
	config, cookie := filepath.Join(dir, "config.json"), filepath.Join(dir, "cookie.txt")
	var lines strings.Builder
	for _, field := range c.SetCookie {
		lines.WriteString("Set-Cookie: " + field + "\r\n")
	}
	for path, text := range map[string]string{config: string(c.Config), cookie: lines.String()} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Unix(int64(c.Now), 0).UTC().Format(time.RFC3339)
	var got legacyFindingJSON
	sojournCommand(t, "legacy", "inspect", "--system", c.System, "--config", config, "--file", cookie, "--at", at, "-json", "-values").ok(t).json(t, &got)
	if !sameData(t, got.Data, c.Expect.Data) || len(got.Cookies) != len(c.SetCookie) {
		t.Errorf("got %+v", got)
	}
	// Years later, which is now, it has expired.
	sojournCommand(t, "legacy", "inspect", "--system", c.System, "--config", config, "--file", cookie, "-json").ok(t).json(t, &got)
	if got.Verdict != "refused" || got.Reason == nil || *got.Reason != "expired" {
		t.Errorf("without --at: %+v", got)
	}
}

func TestLegacyInspectRefusesWhatIsNoConfiguration(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(`["hunter2"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ system, config, says string }{
		{"beaker-cookie", path + ".missing", "no such file"},
		{"beaker-cookie", path, path},
		{"beaker-cookie", configFile(t, `{"hunter2`), "--config"},
		{"beaker-cookie", configFile(t, `{"options":{"type":"hunter2"`), "--config"},
		{"webapp2-ndb", configFile(t, `{}`), "no Secret"},
		{"webapp2-ndb", configFile(t, `{"secret":["hunter2"]}`), "configuration"},
		{"webapp2-ndb", configFile(t, `{"secret_base64":"hunter2"}`), "configuration"},
		{"gae-sessions", configFile(t, `{"secret":"hunter2"}`), "32 bytes"},
	} {
		r := call{stdin: "a=b"}.run(t, "legacy", "inspect", "--system", tt.system, "--config", tt.config)
		r.refused(t, exitFailed, tt.says)
		if strings.Contains(r.stderr, "hunter2") {
			t.Errorf("%s: the error repeats a secret: %q", tt.config, r.stderr)
		}
	}
}

func TestLegacyInspectPrintsNoSecretAndNoIdentifier(t *testing.T) {
	t.Parallel()
	type class struct{ system, reason string }
	done := map[class]bool{}
	for _, c := range recordedCases(t) {
		if c.Pickle != nil || c.CookieHeader == nil || *c.CookieHeader == "" {
			continue
		}
		is := class{system: c.System}
		if c.Expect.Reason != nil {
			is.reason = string(*c.Expect.Reason)
		}
		if done[is] {
			continue // one of each class will do
		}
		done[is] = true
		r := inspectRecorded(t, &c).ok(t)
		j := inspectRecorded(t, &c, "-json").ok(t)
		for _, secret := range secretsOf(t, &c) {
			if strings.Contains(r.stdout, secret) || strings.Contains(j.stdout, secret) {
				t.Errorf("%s %s: %q is printed in %s%s", c.System, c.Name, secret, r.stdout, j.stdout)
			}
		}
	}
	if len(done) < 20 {
		t.Errorf("only %d classes of cases", len(done))
	}
}

// secretsOf returns the secrets: keys, cookie values, identifiers.
func secretsOf(t *testing.T, c *vectors.Case) []string {
	t.Helper()
	var out []string
	if c.Expect.SID != nil {
		out = append(out, *c.Expect.SID)
	}
	for _, cookie := range cookies.Parse(http.Header{"Cookie": {*c.CookieHeader}}) {
		out = append(out, cookie.Value, cookie.Raw)
	}
	var config any
	if err := json.Unmarshal(c.Config, &config); err != nil {
		t.Fatal(err)
	}
	var walk func(name string, v any)
	walk = func(name string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for key, member := range v {
				walk(key, member)
			}
		case string:
			if slices.Contains([]string{"secret", "secret_base64", "validate_key", "encrypt_key"}, name) {
				out = append(out, v)
			}
		}
	}
	walk("", config)
	// Short ones occur in other words.
	return slices.DeleteFunc(out, func(s string) bool { return len(s) < 6 })
}
