package middleware

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	labstack "github.com/labstack/echo/v4"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/h2c" //nolint:staticcheck // see inH2C

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/store/memory"
)

// who answers with the session's user and cart, and logs in or adds to the cart
// on request.
func who(m *sojourn.Manager) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session, err := m.Get(r.Context())
		if err != nil {
			m.ServeError(w, r, err)
			return
		}
		if user := r.URL.Query().Get("login"); user != "" {
			session.Login(user)
		}
		if r.URL.Query().Has("add") {
			cart.Update(session, func(n int) int { return n + 1 })
		}
		fmt.Fprintf(w, "user=%q cart=%d", session.User(), cart.Get(session))
	})
}

// overOneConnection returns a client that sends everything over one HTTP/2
// connection without TLS, as a proxy does for all of its visitors.
func overOneConnection(t *testing.T, address string) *http.Client {
	t.Helper()
	transport := &http2.Transport{ //nolint:staticcheck // deprecated, and what there is inside of handlers
		AllowHTTP: true, //nolint:staticcheck // deprecated, and what there is inside of handlers
		DialTLSContext: func(ctx context.Context, network, _ string, _ *tls.Config) (net.Conn, error) { //nolint:staticcheck // deprecated, and what there is inside of handlers
			return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(address, "http://"))
		},
	}
	t.Cleanup(transport.CloseIdleConnections) //nolint:staticcheck // deprecated, and what there is inside of handlers
	return &http.Client{Transport: transport}
}

