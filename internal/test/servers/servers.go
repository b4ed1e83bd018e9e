//go:build linux

package servers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Server is a running program that listens on Addr. Its methods fail the test
// on errors.
type Server struct {
	Addr string // host:port, on loopback
	Port int
	Dir  string // its own temporary folder

	t     TB
	name  string
	args  []string
	cred  *syscall.Credential
	ready func(ctx context.Context) error

	databases atomic.Int64 // that NewDatabase has made

	mu  sync.Mutex
	cmd *exec.Cmd
	out *bytes.Buffer
	// done is closed when the process has been waited for.
	done chan struct{}
}

// startTime is how long a server may take to answer.
const startTime = 3 * time.Minute

// Memcached starts memcached with that many MiB of memory and further arguments.
func Memcached(t TB, mebibytes int, args ...string) *Server {
	t.Helper()
	s := newServer(t, "memcached", "memcached")
	s.args = append([]string{
		"-l", "127.0.0.1", "-p", strconv.Itoa(s.Port), "-U", "0", "-m", strconv.Itoa(mebibytes), "-u", "nobody",
	}, args...)
	s.ready = s.says("version\r\n", "VERSION")
	s.Start()
	return s
}

// Redis starts redis-server with further arguments, such as "--appendonly", "yes".
func Redis(t TB, args ...string) *Server {
	t.Helper()
	s := newServer(t, "redis-server", "redis-server")
	s.args = append([]string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(s.Port), "--dir", s.Dir, "--save", "", "--daemonize", "no",
		"--repl-diskless-sync-delay", "0",
	}, args...)
	s.ready = s.says("PING\r\n", "+PONG")
	s.Start()
	return s
}

// RedisSentinel starts redis-sentinel with that configuration, to which its
// port and folder are added.
func RedisSentinel(t TB, config string) *Server {
	t.Helper()
	s := newServer(t, "redis-sentinel", "redis-sentinel")
	file := filepath.Join(s.Dir, "sentinel.conf")
	config = fmt.Sprintf("bind 127.0.0.1\nport %d\ndir %s\n%s\n", s.Port, s.Dir, config)
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.args = []string{file}
	s.ready = s.says("PING\r\n", "+PONG")
	s.Start()
	return s
}

// Postgres starts PostgreSQL with an empty cluster. Its user "postgres" needs no
// password; see [Server.PostgresURL]. Settings are given as name=value.
func Postgres(t TB, settings ...string) *Server {
	t.Helper()
	s := newServer(t, "postgres", postgresProgram(t, "postgres"))
	if os.Geteuid() == 0 {
		// It refuses to run as root; the package brings a user for it.
		s.cred = credential(t, "postgres")
		own(t, s.Dir, s.cred)
	}
	data := filepath.Join(s.Dir, "data")
	s.emptyCluster(data)
	s.args = []string{
		"-D", data, "-p", strconv.Itoa(s.Port),
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=" + s.Dir, "-c", "max_connections=200",
		// Data that the server has written to the kernel survives the server.
		// Only a crash of the machine would lose it.
		"-c", "fsync=off", "-c", "full_page_writes=off",
	}
	for _, set := range settings {
		s.args = append(s.args, "-c", set)
	}
	s.ready = func(ctx context.Context) error {
		probe := exec.CommandContext(ctx, postgresProgram(t, "pg_isready"), "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port))
		return probe.Run()
	}
	s.Start()
	return s
}

// PostgresURL is the connection URL of the default database.
func (s *Server) PostgresURL() string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable", s.Addr)
}

// NewDatabase makes an empty database in PostgreSQL, and returns its connection URL.
func (s *Server) NewDatabase(t TB) (url string) {
	t.Helper()
	name := fmt.Sprintf("test_%d", s.databases.Add(1))
	create := exec.Command(postgresProgram(t, "createdb"), "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port), "-U", "postgres", name)
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("createdb: %v\n%s", err, out)
	}
	return fmt.Sprintf("postgres://postgres@%s/%s?sslmode=disable", s.Addr, name)
}

func newServer(t TB, name, program string) *Server {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%s is not installed, and this test needs it: %v", name, err)
	}
	dir, err := os.MkdirTemp("", "sojourn-"+name+"-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	port := Port(t)
	return &Server{
		Addr: addr(port), Port: port, Dir: dir,
		t: t, name: program,
	}
}

