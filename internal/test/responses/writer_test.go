package responses_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
)

// tap is a response writer with all optional interfaces. It records the calls,
// and whether the cookie was in the header by then.
type tap struct {
	header http.Header
	events []string
	store  *faults.Store
}

func newTap(s *sitetest.Lab) *tap { return &tap{header: http.Header{}, store: s.Store} }

func (w *tap) note(what string) {
	w.events = append(w.events, fmt.Sprintf("%s cookies=%d saves=%d", what, len(w.header["Set-Cookie"]), w.store.Saves.Load()))
}

func (w *tap) Header() http.Header { return w.header }
func (w *tap) WriteHeader(status int) {
	w.note(fmt.Sprintf("WriteHeader %d", status))
}

func (w *tap) Write(b []byte) (int, error) {
	w.note("Write " + string(b))
	return len(b), nil
}

func (w *tap) WriteString(s string) (int, error) {
	w.note("WriteString " + s)
	return len(s), nil
}

func (w *tap) ReadFrom(r io.Reader) (int64, error) {
	b, err := io.ReadAll(r)
	w.note("ReadFrom " + string(b))
	return int64(len(b)), err
}
func (w *tap) Flush() { w.note("Flush") }
func (w *tap) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.note("Hijack")
	a, b := net.Pipe()
	b.Close()
	return a, bufio.NewReadWriter(bufio.NewReader(a), bufio.NewWriter(a)), nil
}

// No handler has to call Save, which is forgotten, as reported in
// gin-contrib/sessions#6.
func TestSessionIsCommittedOnceRightBeforeTheFirstByte(t *testing.T) {
	for name, test := range map[string]struct {
		start func(http.ResponseWriter)
		want  []string // what reaches the writer below
	}{
		"WriteHeader": {
			func(w http.ResponseWriter) { w.WriteHeader(http.StatusCreated); w.WriteHeader(http.StatusOK) },
			[]string{"WriteHeader 201 cookies=1 saves=1", "WriteHeader 200 cookies=1 saves=1"},
		},
		"Write": {
			func(w http.ResponseWriter) { w.Write([]byte("a")); w.Write([]byte("b")) },
			[]string{"Write a cookies=1 saves=1", "Write b cookies=1 saves=1"},
		},
		"Write of nothing": {
			func(w http.ResponseWriter) { w.Write(nil) },
			[]string{"Write  cookies=1 saves=1"},
		},
		"WriteString": {
			func(w http.ResponseWriter) { io.WriteString(w, "a") },
			[]string{"WriteString a cookies=1 saves=1"},
		},
		"ReadFrom": {
			func(w http.ResponseWriter) { _, _ = io.Copy(w, io.LimitReader(strings.NewReader("abc"), 2)) },
			[]string{"ReadFrom ab cookies=1 saves=1"},
		},
		"Flush": {
			func(w http.ResponseWriter) { w.(http.Flusher).Flush(); w.Write([]byte("a")) },
			[]string{"Flush cookies=1 saves=1", "Write a cookies=1 saves=1"},
		},
		"ResponseController.Flush": {
			func(w http.ResponseWriter) { http.NewResponseController(w).Flush() },
			[]string{"Flush cookies=1 saves=1"},
		},
		"Hijack": {
			func(w http.ResponseWriter) {
				if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
					conn.Close()
				}
			},
			[]string{"Hijack cookies=1 saves=1"},
		},
		"101 Switching Protocols": {
			func(w http.ResponseWriter) { w.WriteHeader(http.StatusSwitchingProtocols) },
			[]string{"WriteHeader 101 cookies=1 saves=1"},
		},
		"103 Early Hints are not the response": {
			func(w http.ResponseWriter) { w.WriteHeader(http.StatusEarlyHints); w.WriteHeader(http.StatusOK) },
			[]string{"WriteHeader 103 cookies=0 saves=0", "WriteHeader 200 cookies=1 saves=1"},
		},
		"return": {func(http.ResponseWriter) {}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.NewLab(t)
			w := newTap(s)
			s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				sitetest.CartKey.Set(session, 3)
				test.start(w)
			}).ServeHTTP(w, httptest.NewRequest("GET", "https://shop.example/", nil))
			if !slices.Equal(w.events, test.want) {
				t.Errorf("got  %q\nwant %q", w.events, test.want)
			}
			if n := len(w.header["Set-Cookie"]); n != 1 || s.Store.Saves.Load() != 1 {
				t.Errorf("%d cookies and %d saves in the end, want one of each", n, s.Store.Saves.Load())
			}
		})
	}
}