// ask sends a request with the cookies of an earlier response.
func ask(t *testing.T, client *http.Client, url string, before *http.Response) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if before != nil {
		for _, c := range before.Cookies() {
			r.AddCookie(&http.Cookie{Name: c.Name, Value: c.Value})
		}
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// threeVisitors lets ada log in, bob fill a cart and eve look, over one
// connection. Each sees their own, or, if works is false, an error.
func threeVisitors(t *testing.T, client *http.Client, base string, works bool) {
	t.Helper()
	ada, text := ask(t, client, base+"/?login=ada&add", nil)
	if works && text != `user="ada" cart=1` {
		t.Fatalf("ada gets %d %s", ada.StatusCode, text)
	}
	bob, text := ask(t, client, base+"/?add", nil)
	if works && text != `user="" cart=1` || strings.Contains(text, "ada") {
		t.Errorf("bob gets %d %s", bob.StatusCode, text)
	}
	eve, text := ask(t, client, base+"/", nil)
	if works && text != `user="" cart=0` || strings.Contains(text, "ada") {
		t.Errorf("eve gets %d %s", eve.StatusCode, text)
	}
	if !works {
		if bob.StatusCode != http.StatusInternalServerError || eve.StatusCode != http.StatusInternalServerError {
			t.Errorf("bob gets %d, eve %d, want 500: it is a mistake in the program", bob.StatusCode, eve.StatusCode)
		}
		return
	}
	if _, text = ask(t, client, base+"/", ada); text != `user="ada" cart=1` {
		t.Errorf("ada comes back to %s", text)
	}
	if _, text = ask(t, client, base+"/", bob); text != `user="" cart=1` {
		t.Errorf("bob comes back to %s", text)
	}
}

// inH2C is deprecated, but applications and frameworks still use it.
func inH2C(h http.Handler) http.Handler {
	return h2c.NewHandler(h, &http2.Server{}) //nolint:staticcheck // see above
}

// golang/go#37089, golang/net#88
func TestNoVisitorOfAnH2CConnectionGetsAnothersSession(t *testing.T) {
	gin.SetMode(gin.ReleaseMode)
	for name, test := range map[string]struct {
		wire  func(m *sojourn.Manager) http.Handler
		works bool
	}{
		"h2c outside": {func(m *sojourn.Manager) http.Handler {
			return inH2C(m.Wrap(who(m)))
		}, true},
		"h2c inside": {func(m *sojourn.Manager) http.Handler {
			return m.Wrap(inH2C(who(m)))
		}, false},
		"h2c inside, and another Wrap inside that": {func(m *sojourn.Manager) http.Handler {
			return m.Wrap(inH2C(m.Wrap(who(m))))
		}, true},
		"gin with UseH2C": {func(m *sojourn.Manager) http.Handler {
			engine := gin.New()
			engine.UseH2C = true
			engine.GET("/", gin.WrapH(who(m)))
			return m.Wrap(engine.Handler())
		}, false},
		"gin with UseH2C, and Wrap inside": {func(m *sojourn.Manager) http.Handler {
			engine := gin.New()
			engine.UseH2C = true
			engine.GET("/", gin.WrapH(m.Wrap(who(m))))
			return engine.Handler()
		}, true},
		"echo inside h2c": {func(m *sojourn.Manager) http.Handler {
			e := labstack.New()
			e.GET("/", labstack.WrapHandler(who(m)))
			return inH2C(m.Wrap(e))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			log := &lines{}
			m := managerWith(t, log)
			base := listen(t, test.wire(m))
			threeVisitors(t, overOneConnection(t, base), base, test.works)
			if n := strings.Count(log.String(), "inside Manager.Wrap"); (n == 1) == test.works || n > 1 {
				t.Errorf("the log says it %d times:\n%s", n, log)
			}
			if !test.works {
				return
			}
			// The same server without HTTP/2.
			threeVisitors(t, http.DefaultClient, base, true)
		})
	}
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func managerWith(t *testing.T, log io.Writer) *sojourn.Manager {
	t.Helper()
	keys, err := sojourn.ParseKeys(keys.Generate())
	if err != nil {
		t.Fatal(err)
	}
	m, err := sojourn.New(sojourn.Config{Keys: keys, Store: memory.New(), Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// one is a listener of one connection.
type one struct {
	conn chan net.Conn
	addr net.Addr
}

func (l one) Accept() (net.Conn, error) {
	c, ok := <-l.conn
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l one) Close() error   { return nil }
func (l one) Addr() net.Addr { return l.addr }

// A tunnel passes the connection of a request to another server, whose requests
// have contexts derived from that request's.
func TestNoRequestOfATunnelGetsTheSessionOfTheRequestThatOpenedIt(t *testing.T) {
	for name, serve := range map[string]func(r *http.Request, conn net.Conn, h http.Handler){
		"http.Server": func(r *http.Request, conn net.Conn, h http.Handler) {
			l := one{make(chan net.Conn, 1), conn.LocalAddr()}
			l.conn <- conn
			server := &http.Server{Handler: h, BaseContext: func(net.Listener) context.Context { return r.Context() }}
			go func() { _ = server.Serve(l) }()
		},
		"http2.Server": func(r *http.Request, conn net.Conn, h http.Handler) {
			go new(http2.Server).ServeConn(conn, &http2.ServeConnOpts{Context: r.Context(), Handler: h}) //nolint:staticcheck // deprecated, and what there is inside of handlers
		},
		"http2.Server with the outer server's settings": func(r *http.Request, conn net.Conn, h http.Handler) {
			outer, _ := r.Context().Value(http.ServerContextKey).(*http.Server)
			go new(http2.Server).ServeConn(conn, &http2.ServeConnOpts{Context: r.Context(), Handler: h, BaseConfig: outer}) //nolint:staticcheck // deprecated, and what there is inside of handlers
		},
	} {
		for _, wrapped := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, inner Wrap %v", name, wrapped), func(t *testing.T) {
				m := managerWith(t, io.Discard)
				inner := who(m)
				if wrapped {
					inner = m.Wrap(inner)
				}
				base := listen(t, m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					session, err := m.Get(r.Context())
					if err != nil {
						t.Error(err)
					}
					session.Login("ada")
					conn, rw, err := w.(http.Hijacker).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					if again, err := m.Get(r.Context()); err != nil || again.User() != "ada" {
						t.Errorf("its own session after Hijack: %v", err)
					}
					_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: tunnel\r\nConnection: Upgrade\r\n\r\n")
					_ = rw.Flush()
					serve(r, conn, inner)
					<-t.Context().Done() // its own context lasts as long as the tunnel
				})))
				conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://"))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: tunnel\r\n\r\n")
				read := bufio.NewReader(conn)
				if resp, err := http.ReadResponse(read, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
					t.Fatalf("the tunnel: %v", err)
				}
				tunnel := readAhead{conn, read}
				var client *http.Client
				if strings.HasPrefix(name, "http2") {
					cc, err := (&http2.Transport{AllowHTTP: true}).NewClientConn(tunnel) //nolint:staticcheck // deprecated, and what there is inside of handlers
					if err != nil {
						t.Fatal(err)
					}
					client = &http.Client{Transport: cc}
				} else {
					client = &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return tunnel, nil }}}
				}
				if wrapped {
					threeVisitors(t, client, "http://shop.example", true)
					return
				}
				resp, text := ask(t, client, "http://shop.example/", nil)
				if resp.StatusCode != http.StatusInternalServerError || strings.Contains(text, "ada") {
					t.Errorf("got %d %s", resp.StatusCode, text)
				}
			})
		}
	}
}

type readAhead struct {
	net.Conn
	r *bufio.Reader
}

func (c readAhead) Read(b []byte) (int, error) { return c.r.Read(b) }

func TestARequestOverARealHTTP2ConnectionHasItsOwnSession(t *testing.T) {
	m := managerWith(t, io.Discard)
	server := httptest.NewUnstartedServer(m.Wrap(m.Wrap(who(m))))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	threeVisitors(t, server.Client(), server.URL, true)
}