// Start starts the server, again after Kill or Stop, and returns when it
// answers. The test's end stops it.
func (s *Server) Start() {
	s.t.Helper()
	s.mu.Lock()
	s.out = &bytes.Buffer{}
	s.cmd = exec.Command(s.name, s.args...)
	s.cmd.Dir = s.Dir
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	// If the test binary dies, its servers end as well.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Pdeathsig: syscall.SIGKILL}
	done := make(chan struct{})
	s.done = done
	err := s.cmd.Start()
	cmd := s.cmd
	s.mu.Unlock()
	if err != nil {
		s.t.Fatalf("start %s: %v", s.name, err)
	}
	go func() {
		_ = cmd.Wait() // its output shows how it ended
		close(done)
	}()
	s.t.Cleanup(s.Kill)

	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	for {
		if err := s.ready(ctx); err == nil {
			return
		}
		select {
		case <-done:
			s.t.Fatalf("%s ended at once:\n%s", s.name, s.out)
		case <-ctx.Done():
			s.t.Fatalf("%s does not answer on %s", s.name, s.Addr)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the server with SIGKILL and waits for it. It may have ended
// already.
func (s *Server) Kill() { s.signal(syscall.SIGKILL, true) }

// Stop asks the server to end, for PostgreSQL without waiting for its clients,
// and waits for it.
func (s *Server) Stop() { s.signal(syscall.SIGINT, true) }

// Abort ends all of PostgreSQL's processes at once, without a shutdown: it must
// recover on its next start.
func (s *Server) Abort() { s.signal(syscall.SIGQUIT, true) }

// Pause freezes the server: its connections stay, and nothing answers.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP, false) }

// Resume ends a Pause.
func (s *Server) Resume() { s.signal(syscall.SIGCONT, false) }

func (s *Server) signal(sig syscall.Signal, wait bool) {
	s.t.Helper()
	s.mu.Lock()
	cmd, done := s.cmd, s.done
	s.mu.Unlock()
	select {
	case <-done:
		return
	default:
	}
	workers := children(cmd.Process.Pid)
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.t.Errorf("signal %s: %v", s.name, err)
	}
	if sig == syscall.SIGSTOP {
		// Now it cannot start more of them. A child that was started meanwhile,
		// and is not frozen, would still answer.
		workers = children(cmd.Process.Pid)
	}
	if sig != syscall.SIGINT { // which the server forwards itself
		for _, pid := range workers {
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				s.t.Errorf("signal a process of %s: %v", s.name, err)
			}
		}
	}
	if wait {
		<-done
	}
}

// children are the processes that a server such as PostgreSQL has started for
// its clients, which would continue without it.
func children(parent int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		fields := fieldsOf(stat)
		if len(fields) < 2 || string(fields[1]) != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// CPU is the processor time that the server and its children have taken. Ended
// children do not count.
func (s *Server) CPU() (total time.Duration, err error) {
	s.mu.Lock()
	pid := s.cmd.Process.Pid
	s.mu.Unlock()
	for _, pid := range append(children(pid), pid) {
		path := fmt.Sprintf("/proc/%d/stat", pid)
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		f := fieldsOf(stat)
		if len(f) < 13 {
			continue
		}
		user, err1 := strconv.Atoi(string(f[11]))
		system, err2 := strconv.Atoi(string(f[12]))
		if err := errors.Join(err1, err2); err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		const tick = time.Second / 100 // on every Linux that Go runs on
		total += time.Duration(user+system) * tick
	}
	return total, nil
}

// fieldsOf splits the kernel's line about a process, "pid (name) state ppid …",
// from the state on: a name may contain anything.
func fieldsOf(stat []byte) [][]byte {
	return bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
}

// says returns a check that the server's answer to a line has that beginning.
func (s *Server) says(line, want string) func(context.Context) error {
	return func(ctx context.Context) error {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", s.Addr)
		if err != nil {
			return err
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		if _, err := c.Write([]byte(line)); err != nil {
			return err
		}
		answer := make([]byte, 64)
		n, err := c.Read(answer)
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(answer[:n], []byte(want)) {
			return fmt.Errorf("%q is no answer", answer[:n])
		}
		return nil
	}
}

// postgresProgram finds one of PostgreSQL's programs; Debian keeps them off the
// PATH, by version.
func postgresProgram(t TB, name string) string {
	t.Helper()
	if p, err := exec.LookPath(name); err == nil && name != "pg_isready" {
		return p
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil || len(found) == 0 {
		t.Fatalf("PostgreSQL's %s is not installed, and this test needs it", name)
	}
	return found[len(found)-1]
}

func credential(t TB, name string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func own(t TB, dir string, c *syscall.Credential) {
	t.Helper()
	if err := os.Chown(dir, int(c.Uid), int(c.Gid)); err != nil {
		t.Fatal(err)
	}
}
