package vectors_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/pickle"
	"github.com/sojourn-go/sojourn/legacy/value"
	"github.com/sojourn-go/sojourn/legacy/vectors"
)

// These tests pass the writers' results to the real Python libraries. They need
// interpreters with these libraries; LEGACY_PYTHON lists further interpreters
// (separated as in PATH). With REQUIRE_LEGACY_PYTHON=1 a missing one is a
// failure.

// python is an interpreter and the environment it needs.
type python struct {
	path string
	env  []string
}

// candidates are the interpreters to try.
func candidates() []python {
	var out []python
	seen := map[string]bool{}
	add := func(path string) {
		if path != "" && !seen[path] {
			seen[path] = true
			out = append(out, python{path: path})
		}
	}
	for _, path := range filepath.SplitList(os.Getenv("LEGACY_PYTHON")) {
		add(path)
	}
	for _, name := range []string{"python3", "/usr/bin/python3", "python2.7", "python2"} {
		if path, err := exec.LookPath(name); err == nil {
			add(path)
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		found, _ := filepath.Glob(filepath.Join(home, ".pyenv/versions/*/bin/python"))
		for _, path := range found {
			add(path)
		}
	}
	return out
}

// cloudSDK returns the folder of the Google Cloud SDK, or "".
func cloudSDK() string {
	if root := os.Getenv("CLOUDSDK_ROOT"); root != "" {
		return root
	}
	gcloud, err := exec.LookPath("gcloud")
	if err != nil {
		return ""
	}
	if gcloud, err = filepath.EvalSymlinks(gcloud); err != nil {
		return ""
	}
	return filepath.Dir(filepath.Dir(gcloud))
}

func (p python) command(args ...string) *exec.Cmd {
	cmd := exec.Command(p.path, args...)
	cmd.Env = append(os.Environ(), append(p.env, "PYTHONDONTWRITEBYTECODE=1", "PYTHONWARNINGS=ignore")...)
	return cmd
}

// can reports whether the interpreter runs these statements.
func (p python) can(statements string) bool { return p.command("-c", statements).Run() == nil }

// find returns the first interpreter that runs the statements. If there is
// none, it logs what was not tested.
func find(t *testing.T, what, statements string) python {
	t.Helper()
	for _, p := range candidates() {
		if p.can(statements) {
			return p
		}
	}
	missing(t, what)
	return python{}
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("REQUIRE_LEGACY_PYTHON") == "1" {
		t.Fatalf("%s is missing, and REQUIRE_LEGACY_PYTHON=1", what)
	}
	t.Logf("NOT TESTED: %s is missing on this machine", what)
}

// run feeds JSON lines to a script and returns its answers as JSON lines.
func (p python) run(t *testing.T, script string, cases []map[string]any, args ...string) []json.RawMessage {
	t.Helper()
	var in bytes.Buffer
	for _, c := range cases {
		if err := json.NewEncoder(&in).Encode(c); err != nil {
			t.Fatal(err)
		}
	}
	cmd := p.command(append([]string{filepath.Join("../testdata/python", script)}, args...)...)
	cmd.Stdin = &in
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", p.path, script, err, stderr.String())
	}
	var answers []json.RawMessage
	for line := range bytes.Lines(out) {
		answers = append(answers, line)
	}
	return answers
}

// answer is Python's result for one case.
type answer struct {
	Name  string          `json:"name"`
	Data  json.RawMessage `json:"data"`
	Error string          `json:"error"`
}

// compare checks Python's answers against what was written.
func compare(t *testing.T, answers []json.RawMessage, want map[string][]byte) {
	t.Helper()
	seen := 0
	for _, raw := range answers {
		var a answer
		if err := json.Unmarshal(raw, &a); err != nil {
			t.Fatal(err)
		}
		seen++
		if a.Error != "" {
			t.Errorf("%s: Python refuses: %s", a.Name, a.Error)
			continue
		}
		if !equalTagged(t, a.Data, want[a.Name]) {
			t.Errorf("%s: Python reads\n%s, want\n%s", a.Name, a.Data, want[a.Name])
		}
	}
	if seen != len(want) {
		t.Errorf("%d answers to %d cases", seen, len(want))
	}
	t.Logf("%d cases", seen)
}

