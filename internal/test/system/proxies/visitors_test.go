//go:build linux

package proxies

import (
	"compress/gzip"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

func newManager(t *testing.T, edit ...func(*sojourn.Config)) *sojourn.Manager {
	t.Helper()
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	c := sojourn.Config{Keys: keys, Store: memory.New(), Logger: slog.New(slog.DiscardHandler)}
	for _, f := range edit {
		f(&c)
	}
	m, err := sojourn.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// visitor is a browser in front of the proxies.
type visitor struct {
	name   string
	client *http.Client

	mu      sync.Mutex
	cookies map[string]string
}

func newVisitor(name string, client *http.Client) *visitor {
	return &visitor{name: name, client: client, cookies: map[string]string{}}
}

// answer is a response that was read to the end.
type answer struct {
	*http.Response
	body string
}

// ask sends a request and keeps the response's cookies. A HEAD or a response
// with a Content-Encoding is read like in a browser.
func (v *visitor) ask(t *testing.T, method, path string, edit ...func(http.Header)) answer {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://shop.example"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	v.mu.Lock()
	var cookies []string
	for _, name := range slices.Sorted(maps.Keys(v.cookies)) {
		cookies = append(cookies, name+"="+v.cookies[name])
	}
	v.mu.Unlock()
	if len(cookies) > 0 {
		r.Header.Set("Cookie", strings.Join(cookies, "; "))
	}
	for _, f := range edit {
		f(r.Header)
	}
	resp, err := v.client.Do(r)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
		return answer{&http.Response{Header: http.Header{}}, ""}
	}
	defer resp.Body.Close()
	body := io.Reader(resp.Body)
	if resp.Header.Get("Content-Encoding") == "gzip" && method != http.MethodHead && resp.StatusCode != http.StatusNotModified {
		if body, err = gzip.NewReader(resp.Body); err != nil {
			t.Errorf("%s %s: %v", method, path, err)
			return answer{resp, ""}
		}
	}
	text, err := io.ReadAll(body)
	if err != nil {
		t.Errorf("%s %s: %v", method, path, err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range resp.Cookies() {
		if c.MaxAge < 0 {
			delete(v.cookies, c.Name)
		} else {
			v.cookies[c.Name] = c.Value
		}
	}
	return answer{resp, string(text)}
}