func TestAReverseProxyOnEitherSideKeepsSessionsApart(t *testing.T) {
	for _, side := range []string{"behind Wrap", "in front of Wrap", "behind Wrap, to another Wrap"} {
		t.Run(side, func(t *testing.T) {
			m := managerWith(t, io.Discard)
			target := m.Wrap(who(m))
			if side == "behind Wrap" {
				target = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if _, err := m.Get(r.Context()); err == nil {
						t.Error("the upstream has a session")
					}
					fmt.Fprint(w, r.Header.Get("X-User"))
				})
			}
			to, err := url.Parse(listen(t, target))
			if err != nil {
				t.Fatal(err)
			}
			var proxy http.Handler = &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
				r.SetURL(to)
				if side != "in front of Wrap" {
					session, err := m.Get(r.In.Context())
					if err != nil {
						t.Error(err)
						return
					}
					if user := r.In.URL.Query().Get("login"); user != "" && side == "behind Wrap" {
						session.Login(user)
					}
					r.Out.Header.Set("X-User", session.User())
				}
			}}
			if side != "in front of Wrap" {
				proxy = m.Wrap(proxy)
			}
			base := listen(t, proxy)
			if side != "behind Wrap" {
				threeVisitors(t, http.DefaultClient, base, true)
				return
			}
			ada, _ := ask(t, http.DefaultClient, base+"/?login=ada", nil)
			if _, text := ask(t, http.DefaultClient, base, ada); text != "ada" {
				t.Errorf("the upstream is told %q", text)
			}
			if _, text := ask(t, http.DefaultClient, base, nil); text != "" {
				t.Errorf("of a stranger the upstream is told %q", text)
			}
		})
	}
}

// A page made of parts sends its own requests to handlers.
func TestASubrequestWithOtherCookiesHasASessionOfItsOwn(t *testing.T) {
	m := managerWith(t, io.Discard)
	part := m.Wrap(who(m))
	for name, edit := range map[string]struct {
		change func(r *http.Request, bob string)
		want   string
	}{
		"the same cookies":             {func(*http.Request, string) {}, `user="ada" cart=0`},
		"the same, and other people's": {func(r *http.Request, _ string) { r.Header.Add("Cookie", "theme=dark") }, `user="ada" cart=0`},
		"none":                         {func(r *http.Request, _ string) { r.Header.Del("Cookie") }, `user="" cart=0`},
		"another visitor's":            {func(r *http.Request, bob string) { r.Header.Set("Cookie", bob) }, `user="bob" cart=0`},
		"another visitor's first": {func(r *http.Request, bob string) {
			r.Header["Cookie"] = append([]string{bob}, r.Header["Cookie"]...)
		}, `user="bob" cart=0`},
	} {
		t.Run(name, func(t *testing.T) {
			bob, _ := ask(t, http.DefaultClient, listen(t, part)+"/?login=bob", nil)
			cookie := bob.Cookies()[0].Name + "=" + bob.Cookies()[0].Value
			page := listen(t, m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				session, err := m.Get(r.Context())
				if err != nil {
					t.Error(err)
				}
				if r.URL.Query().Has("login") {
					session.Login("ada")
					return
				}
				sub := r.Clone(r.Context())
				edit.change(sub, cookie)
				rec := httptest.NewRecorder()
				part.ServeHTTP(rec, sub)
				fmt.Fprint(w, rec.Body)
			})))
			ada, _ := ask(t, http.DefaultClient, page+"/?login", nil)
			if _, text := ask(t, http.DefaultClient, page, ada); text != edit.want {
				t.Errorf("the part shows %s, want %s", text, edit.want)
			}
		})
	}
}

func TestAHandlerWithATimeoutHasItsOwnSession(t *testing.T) {
	m := managerWith(t, io.Discard)
	for name, h := range map[string]http.Handler{
		"inside":     m.Wrap(http.TimeoutHandler(who(m), time.Minute, "")),
		"outside":    http.TimeoutHandler(m.Wrap(who(m)), time.Minute, ""),
		"in between": m.Wrap(http.TimeoutHandler(m.Wrap(who(m)), time.Minute, "")),
	} {
		t.Run(name, func(t *testing.T) { threeVisitors(t, http.DefaultClient, listen(t, h), true) })
	}
}

// Not every tunnel is a hijacked connection: the inner server may also listen,
// or read from the request's body.
func TestNoRequestOfAServerThatAHandlerStartsGetsItsSession(t *testing.T) {
	m := managerWith(t, io.Discard)
	page := listen(t, m.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		session, err := m.Get(r.Context())
		if err != nil {
			t.Error(err)
		}
		session.Login("ada")
		inner := httptest.NewUnstartedServer(who(m))
		inner.Config.BaseContext = func(net.Listener) context.Context { return r.Context() }
		inner.Start()
		defer inner.Close()
		resp, text := ask(t, http.DefaultClient, inner.URL, nil)
		if resp.StatusCode != http.StatusInternalServerError || strings.Contains(text, "ada") {
			t.Errorf("got %d %s", resp.StatusCode, text)
		}
	})))
	ask(t, http.DefaultClient, page, nil)
}