func TestResponsesWithoutBodyGetTheirCookie(t *testing.T) {
	for name, test := range map[string]struct {
		method string
		status int
	}{
		"HEAD":             {http.MethodHead, http.StatusOK},
		"204":              {http.MethodPost, http.StatusNoContent},
		"304":              {http.MethodGet, http.StatusNotModified},
		"303":              {http.MethodPost, http.StatusSeeOther},
		"implicit 200":     {http.MethodGet, 0},
		"implicit, HEAD":   {http.MethodHead, 0},
		"404 is no outage": {http.MethodGet, http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.NewLab(t)
			address := listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
				sitetest.ThemeKey.Set(session, "dark")
				if test.status != 0 {
					w.WriteHeader(test.status)
				}
			}))
			resp := fetch(t, test.method, address)
			sitetest.WantStatus(t, resp, max(test.status, http.StatusOK))
			sitetest.WantCookies(t, resp, sitetest.StateCookie)
			if got := sitetest.Body(t, resp); got != "" {
				t.Errorf("body %q", got)
			}
		})
	}
}

func TestHEADAnswersWithTheHeadersOfGET(t *testing.T) {
	s := sitetest.NewLab(t)
	address := listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.ThemeKey.Set(session, "dark")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		io.WriteString(w, "hello")
	}))
	get, head := fetch(t, "GET", address), fetch(t, "HEAD", address)
	for _, h := range []string{"Vary", "Cache-Control", "Content-Type", "Content-Length"} {
		if get.Header.Get(h) != head.Header.Get(h) {
			t.Errorf("%s: GET %q, HEAD %q", h, get.Header.Get(h), head.Header.Get(h))
		}
	}
	sitetest.WantCookies(t, head, sitetest.StateCookie)
}

func TestEarlyHintsGoOutBeforeTheCommitAndTheCookieWithTheFinalResponse(t *testing.T) {
	s := sitetest.NewLab(t)
	address := listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.ThemeKey.Set(session, "dark")
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		// Still time to change the session.
		sitetest.ThemeKey.Set(session, "light")
		w.WriteHeader(http.StatusOK)
	}))
	hints := 0
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hints++
		if code != http.StatusEarlyHints || h.Get("Link") == "" || h.Get("Set-Cookie") != "" {
			t.Errorf("informational response %d with %v", code, h)
		}
		return nil
	}}
	resp := fetch(t, "GET", address, func(r *http.Request) {
		*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
	})
	sitetest.WantStatus(t, resp, http.StatusOK)
	sitetest.WantCookies(t, resp, sitetest.StateCookie)
	if hints != 1 {
		t.Errorf("%d informational responses", hints)
	}
	v := sitetest.NewGuest(t)
	v.Keep(resp)
	s.Do(v, func(session *sojourn.Session) {
		if got := sitetest.ThemeKey.Get(session); got != "light" {
			t.Errorf("kept %q", got)
		}
	})
}

func TestHijackedConnectionFindsTheCookieInTheHeader(t *testing.T) {
	s := sitetest.NewLab(t)
	address := listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.ThemeKey.Set(session, "dark")
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n")
		_ = w.Header().Write(rw)
		fmt.Fprintf(rw, "\r\nhello")
		_ = rw.Flush()
	}))
	resp := fetch(t, "GET", address, func(r *http.Request) {
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", "echo")
	})
	sitetest.WantStatus(t, resp, http.StatusSwitchingProtocols)
	sitetest.WantCookies(t, resp, sitetest.StateCookie)
	if got := sitetest.Body(t, resp); got != "hello" {
		t.Errorf("body %q", got)
	}
}

func TestHijackOfAConnectionThatCannotIsRefusedAndTheHandlerCanStillAnswer(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.ThemeKey.Set(session, "dark")
		_, _, err := w.(http.Hijacker).Hijack()
		if !errors.Is(err, http.ErrNotSupported) {
			t.Errorf("Hijack: %v", err)
		}
		sitetest.ThemeKey.Set(session, "light")
		w.WriteHeader(http.StatusUpgradeRequired)
	})
	sitetest.WantStatus(t, resp, http.StatusUpgradeRequired)
	sitetest.WantCookies(t, resp, sitetest.StateCookie)
}