func TestRealPythonsLoadOurPickles(t *testing.T) {
	for _, version := range []string{"2", "3"} {
		t.Run("Python "+version, func(t *testing.T) {
			p := find(t, "Python "+version, "import sys; assert sys.version_info[0] == "+version)
			if p.path == "" {
				return
			}
			var cases []map[string]any
			want := map[string][]byte{}
			for _, c := range recordedFiles(t)["pickles.json"].Cases {
				if !c.Expect.Valid {
					continue
				}
				if version == "2" && strings.HasPrefix(c.Name, "tz_aware") {
					continue // Python 2 has no class for zones
				}
				raw, err := base64.StdEncoding.DecodeString(*c.Pickle)
				if err != nil {
					t.Fatal(err)
				}
				v, err := pickle.Decode(raw)
				if err != nil {
					t.Fatal(err)
				}
				if version == "2" {
					v = bytesAsText(v)
				}
				written, err := pickle.Encode(v)
				if err != nil {
					t.Fatal(err)
				}
				cases = append(cases, map[string]any{"name": c.Name, "pickle": written})
				want[c.Name] = value.MarshalTagged(v)
			}
			compare(t, p.run(t, "unpickle.py", cases), want)
		})
	}
}

func TestRandomValuesOfRealPythonsAreReadAndWrittenBack(t *testing.T) {
	tested := map[string]bool{}
	for _, p := range candidates() {
		out, err := p.command("-c", "import sys; print(sys.version.split()[0])").Output()
		version := strings.TrimSpace(string(out))
		if err != nil || tested[version] {
			continue
		}
		tested[version] = true
		t.Run(version, func(t *testing.T) {
			answers := p.run(t, "random_values.py", nil, "1", "60")
			var again []map[string]any
			want := map[string][]byte{}
			for _, raw := range answers {
				var a struct {
					answer
					Pickle []byte  `json:"pickle"`
					JSON   *string `json:"json"`
				}
				if err := json.Unmarshal(raw, &a); err != nil {
					t.Fatal(err)
				}
				var got any
				var err error
				if a.JSON != nil {
					got, err = value.ParseJSON([]byte(*a.JSON))
				} else {
					got, err = pickle.Decode(a.Pickle)
				}
				if err != nil || !equalTagged(t, value.MarshalTagged(got), a.Data) {
					t.Fatalf("%s: %v, %s is read as\n%s, want\n%s", a.Name, err, raw, value.MarshalTagged(got), a.Data)
				}
				if a.JSON != nil {
					continue
				}
				written, err := pickle.Encode(got)
				if err != nil {
					t.Fatal(err)
				}
				again = append(again, map[string]any{"name": a.Name, "pickle": written})
				want[a.Name] = a.Data
			}
			compare(t, p.run(t, "unpickle.py", again), want)
		})
	}
	if len(tested) == 0 {
		missing(t, "any Python")
	}
}

// bytesAsText gives bytes the form in which Python 2 shows them: it has one
// type for bytes and text, and tagged JSON shows that as text where it can.
func bytesAsText(v any) any {
	switch v := v.(type) {
	case []byte:
		if text, ok := value.FromWTF8(v); ok {
			return text
		}
	case []any:
		for i := range v {
			v[i] = bytesAsText(v[i])
		}
	case *value.Dict:
		for k, val := range v.All() {
			_ = v.SetKey(k, bytesAsText(val))
		}
	}
	return v
}

// cookieHeader is the request that a browser sends after a response.
func cookieHeader(written *vectors.Written) string {
	return legacytest.Header(written.SetCookie...).Get("Cookie")
}

