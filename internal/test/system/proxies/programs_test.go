//go:build linux

package proxies

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Proxies listen on sockets in the file system, so that ports cannot conflict.

// folder returns a new folder whose path is short enough for a socket's.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sjn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// write makes a file in dir and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// start starts a program in the foreground, waits until it answers HTTP on
// socket, and stops it when the test ends.
func start(t *testing.T, dir, socket, program string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path = "/usr/sbin/" + program // where Debian has servers, off the PATH of most users
	}
	var out bytes.Buffer
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
	cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_CONFIG_HOME="+dir, "XDG_DATA_HOME="+dir)
	// Should the test binary die, its servers go with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s is needed by this test: %v", program, err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended shows in what it printed
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			log, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Logf("%s said:\n%s%s", program, out.String(), log)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := clientOf(socket)
	for {
		r, err := http.NewRequestWithContext(ctx, "GET", "http://shop.example/ready", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(r)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusNoContent {
				return
			}
			err = fmt.Errorf("status %s", resp.Status)
		}
		select {
		case <-ended:
			log, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Fatalf("%s ended at once:\n%s%s", program, out.String(), log)
		case <-ctx.Done():
			t.Fatalf("%s does not answer: %v", program, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// clientOf returns a client whose requests all go to a socket, as they are.
func clientOf(socket string) *http.Client {
	return &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{
			DisableCompression: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// serve serves a handler on a socket, and answers /ready itself.
func serve(t *testing.T, h http.Handler) (socket string) {
	t.Helper()
	socket = filepath.Join(folder(t), "app")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/ready" {
				w.Header().Set("Cache-Control", "no-store")
				w.WriteHeader(http.StatusNoContent)
				return
			}
			h.ServeHTTP(w, r)
		}),
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return socket
}

// nginx starts nginx in front of a socket. What is not given is Debian's
// default: lines go into http, and location into the only location.
func nginx(t *testing.T, behind string, lines, location string) (socket string) {
	t.Helper()
	dir := folder(t)
	socket = filepath.Join(dir, "nginx")
	config := strings.NewReplacer("DIR", dir, "SOCKET", socket, "BEHIND", behind, "LINES", lines, "LOCATION", location).Replace(`
daemon off;
master_process off;
pid DIR/pid;
error_log DIR/error.log;
events { worker_connections 512; }
http {
	access_log off;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	LINES
	upstream app { server unix:BEHIND; }
	server {
		listen unix:SOCKET;
		location / {
			proxy_pass http://app;
			LOCATION
		}
	}
}
`)
	start(t, dir, socket, "nginx", "-e", filepath.Join(dir, "error.log"), "-c", write(t, dir, "nginx.conf", config))
	return socket
}

// nginxCache is nginx that caches everything it may, and compresses.
func nginxCache(t *testing.T, behind string) (socket string) {
	t.Helper()
	cache := filepath.Join(folder(t), "cache")
	return nginx(t, behind, "proxy_cache_path "+cache+" keys_zone=pages:1m;\ngzip on; gzip_proxied any; gzip_vary on; gzip_min_length 1;",
		"proxy_cache pages; proxy_cache_valid any 1m;")
}

// varnish is Varnish that compresses and also caches requests with cookies, a
// common change of its configuration.
func varnish(t *testing.T, behind string) (socket string) {
	t.Helper()
	dir := folder(t)
	socket = filepath.Join(dir, "varnish")
	config := write(t, dir, "default.vcl", fmt.Sprintf(`
vcl 4.1;
backend default { .path = %q; }
sub vcl_recv {
	if (req.method == "GET" || req.method == "HEAD") { return (hash); }
}
sub vcl_backend_response { set beresp.do_gzip = true; }
`, behind))
	start(t, dir, socket, "varnishd", "-F", "-j", "none", "-n", filepath.Join(dir, "work"), "-a", socket, "-f", config,
		"-s", "malloc,16m", "-T", "none")
	return socket
}

// haproxy starts HAProxy with more lines in its only frontend.
func haproxy(t *testing.T, behind, sections, frontend string) (socket string) {
	t.Helper()
	dir := folder(t)
	socket = filepath.Join(dir, "haproxy")
	config := strings.NewReplacer("SOCKET", socket, "BEHIND", behind, "SECTIONS", sections, "FRONTEND", frontend).Replace(`
defaults
	mode http
	timeout connect 30s
	timeout client 60s
	timeout server 60s
SECTIONS
frontend front
	bind unix@SOCKET
	FRONTEND
	default_backend back
backend back
	server app unix@BEHIND
`)
	start(t, dir, socket, "haproxy", "-db", "-f", write(t, dir, "haproxy.cfg", config))
	return socket
}

// haproxyCompressing compresses, and so adds a Vary line.
func haproxyCompressing(t *testing.T, behind string) (socket string) {
	t.Helper()
	return haproxy(t, behind, "", "filter compression\n\tcompression algo gzip\n\tcompression type text/plain text/html")
}

// haproxyCache caches everything it may, and compresses.
func haproxyCache(t *testing.T, behind string) (socket string) {
	t.Helper()
	return haproxy(t, behind, "cache pages\n\ttotal-max-size 4\n\tmax-age 60\n\tprocess-vary on\n",
		"filter cache pages\n\tfilter compression\n\tcompression algo gzip\n\tcompression type text/plain text/html\n"+
			"\thttp-request cache-use pages\n\thttp-response cache-store pages")
}

// caddy compresses.
func caddy(t *testing.T, behind string) (socket string) {
	t.Helper()
	dir := folder(t)
	socket = filepath.Join(dir, "caddy")
	config := write(t, dir, "Caddyfile", fmt.Sprintf(`
{
	admin off
	auto_https off
}
http:// {
	bind unix/%s
	encode gzip {
		minimum_length 1
	}
	reverse_proxy unix/%s
}
`, socket, behind))
	start(t, dir, socket, "caddy", "run", "--adapter", "caddyfile", "--config", config)
	return socket
}