func TestAFailedCommitBeforeHijackIsAnsweredOverHTTP(t *testing.T) {
	s := sitetest.NewLab(t)
	s.Store.SaveDown.Store(true)
	address := listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Set(session, 1)
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			conn.Close()
			t.Error("the connection was handed over although the session could not be kept")
		} else if !errors.Is(err, sojourn.ErrUnavailable) {
			t.Errorf("Hijack: %v", err)
		}
	}))
	resp := fetch(t, "GET", address)
	sitetest.WantStatus(t, resp, http.StatusServiceUnavailable)
	sitetest.WantCookies(t, resp)
}

// fileOnDisk returns the path of a file of n bytes.
func fileOnDisk(t *testing.T, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "video.bin")
	if err := os.WriteFile(path, bytes.Repeat([]byte("0123456789"), n/10), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readerFrom records which readers reach the connection's ReadFrom, where
// net/http uses sendfile.
type readerFrom struct {
	http.ResponseWriter
	got []string
}

func (w *readerFrom) ReadFrom(r io.Reader) (int64, error) {
	kind := fmt.Sprintf("%T", r)
	if l, ok := r.(*io.LimitedReader); ok {
		kind += fmt.Sprintf(" of %T", l.R)
	}
	w.got = append(w.got, kind)
	return w.ResponseWriter.(io.ReaderFrom).ReadFrom(r)
}

func TestFilesReachTheConnectionByReadFromSoThatSendfileWorks(t *testing.T) {
	path := fileOnDisk(t, 1<<20)
	s := sitetest.NewLab(t)
	serveFile := s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.ThemeKey.Set(session, "dark")
		if r.URL.Path == "/copy" {
			f, err := os.Open(path)
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			_, _ = io.Copy(w, f)
			return
		}
		http.ServeFile(w, r, path)
	})
	reached := make(chan []string, 1)
	address := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rf := &readerFrom{ResponseWriter: w}
		serveFile.ServeHTTP(rf, r)
		reached <- rf.got
	}))
	for _, test := range []struct {
		path, byteRange, reader string
		status                  int
		length                  int
	}{
		{"/serve", "", "*io.LimitedReader of *os.File", http.StatusOK, 1 << 20 / 10 * 10},
		{"/serve", "bytes=10-19", "*io.LimitedReader of *os.File", http.StatusPartialContent, 10},
		{"/copy", "", "os.fileWithoutWriteTo", http.StatusOK, 1 << 20 / 10 * 10},
	} {
		resp := fetch(t, "GET", address+test.path, func(r *http.Request) {
			if test.byteRange != "" {
				r.Header.Set("Range", test.byteRange)
			}
		})
		sitetest.WantStatus(t, resp, test.status)
		sitetest.WantCookies(t, resp, sitetest.StateCookie)
		if n := len(sitetest.Body(t, resp)); n != test.length {
			t.Errorf("%s %s: %d bytes, want %d", test.path, test.byteRange, n, test.length)
		}
		if got := <-reached; !slices.Equal(got, []string{test.reader}) {
			t.Errorf("%s %s: ReadFrom got %q, want %q", test.path, test.byteRange, got, test.reader)
		}
	}
}

func TestServeContentAnswersRangesAndConditionalRequests(t *testing.T) {
	s := sitetest.NewLab(t)
	modified := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	address := listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.ThemeKey.Set(session, "dark")
		w.Header().Set("ETag", `"v1"`)
		http.ServeContent(w, r, "page.txt", modified, strings.NewReader("0123456789"))
	}))
	for _, test := range []struct {
		name, value, body string
		status            int
	}{
		{"Range", "bytes=2-4", "234", http.StatusPartialContent},
		{"Range", "bytes=99-", "invalid range: failed to overlap\n", http.StatusRequestedRangeNotSatisfiable},
		{"If-None-Match", `"v1"`, "", http.StatusNotModified},
		{"If-Modified-Since", modified.Format(http.TimeFormat), "", http.StatusNotModified},
	} {
		resp := fetch(t, "GET", address, func(r *http.Request) { r.Header.Set(test.name, test.value) })
		sitetest.WantStatus(t, resp, test.status)
		sitetest.WantCookies(t, resp, sitetest.StateCookie)
		if got := sitetest.Body(t, resp); got != test.body {
			t.Errorf("%s %s: %q", test.name, test.value, got)
		}
	}
}

func TestResponseControllerReachesTheConnection(t *testing.T) {
	s := sitetest.NewLab(t)
	address := listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		rc := http.NewResponseController(w)
		for what, err := range map[string]error{
			"SetReadDeadline":  rc.SetReadDeadline(time.Now().Add(time.Hour)),
			"SetWriteDeadline": rc.SetWriteDeadline(time.Now().Add(time.Hour)),
			"EnableFullDuplex": rc.EnableFullDuplex(),
		} {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		sitetest.ThemeKey.Set(session, "dark")
		if err := rc.Flush(); err != nil {
			t.Errorf("Flush: %v", err)
		}
	}))
	sitetest.WantCookies(t, fetch(t, "GET", address), sitetest.StateCookie)
}