func TestRealBeakerOpensOurSessions(t *testing.T) {
	p := find(t, "Python 3 with Beaker", "import beaker.session, pkg_resources, sys; assert sys.version_info[0] == 3")
	if p.path == "" {
		return
	}
	var about struct {
		Version string
		Ciphers []string
	}
	if err := json.Unmarshal(p.run(t, "beaker_read.py", nil)[0], &about); err != nil {
		t.Fatal(err)
	}
	t.Logf("Beaker %s, ciphers %v", about.Version, about.Ciphers)
	// Up to 1.11, what is stored without encryption is a plain dictionary.
	minor := strings.Split(about.Version, ".")[1]
	plain := len(minor) == 1 || minor == "10" || minor == "11"

	var cases []map[string]any
	want := map[string][]byte{}
	skipped := map[string]int{}
	files := recordedFiles(t)
	for _, c := range append(files["beaker_cookie.json"].Cases, files["beaker_session.json"].Cases...) {
		if !c.Expect.Valid {
			continue
		}
		var config struct {
			Options map[string]any
			Crypto  *struct {
				Cipher string
				Chars  int `json:"nonce_chars"`
			}
		}
		if err := json.Unmarshal(c.Config, &config); err != nil {
			t.Fatal(err)
		}
		o := config.Options
		if kind := o["type"].(string); kind != "cookie" && kind != "file" {
			skipped["kept in "+kind]++
			continue
		}
		if o["type"] == "file" && o["encrypt_key"] == nil && plain != !strings.Contains(c.Engine, "head") {
			skipped["stored form of another version"]++
			continue
		}
		if config.Crypto != nil {
			name := map[string]string{"AES-256-GCM": "cryptography", "AES-256-CTR": "pycrypto", "AES-256-CBC": "nss"}[config.Crypto.Cipher]
			if name == "" || !strings.Contains(strings.Join(about.Ciphers, " "), name) {
				skipped["cipher "+config.Crypto.Cipher]++
				continue
			}
			o["crypto_type"] = name
			if config.Crypto.Chars == 8 {
				o["encrypt_nonce_bits"] = 48
			}
		}
		written, err := c.Rewrite(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		session, err := c.Read(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, map[string]any{
			"name": c.Name, "options": o, "now": c.Now, "cookie": cookieHeader(written), "storage": written.Storage,
		})
		want[c.Name] = value.MarshalTagged(session.Data)
	}
	for why, n := range skipped {
		t.Logf("NOT TESTED: %d cases: %s", n, why)
	}
	compare(t, p.run(t, "beaker_read.py", cases)[1:], want)
}

func TestRealWebapp2OpensOurSecureCookies(t *testing.T) {
	p := find(t, "Python with webapp2_extras.sessions", "import webapp2_extras.sessions")
	if p.path == "" {
		return
	}
	var cases []map[string]any
	want := map[string][]byte{}
	for _, c := range recordedFiles(t)["webapp2_securecookie.json"].Cases {
		written, err := c.Rewrite(context.Background())
		if errors.Is(err, vectors.ErrNotShared) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		session, err := c.Read(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, map[string]any{"name": c.Name, "config": c.Config, "now": c.Now, "cookie": cookieHeader(written)})
		want[c.Name] = value.MarshalTagged(session.Data)
	}
	compare(t, p.run(t, "webapp2_read.py", cases), want)
}

func TestTheRealAppEngineClientReadsOurItemsAndKeys(t *testing.T) {
	root := cloudSDK()
	p := python{path: filepath.Join(root, "platform/bundledpythonunix/bin/python3")}
	engine := filepath.Join(root, "platform/google_appengine")
	libraries, _ := filepath.Glob(filepath.Join(engine, "lib/*"))
	p.env = []string{"PYTHONPATH=" + strings.Join(append([]string{engine}, libraries...), string(os.PathListSeparator))}
	if root == "" || !p.can("from google.appengine.api import memcache, datastore_types") {
		missing(t, "the App Engine SDK with its Python")
		return
	}
	var cases []map[string]any
	want := map[string][]byte{}
	for _, c := range recordedFiles(t)["diy_memcache.json"].Cases {
		session, err := c.Read(context.Background())
		if err != nil {
			continue
		}
		for name, v := range session.Data.All() {
			item, err := appengine.EncodeItem(v)
			if err != nil {
				t.Fatal(err)
			}
			id := c.Name + "/" + name.(string)
			cases = append(cases, map[string]any{"name": id, "value": item.Value, "flags": item.Flags})
			want[id] = value.MarshalTagged(v)
		}
	}
	for _, k := range []struct {
		key  appengine.Key
		path []any
	}{
		{appengine.Key{App: "s~legacy-app", Path: []appengine.Element{{Kind: "Session", Name: "abcdefghijklmnopqrstuv"}}}, []any{"Session", "abcdefghijklmnopqrstuv"}},
		{appengine.Key{App: "e~x", Namespace: "tenant", Path: []appengine.Element{{Kind: "A", ID: 5629499534213120}, {Kind: "é", Name: "ü"}}}, []any{"A", 5629499534213120, "é", "ü"}},
	} {
		name := "key " + k.key.Encode()
		cases = append(cases, map[string]any{"name": name, "path": k.path, "app": k.key.App, "namespace": k.key.Namespace})
		want[name] = value.MarshalTagged(k.key.Encode())
	}
	compare(t, p.run(t, "appengine_read.py", cases), want)
}
