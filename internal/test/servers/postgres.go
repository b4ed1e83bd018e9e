//go:build linux

package servers

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// PostgresCopy starts another server on a copy of a PostgreSQL server's files.
// The original must be stopped or frozen; the files have everything that it has
// acknowledged.
func PostgresCopy(t testing.TB, of *Server) *Server {
	t.Helper()
	s := newServer(t, "postgres", of.name)
	s.cred = of.cred
	if s.cred != nil {
		own(t, s.Dir, s.cred)
	}
	data := filepath.Join(s.Dir, "data")
	if out, err := exec.Command("cp", "-a", filepath.Join(of.Dir, "data"), data).CombinedOutput(); err != nil {
		t.Fatalf("copy: %v\n%s", err, out)
	}
	_ = os.Remove(filepath.Join(data, "postmaster.pid")) // there is none if it was stopped
	for _, arg := range of.args {
		switch {
		case arg == filepath.Join(of.Dir, "data"):
			arg = data
		case arg == strconv.Itoa(of.Port):
			arg = strconv.Itoa(s.Port)
		case arg == "unix_socket_directories="+of.Dir:
			arg = "unix_socket_directories=" + s.Dir
		}
		s.args = append(s.args, arg)
	}
	s.ready = func(ctx context.Context) error {
		return exec.CommandContext(ctx, postgresProgram(t, "pg_isready"), "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port)).Run()
	}
	s.Start()
	return s
}

// StartAsStandby starts a stopped PostgreSQL server as a standby without a
// primary: it is read-only until it is promoted.
func (s *Server) StartAsStandby() {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.Dir, "data", "standby.signal"), nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
	if s.cred != nil {
		own(s.t, filepath.Join(s.Dir, "data", "standby.signal"), s.cred)
	}
	s.Start()
}

// SQL runs statements on a PostgreSQL server as its superuser, by its socket,
// each in its own transaction, and returns psql's output.
func (s *Server) SQL(statements ...string) string {
	s.t.Helper()
	args := []string{"-h", s.Dir, "-p", strconv.Itoa(s.Port), "-U", "postgres", "-d", "postgres", "-v", "ON_ERROR_STOP=1", "-qAtX"}
	for _, statement := range statements {
		args = append(args, "-c", statement)
	}
	out, err := exec.Command(postgresProgram(s.t, "psql"), args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("psql: %v\n%s", err, out)
	}
	return string(out)
}

// AskPasswords makes a PostgreSQL server require passwords, except at its socket.
func (s *Server) AskPasswords() {
	s.t.Helper()
	rules := "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
	if err := os.WriteFile(filepath.Join(s.Dir, "data", "pg_hba.conf"), []byte(rules), 0o600); err != nil {
		s.t.Fatal(err)
	}
	s.SQL("SELECT pg_reload_conf()")
}

// OwnAs gives a file the owner of another one, if tests run as root.
func OwnAs(path string, other os.FileInfo) error {
	stat, ok := other.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, int(stat.Uid), int(stat.Gid))
}