func TestFullDuplexHandlerReadsTheBodyAfterItsFirstByte(t *testing.T) {
	s := sitetest.NewLab(t)
	address := listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.ThemeKey.Set(session, "dark")
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		_ = rc.Flush()
		ping := make([]byte, 4)
		_, _ = io.ReadFull(r.Body, ping)
		_, _ = w.Write(ping)
		_ = rc.Flush()
	}))
	send, pipe := net.Pipe() // a body that is sent bit by bit
	t.Cleanup(func() { send.Close() })
	resp := fetch(t, "POST", address, func(r *http.Request) { r.Body = pipe })
	sitetest.WantCookies(t, resp, sitetest.StateCookie)
	if _, err := send.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(resp.Body, answer); err != nil || string(answer) != "ping" {
		t.Errorf("read %q, %v", answer, err)
	}
}

func TestReverseProxyBehindASession(t *testing.T) {
	backend, err := url.Parse(listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "backend", Value: "1"})
		w.Header().Set("Vary", "Cookie")
		if r.Header.Get("Upgrade") == "" {
			w.WriteHeader(http.StatusEarlyHints)
			io.WriteString(w, "from behind")
			return
		}
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", "echo")
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = conn.Write([]byte("switched"))
	})))
	if err != nil {
		t.Fatal(err)
	}
	s := sitetest.NewLab(t)
	proxy := httputil.NewSingleHostReverseProxy(backend)
	address := listen(t, s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.ThemeKey.Set(session, "dark")
		proxy.ServeHTTP(w, r)
	}))
	for what, test := range map[string]struct {
		edit   func(*http.Request)
		status int
		body   string
	}{
		"page": {func(*http.Request) {}, http.StatusOK, "from behind"},
		"upgrade": {func(r *http.Request) {
			r.Header.Set("Connection", "Upgrade")
			r.Header.Set("Upgrade", "echo")
		}, http.StatusSwitchingProtocols, "switched"},
	} {
		t.Run(what, func(t *testing.T) {
			resp := fetch(t, "GET", address, test.edit)
			sitetest.WantStatus(t, resp, test.status)
			if got := sitetest.SetNames(resp); !slices.Contains(got, sitetest.StateCookie) || !slices.Contains(got, "backend") || len(got) != 2 {
				t.Errorf("cookies %q", got)
			}
			if vary := resp.Header["Vary"]; what == "page" && !slices.Equal(vary, []string{"Cookie"}) {
				t.Errorf("Vary %q", vary)
			}
			if got := sitetest.Body(t, resp); got != test.body {
				t.Errorf("body %q", got)
			}
		})
	}
}

func TestAnAbsentClientDoesNotStopTheCommit(t *testing.T) {
	s := sitetest.NewLab(t)
	started, gone, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	address := listen(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			sitetest.CartKey.Set(session, 3)
			close(started)
			<-r.Context().Done()
			close(gone)
		}).ServeHTTP(w, r)
	}))
	ctx, hangUp := context.WithCancel(t.Context())
	r, _ := http.NewRequestWithContext(ctx, "GET", address, nil)
	go func() {
		<-started
		hangUp()
	}()
	if _, err := http.DefaultTransport.RoundTrip(r); !errors.Is(err, context.Canceled) {
		t.Fatalf("RoundTrip: %v", err)
	}
	<-gone
	<-done
	if live := sitetest.Rows(t, s.Store); live != 1 {
		t.Errorf("%d sessions were kept, want 1", live)
	}
}

func TestAPanickingHandlerKeepsNothing(t *testing.T) {
	for name, p := range map[string]any{"panic": "boom", "http.ErrAbortHandler": http.ErrAbortHandler} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.NewLab(t)
			v := sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
			saves := s.Store.Saves.Load()

			w := newTap(s)
			var leaked *sojourn.Session
			func() {
				defer func() {
					if got := recover(); got != p {
						t.Errorf("recovered %v, want the handler's own panic %v", got, p)
					}
				}()
				s.Handler(func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
					leaked = session
					sitetest.CartKey.Set(session, 2)
					session.Flash("info", "half done")
					panic(p)
				}).ServeHTTP(w, v.Prepare(httptest.NewRequest("POST", "https://shop.example/", nil)))
			}()
			if len(w.events) > 0 || len(w.header["Set-Cookie"]) > 0 || s.Store.Saves.Load() != saves {
				t.Errorf("events %q, header %v, %d saves", w.events, w.header, s.Store.Saves.Load()-saves)
			}
			if err := leaked.Save(t.Context()); !errors.Is(err, sojourn.ErrTooLate) {
				t.Errorf("Save after the panic: %v", err)
			}
			s.Do(v, func(session *sojourn.Session) {
				if got := sitetest.CartKey.Get(session); got != 1 {
					t.Errorf("the cart is %d", got)
				}
			})
		})
	}
}

