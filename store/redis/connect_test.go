package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/store"
)

// promoted makes a replica the master, and its master a replica of it.
func promoted(t testing.TB, replica, master *servers.Server) {
	t.Helper()
	does(t, replica, "REPLICAOF", "NO", "ONE")
	does(t, master, "REPLICAOF", "127.0.0.1", strconv.Itoa(replica.Port))
}

func TestAnAddressMovesAwayFromAServer(t *testing.T) {
	for what, test := range map[string]struct {
		demotes bool
		before  func(old *servers.Server) // the move
		open    bool                      // a save may have an unknown outcome
	}{
		"that is demoted":                 {demotes: true},
		"that is frozen":                  {before: (*servers.Server).Pause, open: true},
		"that is killed":                  {before: (*servers.Server).Kill},
		"that knows nothing of it at all": {},
	} {
		t.Run(what, func(t *testing.T) {
			old := servers.Redis(t)
			now := replicaOf(t, old)
			a := servers.NewAddress(t, old.Addr)
			s := opened(t, Options{Addrs: []string{a.Addr}})
			rec := inserted(t, s, session(ann))
			eventually(t, "the replica has it", func() bool { return now.RedisCommand("EXISTS", s.key(rec.ID)) == "1\n" })
			if test.demotes {
				promoted(t, now, old)
			} else {
				does(t, now, "REPLICAOF", "NO", "ONE")
			}
			if test.before != nil {
				test.before(old)
			}
			two := next(rec)
			saved := make(chan error, 1)
			if test.demotes {
				go func() { saved <- s.Save(context.Background(), two, rec.Base()) }() // before the address has moved
				<-time.After(20 * time.Millisecond)
			}
			a.Move(now.Addr)
			switch {
			case test.demotes:
				must(t, <-saved)
			case test.open:
				settled(t, s, two, rec.Base())
			case test.before == nil:
				before := s.current.Load()
				before.due.Store(0) // ten seconds have passed
				eventually(t, "the connection is a new one", func() bool {
					_, err := s.Load(t.Context(), rec.ID)
					must(t, err)
					// It may be open before the store uses it.
					return s.current.Load() != before && strings.Contains(now.RedisCommand("CLIENT", "LIST"), "name=sojourn")
				})
				fallthrough
			default:
				settled(t, s, two, rec.Base())
			}
			if got, err := s.Load(within(t, time.Minute), rec.ID); err != nil || got.Version != 2 {
				t.Errorf("version %d, %v", got.Version, err)
			}
			if got := now.RedisCommand("GETRANGE", s.key(rec.ID), "48", "55"); got[7] != 2 {
				t.Errorf("the server that the address leads to has version %q", got)
			}
			if test.before != nil {
				old.Resume()
			}
		})
	}
}

// A demoted server answers with outdated data. Stores leave it with their first
// write, or, if they only read, with their next connection.
func TestWhoOnlyReadsLeavesAServerThatWasDemoted(t *testing.T) {
	old := servers.Redis(t)
	now := replicaOf(t, old)
	a := servers.NewAddress(t, old.Addr)
	s := opened(t, Options{Addrs: []string{a.Addr}})
	rec := inserted(t, s, session(ann))
	eventually(t, "the replica has it", func() bool { return now.RedisCommand("EXISTS", s.key(rec.ID)) == "1\n" })
	promoted(t, now, old)
	s.current.Load().due.Store(0)
	eventually(t, "a replica is not read", func() bool {
		_, err := s.Load(within(t, 50*time.Millisecond), rec.ID)
		return errors.Is(err, errReplica)
	})
	a.Move(now.Addr)
	if _, err := s.Load(within(t, time.Minute), rec.ID); err != nil {
		t.Error(err)
	}
}

