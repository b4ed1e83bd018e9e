package responses_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

// listenHTTP2 serves h over TLS and HTTP/2 and returns its address and a client
// that only uses HTTP/2.
func listenHTTP2(t *testing.T, h http.Handler) (string, *http.Client) {
	t.Helper()
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.URL, server.Client()
}

func get2(t *testing.T, client *http.Client, address string, edit ...func(*http.Request)) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range edit {
		f(r)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.ProtoMajor != 2 {
		t.Fatalf("the server spoke %s", resp.Proto)
	}
	return resp
}

func TestHTTP2CarriesTheSession(t *testing.T) {
	s := sitetest.NewLab(t)
	address, client := listenHTTP2(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		n := sitetest.CartKey.Update(session, func(n int) int { return n + 1 })
		io.WriteString(w, strings.Repeat("x", n))
	}))
	v := sitetest.NewGuest(t)
	resp := v.Keep(get2(t, client, address))
	sitetest.WantCookies(t, resp, sitetest.RefCookie)
	if got := sitetest.Body(t, resp); got != "x" {
		t.Errorf("body %q", got)
	}
	resp = get2(t, client, address, func(r *http.Request) {
		// HTTP/2 clients split the header, one line for each cookie.
		r.Header["Cookie"] = []string{"a=1", sitetest.RefCookie + "=" + v.Cookies[sitetest.RefCookie], "b=2"}
	})
	sitetest.WantCookies(t, resp)
	if got := sitetest.Body(t, resp); got != "xx" {
		t.Errorf("body %q", got)
	}
}

func TestHTTP2StreamsWithFlush(t *testing.T) {
	s := sitetest.NewLab(t)
	next := make(chan string)
	address, client := listenHTTP2(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.ThemeKey.Set(session, "dark")
		rc := http.NewResponseController(w)
		for {
			if err := rc.Flush(); err != nil {
				t.Errorf("Flush: %v", err)
			}
			text, ok := <-next
			if !ok {
				return
			}
			io.WriteString(w, text)
		}
	}))
	resp := get2(t, client, address)
	sitetest.WantCookies(t, resp, sitetest.StateCookie)
	for range 3 {
		next <- "ping"
		got := make([]byte, 4)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != "ping" {
			t.Errorf("read %q, %v", got, err)
		}
	}
	close(next)
}

func TestHTTP2CannotBeHijackedAndTheHandlerCanStillAnswer(t *testing.T) {
	s := sitetest.NewLab(t)
	address, client := listenHTTP2(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		if _, _, err := w.(http.Hijacker).Hijack(); !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack: %v", err)
		}
		sitetest.ThemeKey.Set(session, "dark")
		http.Error(w, "use HTTP/1.1", http.StatusUpgradeRequired)
	}))
	resp := get2(t, client, address)
	sitetest.WantStatus(t, resp, http.StatusUpgradeRequired)
	sitetest.WantCookies(t, resp, sitetest.StateCookie)
	if got := sitetest.Body(t, resp); got != "use HTTP/1.1\n" {
		t.Errorf("body %q", got)
	}
}

func TestHTTP2AnswersAFailedCommitAndKeepsTheConnection(t *testing.T) {
	s := sitetest.NewLab(t)
	address, client := listenHTTP2(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Set(session, 1)
		w.Header().Set("Content-Length", "4")
		io.WriteString(w, "page")
	}))
	s.Store.SaveDown.Store(true)
	resp := get2(t, client, address)
	sitetest.WantStatus(t, resp, http.StatusServiceUnavailable)
	if got := sitetest.Body(t, resp); !strings.Contains(got, "not available") {
		t.Errorf("body %q", got)
	}
	s.Store.SaveDown.Store(false)
	if got := sitetest.Body(t, get2(t, client, address)); got != "page" {
		t.Errorf("body %q", got)
	}
}

func TestHTTP2KeepsTrailersAndReachesTheConnection(t *testing.T) {
	s := sitetest.NewLab(t)
	address, client := listenHTTP2(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.ThemeKey.Set(session, "dark")
		w.Header().Set("Trailer", "X-Checksum")
		if err := http.NewResponseController(w).EnableFullDuplex(); err != nil {
			t.Errorf("EnableFullDuplex: %v", err)
		}
		io.WriteString(w, "page")
		w.Header().Set("X-Checksum", "17")
	}))
	resp := get2(t, client, address)
	sitetest.WantCookies(t, resp, sitetest.StateCookie)
	_ = sitetest.Body(t, resp)
	if got := resp.Trailer["X-Checksum"]; !slices.Equal(got, []string{"17"}) {
		t.Errorf("trailer %q", got)
	}
}
