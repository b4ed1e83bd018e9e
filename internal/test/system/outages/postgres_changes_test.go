package outages

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// postgresSite is a PostgreSQL server behind an address that can move, and
// replicas that log in as an ordinary user.
type postgresSite struct {
	server   *servers.Server
	name     *servers.Address // of the server
	password string           // the file that the replicas read
	words    int
}

func newPostgresSite(t *testing.T) *postgresSite {
	t.Helper()
	s := &postgresSite{server: servers.Postgres(t), password: filepath.Join(t.TempDir(), "password")}
	s.name = servers.NewAddress(t, s.server.Addr)
	s.server.SQL("CREATE ROLE app LOGIN PASSWORD 'word0'", "GRANT ALL ON SCHEMA public TO app")
	s.server.AskPasswords()
	s.tell(t, "word0")
	return s
}

func (s *postgresSite) url() string {
	return "postgres://app@" + s.name.Addr + "/postgres?sslmode=disable&password-file=" + url.QueryEscape(s.password)
}

// tell writes the password to the replicas' file.
func (s *postgresSite) tell(t *testing.T, word string) {
	t.Helper()
	if err := os.WriteFile(s.password, []byte(word+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

const endSessions = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"

// while is a temporary fault that two lists of statements begin and end.
func (s *postgresSite) while(name string, begins, ends []string) fault {
	return fault{name, func(*testing.T) {
		s.server.SQL(begins...)
		<-time.After(aWhile)
		s.server.SQL(ends...)
	}}
}

// passing are faults that requests wait for, and then succeed.
func (s *postgresSite) passing() []fault {
	writable := "SET default_transaction_read_only = off"
	return []fault{
		s.while("read-only",
			[]string{"ALTER DATABASE postgres SET default_transaction_read_only = on", endSessions},
			[]string{writable, "ALTER DATABASE postgres RESET default_transaction_read_only"}),
		s.while("read-only in sessions that exist",
			[]string{"ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"},
			[]string{writable, "ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()"}),
		{"a standby, until it is promoted", func(*testing.T) {
			s.server.Stop()
			s.server.StartAsStandby()
			<-time.After(aWhile)
			s.server.SQL("SELECT pg_promote()")
		}},
		{"frozen", func(*testing.T) {
			s.server.Pause()
			<-time.After(aWhile)
			s.server.Resume()
		}},
		s.while("no place for another client",
			[]string{"ALTER ROLE app CONNECTION LIMIT 0", endSessions},
			[]string{"ALTER ROLE app CONNECTION LIMIT -1"}),
		{"another password", func(t *testing.T) {
			s.words++
			word := fmt.Sprintf("word%d", s.words)
			s.server.SQL("ALTER ROLE app PASSWORD '"+word+"'", endSessions)
			<-time.After(aWhile)
			s.tell(t, word)
		}},
	}
}

// others are faults that some requests cannot survive.
func (s *postgresSite) others() []fault {
	return []fault{
		// A full disk gives the same answer; filling one requires rights that
		// tests may not have.
		s.while("full", []string{
			`CREATE OR REPLACE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$`,
			"CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON sojourn_sessions FOR EACH ROW EXECUTE FUNCTION full_disk()",
		}, []string{"DROP TRIGGER full_disk ON sojourn_sessions"}),
		{"the name moves while the server is frozen", func(t *testing.T) {
			old := s.server
			old.Pause()
			s.server = servers.PostgresCopy(t, old)
			s.name.Move(s.server.Addr)
		}},
	}
}

func TestPostgresIsChangedUnderLoad(t *testing.T) {
	t.Parallel()
	site := newPostgresSite(t)
	// Longer than any of the faults, on a busy machine.
	f := startFleet(t, replicas, nil, "-store", site.url(), "-timeout", "15s")
	scenario{fleet: f, faults: site.passing(), storeWaits: true}.run(t)
	scenario{fleet: f, faults: site.others(), storeFails: true}.run(t)
}

// A replica is frozen at any moment of a login. The same user can still log in
// at another replica.
func TestAReplicaThatIsFrozenInALoginHoldsUpNobody(t *testing.T) {
	t.Parallel()
	site := newPostgresSite(t)
	f := startFleet(t, 2, nil, "-store", site.url(), "-max-per-user", "3")
	victim := f.replicas[0]
	login := func(on int) (client.Answer, error) {
		return f.browser().send(f.replicas[on], http.MethodPost, "/login?user=ada")
	}
	must(t)(login(0))
	var stopped atomic.Bool
	done := make(chan struct{})
	for range 4 {
		go func() {
			defer func() { done <- struct{}{} }()
			for !stopped.Load() {
				_, _ = login(0) // which may take until it goes on
			}
		}()
	}
	for round := 0; round < 12 && !t.Failed(); round++ {
		<-time.After(time.Duration(5+2*round) * time.Millisecond)
		victim.Signal(syscall.SIGSTOP)
		for range 3 {
			begin := time.Now()
			if a, err := login(1); err != nil || a.Status != http.StatusOK {
				t.Errorf("round %d: a login at the other replica: %d %s, %v after %v", round, a.Status, a.Body, err, time.Since(begin))
			}
		}
		victim.Signal(syscall.SIGCONT)
	}
	stopped.Store(true)
	for range 4 {
		<-done
	}
}