func TestAServerWithoutRoomForConnectionsIsWaitedFor(t *testing.T) {
	server, s := single(t)
	rec := inserted(t, s, session(ann))
	does(t, server, "CONFIG", "SET", "maxclients", "3")
	var held []net.Conn
	for {
		c, err := net.Dial("tcp", server.Addr)
		must(t, err)
		held = append(held, c)
		_, err = fmt.Fprint(c, "PING\r\n")
		must(t, err)
		answer := make([]byte, 5)
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "+PONG" {
			break // the connections are all taken
		}
	}
	other, err := newClient(within(t, time.Second), must2(at(server).withDefaults())(t), patience)
	if err == nil {
		other.shut()
		t.Fatal("there is room for another client")
	}
	s.renew(s.current.Load(), true) // finds no room; the old connections are given up
	<-time.After(20 * time.Millisecond)
	two := next(rec)
	saved := make(chan error, 1)
	go func() { saved <- s.Save(context.Background(), two, rec.Base()) }()
	<-time.After(20 * time.Millisecond)
	for _, c := range held {
		c.Close()
	}
	must(t, <-saved)
}

func must2[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		must(t, err)
		return v
	}
}

// rotation is a password that changes.
type rotation struct {
	word  atomic.Value
	asked atomic.Int64
}

func (r *rotation) ask(context.Context) (user, password string, err error) {
	r.asked.Add(1)
	return "app", r.word.Load().(string), nil
}

func TestAPasswordThatChangesIsUsedFromTheNextConnectionOn(t *testing.T) {
	for what, kills := range map[string]bool{"connections are closed": true, "connections stay": false} {
		server := servers.Redis(t)
		does(t, server, "ACL", "SETUSER", "app", "on", ">first", "~*", "&*", "+@all")
		var r rotation
		r.word.Store("first")
		o := at(server)
		o.Credentials = r.ask
		s := opened(t, o)
		rec := inserted(t, s, session(ann))
		for i, word := range []string{"second", "third"} {
			does(t, server, "ACL", "SETUSER", "app", "resetpass", ">"+word)
			if kills {
				server.RedisCommand("CLIENT", "KILL", "USER", "app")
			}
			two := next(rec)
			saved := make(chan struct{})
			go func() {
				defer close(saved)
				settled(t, s, two, rec.Base())
			}()
			if i == 1 {
				<-time.After(50 * time.Millisecond) // the password may change at its source later than at the server
			}
			r.word.Store(word)
			<-saved
			rec = two
			before := r.asked.Load()
			s.current.Load().due.Store(0)
			eventually(t, "a new connection is made", func() bool {
				if _, err := s.Load(t.Context(), rec.ID); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				return r.asked.Load() > before
			})
		}
	}
}

func TestAPasswordThatCannotBeHadIsWaitedFor(t *testing.T) {
	server := servers.Redis(t)
	var fails atomic.Bool
	o := at(server)
	o.Credentials = func(context.Context) (string, string, error) {
		if fails.Load() {
			return "", "", errors.New("the vault is sealed")
		}
		return "", "", nil
	}
	s := opened(t, o)
	rec := inserted(t, s, session(ann))
	fails.Store(true)
	server.RedisCommand("CLIENT", "KILL", "TYPE", "normal")
	eventually(t, "a save says why it was refused", func() bool {
		err := s.Save(within(t, 50*time.Millisecond), next(rec), rec.Base())
		return errors.Is(err, store.ErrRefused) && strings.Contains(err.Error(), "the vault is sealed")
	})
	saved := make(chan error, 1)
	go func() { saved <- s.Save(context.Background(), next(rec), rec.Base()) }()
	fails.Store(false)
	must(t, <-saved)
}

func TestAPasswordThatNobodyChangesIsNotTriedForLong(t *testing.T) {
	for what, rule := range map[string][]string{
		"WRONGPASS": {"ACL", "SETUSER", "app", "resetpass", ">other"},
		"off":       {"ACL", "SETUSER", "app", "off"},
	} {
		server := servers.Redis(t)
		does(t, server, "ACL", "SETUSER", "app", "on", ">hunter2", "~*", "&*", "+@all")
		o := at(server)
		o.Username, o.Password = "app", "hunter2"
		s := opened(t, o)
		rec := inserted(t, s, session(ann))
		does(t, server, rule...)
		server.RedisCommand("CLIENT", "KILL", "USER", "app")
		eventually(t, what+": a save is refused", func() bool {
			err := s.Save(within(t, time.Minute), next(rec), rec.Base())
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Error(err)
			}
			return errors.Is(err, store.ErrRefused) && strings.Contains(err.Error(), "WRONGPASS")
		})
	}
}