func TestAWriteAfterThePanicOfItsHandlerKeepsNothing(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	var leaked http.ResponseWriter // as a goroutine of the handler has it
	func() {
		defer func() { _ = recover() }()
		v.Get(s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			leaked = w
			sitetest.CartKey.Set(session, 2)
			panic("boom")
		}))
	}()
	io.WriteString(leaked, "late")
	if got := sitetest.CartOf(s, v); got != 1 {
		t.Errorf("the cart is %d", got)
	}
}

func TestAPanicAfterTheFirstByteKeepsWhatTheResponsePromisedAndNoMore(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	w := httptest.NewRecorder()
	func() {
		defer func() { _ = recover() }()
		s.Handler(func(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
			sitetest.CartKey.Set(session, 1)
			io.WriteString(w, "first")
			sitetest.CartKey.Set(session, 2)
			panic("boom")
		}).ServeHTTP(w, httptest.NewRequest("GET", "https://shop.example/", nil))
	}()
	v.Keep(w.Result())
	s.Do(v, func(session *sojourn.Session) {
		if got := sitetest.CartKey.Get(session); got != 1 {
			t.Errorf("the cart is %d, want what was committed before the first byte", got)
		}
	})
}

// recoverer answers a panic like common recovery middlewares.
func recoverer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func TestARecoveredPanicKeepsNothing(t *testing.T) {
	for where, mount := range map[string]func(*sitetest.Lab, http.Handler) http.Handler{
		"recoverer outside": func(s *sitetest.Lab, h http.Handler) http.Handler { return recoverer(s.Wrap(h)) },
		"recoverer inside":  func(s *sitetest.Lab, h http.Handler) http.Handler { return s.Wrap(recoverer(h)) },
	} {
		for when, early := range map[string]bool{"before the first byte": false, "after the first byte": true} {
			t.Run(where+", "+when, func(t *testing.T) {
				s := sitetest.NewLab(t)
				v := sitetest.NewGuest(t)
				s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
				resp := v.Get(mount(s, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					session, err := s.Get(r.Context())
					if err != nil {
						t.Error(err)
						return
					}
					if early {
						io.WriteString(w, "first")
					}
					sitetest.CartKey.Set(session, 2)
					panic("boom")
				})))
				if !early {
					sitetest.WantStatus(t, resp, http.StatusInternalServerError)
				}
				sitetest.WantCookies(t, resp)
				s.Do(v, func(session *sojourn.Session) {
					if got := sitetest.CartKey.Get(session); got != 1 {
						t.Errorf("the cart is %d, want 1", got)
					}
				})
			})
		}
	}
}

func TestAnErrorAnswerKeepsNothingButALogout(t *testing.T) {
	for _, status := range []int{500, 502, 503, 504, 599} {
		s := sitetest.NewLab(t)
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
		var leaked *sojourn.Session
		resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			leaked = session
			sitetest.CartKey.Set(session, 2)
			w.WriteHeader(status)
			if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrTooLate) {
				t.Errorf("%d: Save afterwards: %v", status, err)
			}
		})
		sitetest.WantStatus(t, resp, status)
		sitetest.WantCookies(t, resp)
		if err := leaked.Save(t.Context()); !errors.Is(err, sojourn.ErrTooLate) {
			t.Errorf("%d: Save after the request: %v", status, err)
		}
		s.Do(v, func(session *sojourn.Session) {
			if got := sitetest.CartKey.Get(session); got != 1 {
				t.Errorf("%d: the cart is %d, want 1", status, got)
			}
		})

		resp = s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			session.Logout()
			sitetest.ThemeKey.Set(session, "dark")
			w.WriteHeader(status)
		})
		sitetest.WantStatus(t, resp, status)
		sitetest.WantCookies(t, resp, "-"+sitetest.RefCookie)
		if live := sitetest.Rows(t, s.Store); live != 0 {
			t.Errorf("%d: %d sessions live after the logout", status, live)
		}
	}
}

