package page

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
)

// A visitor is a browser on http://localhost, where Secure cookies are sent.
type visitor struct {
	t       *testing.T
	url     string
	cookies map[string]string
}

// request returns the page that a request leads to, by at most one redirect.
func (v visitor) request(method, path string, form url.Values) string {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), method, v.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for name, value := range v.cookies {
		r.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer res.Body.Close()
	for _, c := range res.Cookies() {
		v.cookies[c.Name] = c.Value
		if c.MaxAge < 0 {
			delete(v.cookies, c.Name)
		}
	}
	if res.StatusCode == http.StatusSeeOther {
		return v.request("GET", res.Header.Get("Location"), nil)
	}
	page, err := io.ReadAll(res.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return string(page)
}

// wants checks a page for texts that it has, and after a "!" for those it has not.
func (v visitor) wants(what, page string, texts ...string) {
	v.t.Helper()
	for _, text := range texts {
		absent, not := strings.CutPrefix(text, "!")
		if strings.Contains(page, absent) == not {
			v.t.Errorf("%s: want %q in\n%s", what, text, page)
		}
	}
}

func TestTheFirstProgramDoesWhatStartSays(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join(top, "docs/start.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(guide), "```go\n")
	code, _, _ = strings.Cut(code, "```\n")
	address := net.JoinHostPort("localhost", strconv.Itoa(servers.Port(t)))
	folder := t.TempDir()
	file, binary := filepath.Join(folder, "main.go"), filepath.Join(folder, "visits")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(code, "localhost:8080", address)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	v := visitor{t, "http://" + address, map[string]string{}}
	stop := start(t, binary, address)
	right := url.Values{"user": {"ada"}, "password": {"engine"}}
	v.wants("the first visit", v.request("GET", "/", nil), "number 1.", "Log in")
	v.wants("the second", v.request("GET", "/", nil), "number 2.")
	v.wants("a wrong password", v.request("POST", "/login", url.Values{"user": {"ada"}}), "number 3.", "Wrong name or password.")
	v.wants("the login", v.request("POST", "/login", right), "Hello, ada. This is visit number 4.", "Log out", "!Wrong name")
	stop()
	stop = start(t, binary, address)
	defer func() { stop() }()
	v.wants("the restart", v.request("GET", "/", nil), "Hello, ada. This is visit number 5.")
	old := visitor{t, v.url, maps.Clone(v.cookies)}
	v.wants("the logout", v.request("POST", "/logout", nil), "number 1.", "!Hello")
	v.wants("the old cookie", old.request("GET", "/", nil), "!Hello")
}

// start runs the program in its folder, and waits until it listens.
func start(t *testing.T, binary, address string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var log bytes.Buffer
	program := exec.CommandContext(ctx, binary)
	program.Dir, program.Stdout, program.Stderr = filepath.Dir(binary), &log, &log
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		cancel()
		_ = program.Wait() // it was killed
		if strings.Contains(log.String(), "WARN") || strings.Contains(log.String(), "ERROR") {
			t.Errorf("the program logs\n%s", log.String())
		}
	}
	limit := time.After(90 * time.Second)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return stop
		}
		select {
		case <-again.C:
		case <-limit:
			stop()
			t.Fatalf("the program does not listen: %v\n%s", err, log.String())
		}
	}
}