func TestSentinelsHavePasswordsThatChangeToo(t *testing.T) {
	nodes, watchers := servers.RedisSentinels(t, 1, 1)
	does(t, nodes[0], "ACL", "SETUSER", "app", "on", ">first", "~*", "&*", "+@all")
	does(t, nodes[1], "ACL", "SETUSER", "app", "on", ">first", "~*", "&*", "+@all")
	does(t, watchers[0], "ACL", "SETUSER", "app", "on", ">one", "&*", "+@all")
	var r, sentinel rotation
	r.word.Store("first")
	sentinel.word.Store("one")
	s := opened(t, Options{Addrs: []string{watchers[0].Addr}, Master: "mymaster", Credentials: r.ask, SentinelCredentials: sentinel.ask})
	rec := inserted(t, s, session(ann))
	does(t, watchers[0], "ACL", "SETUSER", "app", "resetpass", ">two")
	sentinel.word.Store("two")
	watchers[0].RedisCommand("CLIENT", "KILL", "USER", "app")
	for _, n := range nodes {
		does(t, n, "ACL", "SETUSER", "app", "resetpass", ">second")
	}
	r.word.Store("second")
	// Replication is not waited for by the save.
	eventually(t, "the replica has the session", func() bool { return nodes[1].RedisCommand("DBSIZE") == nodes[0].RedisCommand("DBSIZE") })
	nodes[0].Kill() // the next master has to be asked for, and logged in to
	settled(t, s, next(rec), rec.Base())
}

func TestAClientCertificateThatChangesIsUsedFromTheNextConnectionOn(t *testing.T) {
	serverCert, serverKey, authority := certificate(t)
	first, firstKey, _ := certificate(t)
	second, secondKey, _ := certificate(t)
	trusted := filepath.Join(t.TempDir(), "trusted.pem")
	trust := func(file string) {
		text, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(trusted, text, 0o600))
	}
	trust(first)
	server, addr := tlsServer(t, serverCert, serverKey, "--tls-ca-cert-file", trusted, "--tls-auth-clients", "yes")
	var current atomic.Value
	pair := func(cert, key string) {
		c, err := tls.LoadX509KeyPair(cert, key)
		must(t, err)
		current.Store(&c)
	}
	pair(first, firstKey)
	s := opened(t, Options{Addrs: []string{addr}, TLS: &tls.Config{
		RootCAs: authority,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return current.Load().(*tls.Certificate), nil
		},
	}})
	rec := inserted(t, s, session(ann))
	trust(second)
	does(t, server, "CONFIG", "SET", "tls-ca-cert-file", trusted)
	server.RedisCommand("CLIENT", "KILL", "TYPE", "normal")
	eventually(t, "the old certificate is refused", func() bool {
		_, err := s.Load(within(t, 100*time.Millisecond), rec.ID)
		return err != nil
	})
	pair(second, secondKey)
	settled(t, s, next(rec), rec.Base())
}

func TestTheServersCertificateChanges(t *testing.T) {
	first, firstKey, old := certificate(t)
	second, secondKey, now := certificate(t)
	server, addr := tlsServer(t, first, firstKey, "--tls-auth-clients", "no")
	var authorities atomic.Pointer[x509.CertPool]
	authorities.Store(old)
	s := opened(t, Options{Addrs: []string{addr}, TLS: &tls.Config{
		InsecureSkipVerify: true, // VerifyConnection does, as the package's documentation says
		VerifyConnection: func(c tls.ConnectionState) error {
			_, err := c.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: authorities.Load(), DNSName: c.ServerName})
			return err
		},
	}})
	rec := inserted(t, s, session(ann))
	does(t, server, "CONFIG", "SET", "tls-cert-file", second, "tls-key-file", secondKey)
	server.RedisCommand("CLIENT", "KILL", "TYPE", "normal")
	var unknown x509.UnknownAuthorityError
	eventually(t, "the new one is not trusted", func() bool {
		_, err := s.Load(within(t, 100*time.Millisecond), rec.ID)
		return errors.As(err, &unknown)
	})
	authorities.Store(now)
	settled(t, s, next(rec), rec.Base())
}