func TestWhatWasSavedBeforeAnErrorAnswerStaysAndItsCookieIsSet(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Set(session, 1)
		if err := session.Save(r.Context()); err != nil {
			t.Error(err)
		}
		sitetest.CartKey.Set(session, 2)
		w.WriteHeader(http.StatusInternalServerError)
	})
	sitetest.WantCookies(t, resp, sitetest.RefCookie)
	s.Do(v, func(session *sojourn.Session) {
		if got := sitetest.CartKey.Get(session); got != 1 {
			t.Errorf("the cart is %d, want 1", got)
		}
	})
}

func TestAFailedCommitReplacesTheResponse(t *testing.T) {
	s := sitetest.NewLab(t)
	s.Store.SaveDown.Store(true)
	resp := s.Serve(sitetest.NewGuest(t), func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Set(session, 1)
		h := w.Header()
		for _, name := range []string{
			"Content-Length", "Content-Encoding", "Content-Disposition", "Content-Range", "Content-Language",
			"ETag", "Last-Modified", "Location", "Cache-Control",
		} {
			h.Set(name, "17")
		}
		h.Set("Content-Security-Policy", "default-src 'self'")
		h.Set("Strict-Transport-Security", "max-age=1")
		w.WriteHeader(http.StatusCreated)
		for what, write := range map[string]func() error{
			"Write":       func() error { _, err := w.Write([]byte("secret page")); return err },
			"WriteString": func() error { _, err := io.WriteString(w, "secret page"); return err },
			"ReadFrom":    func() error { _, err := io.Copy(w, io.LimitReader(strings.NewReader("secret page"), 9)); return err },
			"Flush":       func() error { return http.NewResponseController(w).Flush() },
		} {
			if err := write(); !errors.Is(err, sojourn.ErrUnavailable) || !errors.Is(err, faults.ErrLost) {
				t.Errorf("%s after the failed commit: %v", what, err)
			}
		}
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusOK)
	})
	sitetest.WantStatus(t, resp, http.StatusServiceUnavailable)
	sitetest.WantCookies(t, resp)
	if got := sitetest.Body(t, resp); strings.Contains(got, "secret") || !strings.Contains(got, "not available") {
		t.Errorf("body %q", got)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", "Vary": "Cookie",
		"Content-Security-Policy": "default-src 'self'", "Strict-Transport-Security": "max-age=1",
		"Content-Length": "", "Content-Encoding": "", "Content-Disposition": "", "Content-Range": "", "Content-Language": "",
		"Etag": "", "Last-Modified": "", "Location": "",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := s.Stats().FailedCommits; got != 1 {
		t.Errorf("FailedCommits is %d", got)
	}
}

func TestErrorsAreAnsweredByTheirKind(t *testing.T) {
	for want, err := range map[int][]error{
		http.StatusRequestEntityTooLarge: {sojourn.ErrTooLarge},
		http.StatusConflict:              {sojourn.ErrEnded, sojourn.ErrExpired, sojourn.ErrTaken, sojourn.ErrCrossSite, sojourn.ErrTooManySessions, sojourn.ErrHasCookie},
		http.StatusInternalServerError:   {sojourn.ErrNoMiddleware, sojourn.ErrBadValue, sojourn.ErrNoStore, sojourn.ErrTooLate, sojourn.ErrNoValue, faults.ErrLost},
		http.StatusServiceUnavailable:    {sojourn.ErrUnavailable, sojourn.ErrClosed},
	} {
		for _, err := range err {
			s := sitetest.NewLab(t)
			w := httptest.NewRecorder()
			s.ServeError(w, httptest.NewRequest("GET", "/", nil), fmt.Errorf("wrapped: %w", err))
			if own := !errors.Is(err, faults.ErrLost); sojourn.IsError(fmt.Errorf("wrapped: %w", err)) != own {
				t.Errorf("%v: IsError says %t", err, !own)
			}
			if w.Code != want || w.Header().Get("Cache-Control") != "no-store" {
				t.Errorf("%v: answered %d with %v, want %d", err, w.Code, w.Header(), want)
			}
		}
	}
}

