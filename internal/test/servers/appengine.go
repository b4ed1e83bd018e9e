//go:build linux

package servers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// AppEngine starts the App Engine API server, which answers the bundled
// services' calls (datastore, memcache) like App Engine, and points the App
// Engine library at it until the test ends. It starts empty and keeps nothing.
//
// The API server is part of the Google Cloud SDK. If that is missing the test
// fails, unless it is left out: see [WithoutGoogle].
func AppEngine(t testing.TB) *Server {
	t.Helper()
	const brings, bringsPython = "app-engine-python", "bundled-python3-unix"
	sdk := sdkFiles(t, map[string]string{
		brings:       filepath.Join("platform", "google_appengine", "api_server.py"),
		bringsPython: filepath.Join("platform", "bundledpythonunix", "bin", "python3"),
	})
	dir := filepath.Dir(sdk[brings])
	var path []string
	for _, lib := range []string{"requests", "urllib3", "chardet", "certifi", "idna", "pyparsing", "oauthlib", "markupsafe", "pytz"} {
		path = append(path, filepath.Join(dir, "lib", lib))
	}
	compiled, dontKeep := keepCompiled()
	s := newServer(t, "App Engine API server", "sh")
	logFile := filepath.Join(s.Dir, "log")
	s.args = []string{
		"-c", `log=$1; shift; exec "$@" 2>"$log"`, "sh", logFile,
		"env", "PYTHONPATH=" + strings.Join(path, ":"), "PYTHONDONTWRITEBYTECODE=" + dontKeep, "PYTHONPYCACHEPREFIX=" + compiled,
		// It starts slowly, so a free port might be taken by then.
		sdk[bringsPython], "-S", sdk[brings], "--api_host=127.0.0.1", "--api_port=0",
		"--application=testapp", "--storage_path=" + s.Dir, "--clear_datastore=true", "--datastore_consistency_policy=consistent",
	}
	s.ready = func(ctx context.Context) error {
		text, err := os.ReadFile(logFile)
		if err != nil {
			return err
		}
		at := startedAt.FindSubmatch(text)
		if at == nil {
			return fmt.Errorf("it has not said where it listens: %s", text)
		}
		if s.Port, err = strconv.Atoi(string(at[1])); err != nil {
			return err
		}
		s.Addr = net.JoinHostPort("127.0.0.1", string(at[1]))
		return s.answersAppID(ctx)
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(logFile)
			t.Logf("what the API server said:\n%s", text)
		}
	})
	s.Start()
	front := s.proxied(t)
	t.Setenv("API_HOST", front.Hostname())
	t.Setenv("API_PORT", front.Port())
	t.Setenv("GAE_APPLICATION", "dev~testapp")
	t.Setenv("GAE_ENV", "standard")
	return s
}

// keepCompiled returns a folder for Python's compiled files, and "" to enable
// them whatever the environment: this halves the start time. Python may not be
// able to write beside the SDK's sources.
func keepCompiled() (folder, dont string) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", "1"
	}
	return filepath.Join(dir, "sojourn-tests", "python"), ""
}

// proxied returns the URL of a proxy to the server. The App Engine library
// keeps connections open, and the API server may close them just as a call is
// sent; the proxy marks calls so that net/http sends them again.
func (s *Server) proxied(t testing.TB) *url.URL {
	target := &url.URL{Scheme: "http", Host: s.Addr}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	proxy := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
			body, err := io.ReadAll(r.In.Body)
			r.Out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), err }
			r.Out.Body, _ = r.Out.GetBody()
			r.Out.Header["X-Idempotency-Key"] = nil // for net/http, and not sent
		},
		Transport: transport,
		ErrorLog:  log.New(io.Discard, "", 0), // the caller gets the error
	})
	t.Cleanup(func() {
		proxy.Close()
		transport.CloseIdleConnections()
	})
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

var startedAt = regexp.MustCompile(`Starting API server at: http://127\.0\.0\.1:(\d+)`)

// answersAppID requests / by HTTP, for which the API server returns its application.
func (s *Server) answersAppID(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Addr+"/", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 256))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "app_id: dev~testapp") {
		return fmt.Errorf("%s %q is no answer", resp.Status, body)
	}
	return nil
}