func TestServeErrorDropsChangesButNotALogout(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Set(session, 2)
		s.ServeError(w, r, sojourn.ErrTaken) // 409: below 500, and still an error answer
	})
	sitetest.WantStatus(t, resp, http.StatusConflict)
	s.Do(v, func(session *sojourn.Session) {
		if got := sitetest.CartKey.Get(session); got != 1 {
			t.Errorf("the cart is %d", got)
		}
	})
	resp = s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		session.Logout()
		s.ServeError(w, r, sojourn.ErrTaken)
	})
	sitetest.WantStatus(t, resp, http.StatusConflict)
	sitetest.WantCookies(t, resp, "-"+sitetest.RefCookie)
}

func TestErrorHandlerWritesTheAnswer(t *testing.T) {
	var handled []error
	s := sitetest.NewLab(t, func(c *sojourn.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
			handled = append(handled, err)
			if r.URL.Path != "/cart" {
				t.Errorf("path %q", r.URL.Path)
			}
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusTeapot)
			io.WriteString(w, `{"title":"no session"}`)
		}
	})
	s.Store.SaveDown.Store(true)
	resp := sitetest.NewGuest(t).Request(s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Set(session, 1)
		io.WriteString(w, "page")
	}), "GET", "https://shop.example/cart")
	sitetest.WantStatus(t, resp, http.StatusTeapot)
	if got := sitetest.Body(t, resp); got != `{"title":"no session"}` || resp.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("body %q, header %v", got, resp.Header)
	}
	if len(handled) != 1 || !errors.Is(handled[0], faults.ErrLost) {
		t.Errorf("handled %v", handled)
	}
}

func TestErrorHandlerMayLeaveTheAnswerToServeError(t *testing.T) {
	var s *sitetest.Lab
	s = sitetest.NewLab(t, func(c *sojourn.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, err error) {
			w.Header().Set("X-Seen", "yes")
			s.ServeError(w, r, err)
		}
	})
	s.Store.SaveDown.Store(true)
	resp := s.Serve(sitetest.NewGuest(t), func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Set(session, 1)
	})
	sitetest.WantStatus(t, resp, http.StatusServiceUnavailable)
	if resp.Header.Get("X-Seen") != "yes" {
		t.Error("the handler was not asked")
	}
}

func TestErrorHandlerThatAsksForTheSessionKeepsNothing(t *testing.T) {
	var s *sitetest.Lab
	s = sitetest.NewLab(t, func(c *sojourn.Config) {
		c.ErrorHandler = func(w http.ResponseWriter, r *http.Request, _ error) {
			session, err := s.Get(r.Context())
			if err != nil {
				t.Error(err)
				return
			}
			session.Flash("error", "sorry")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	s.Store.SaveDown.Store(true)
	resp := s.Serve(sitetest.NewGuest(t), func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Set(session, 1)
	})
	sitetest.WantStatus(t, resp, http.StatusServiceUnavailable)
	sitetest.WantCookies(t, resp)
}

func TestALoadThatFailsIsAnswered503AndTriedAgainByTheNextRequest(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	s.Store.Down.Store(true)
	resp := s.Serve(v, func(http.ResponseWriter, *http.Request, *sojourn.Session) {
		t.Error("the handler ran without a session")
	})
	sitetest.WantStatus(t, resp, http.StatusServiceUnavailable)
	sitetest.WantCookies(t, resp)
	s.Store.Down.Store(false)
	if !s.Has(v, "cart") {
		t.Error("the session is gone")
	}
}

func TestOneLoadPerRequestHoweverOftenItIsAskedFor(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	loads := s.Store.Loads.Load()
	v.Get(s.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := make(chan *sojourn.Session)
		for range 16 {
			go func() {
				session, err := s.Get(r.Context())
				if err != nil {
					t.Error(err)
				}
				got <- session
			}()
		}
		first := <-got
		for range 15 {
			if <-got != first {
				t.Error("two session objects in one request")
			}
		}
	})))
	if n := s.Store.Loads.Load() - loads; n != 1 {
		t.Errorf("%d loads", n)
	}
}

func TestACallerThatGaveUpWaitingDoesNotFailTheOthers(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	v.Get(s.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		cancel()
		if _, err := s.Get(ctx); !errors.Is(err, sojourn.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("Get with a cancelled context: %v", err)
		}
		session, err := s.Get(r.Context())
		if err != nil {
			t.Fatal(err)
		}
		if sitetest.CartKey.Get(session) != 1 {
			t.Error("the session is empty")
		}
	})))
}

// panickingStore is a store with a bug.
type panickingStore struct{ store.Store }

func (panickingStore) Load(context.Context, store.ID) (store.Record, error) {
	panic("a bug in the store")
}

func TestAStoreThatPanicsWhileLoadingBlocksNobody(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	broken, err := sojourn.New(sojourn.Config{Keys: s.Keys, Store: panickingStore{s.Store}})
	if err != nil {
		t.Fatal(err)
	}
	resp := v.Get(broken.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_, _ = broken.Get(r.Context())
		}()
		// A recovering middleware's error page asks for the session again.
		if _, err := broken.Get(r.Context()); !errors.Is(err, sojourn.ErrUnavailable) {
			t.Errorf("Get after the panic: %v", err)
		}
		w.WriteHeader(http.StatusInternalServerError)
	})))
	sitetest.WantStatus(t, resp, http.StatusInternalServerError)
	if err := broken.Close(); err != nil { // waits for nothing
		t.Error(err)
	}
}

// It must not panic, as reported in alexedwards/scs#114.
func TestWithoutWrapGetSaysSo(t *testing.T) {
	s := sitetest.NewLab(t)
	unwrapped := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := s.Get(r.Context())
		if !errors.Is(err, sojourn.ErrNoMiddleware) || !strings.Contains(err.Error(), "Manager.Wrap") {
			t.Errorf("Get: %v", err)
		}
		s.ServeError(w, r, err)
	})
	sitetest.WantStatus(t, sitetest.NewGuest(t).Get(unwrapped), http.StatusInternalServerError)
	other := sitetest.NewLab(t)
	sitetest.NewGuest(t).Get(other.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := s.Get(r.Context()); !errors.Is(err, sojourn.ErrNoMiddleware) {
			t.Errorf("Get behind another manager's Wrap: %v", err)
		}
	})))
}

func TestWrappedTwiceIsWrappedOnce(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	h := s.Wrap(s.Wrap(s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		sitetest.CartKey.Update(session, func(n int) int { return n + 1 })
		w.WriteHeader(http.StatusAccepted)
	})))
	sitetest.WantStatus(t, v.Get(h), http.StatusAccepted)
	sitetest.WantCookies(t, v.Get(h)) // same session, nothing new to tell the browser
	s.Do(v, func(session *sojourn.Session) {
		if got := sitetest.CartKey.Get(session); got != 2 {
			t.Errorf("the cart is %d", got)
		}
	})
}

func TestASessionAskedForAfterTheRequestSavesNothing(t *testing.T) {
	for name, touched := range map[string]bool{"asked for before": true, "not asked for before": false} {
		t.Run(name, func(t *testing.T) {
			s := sitetest.NewLab(t)
			var late context.Context
			sitetest.NewGuest(t).Get(s.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if touched {
					_, _ = s.Get(r.Context())
				}
				late = r.Context()
			})))
			session, err := s.Get(late)
			if err != nil {
				t.Fatal(err)
			}
			sitetest.CartKey.Set(session, 1)
			if err := session.Save(late); !errors.Is(err, sojourn.ErrTooLate) {
				t.Errorf("Save: %v", err)
			}
			if s.Store.Calls() > 0 {
				t.Error("the store was called")
			}
		})
	}
}

// Save had to come last and only once, as reported in gofiber/fiber#3016, and a
// first visit that asked twice lost values, as reported in gofiber/fiber#1184.
func TestARequestMaySaveAgainAndAgainFromItsFirstVisitOn(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	sitetest.WantStatus(t, v.Get(s.Wrap(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"one", "two"} {
			session, err := s.Get(r.Context())
			if err != nil {
				t.Fatal(err)
			}
			session.Set(name, true)
			sitetest.CartKey.Update(session, func(n int) int { return n + 1 })
			sitetest.Save(t, session)
			sitetest.Save(t, session)
			sitetest.CartKey.Update(session, func(n int) int { return n + 10 })
		}
	}))), http.StatusOK)
	s.Do(v, func(session *sojourn.Session) {
		if got := sitetest.CartKey.Get(session); got != 22 || !session.Has("one") || !session.Has("two") {
			t.Errorf("the cart is %d, the values are %q", got, session.Names())
		}
	})
}

// listen serves h over real HTTP/1.1 and returns its address.
func listen(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// fetch sends a request over the network and returns the response as it came.
func fetch(t *testing.T, method, address string, edit ...func(*http.Request)) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range edit {
		f(r)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestALoginBeyondTheLimitSaysWhatToDo(t *testing.T) {
	status, text := sojourn.ErrorStatus(fmt.Errorf("wrapped: %w", sojourn.ErrTooManySessions))
	if status != http.StatusConflict || !strings.Contains(text, "sign out") || strings.Contains(text, "reload") {
		t.Errorf("%d %s", status, text)
	}
}
