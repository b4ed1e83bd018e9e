//go:build linux

package servers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// PgBouncer starts pgbouncer in front of a PostgreSQL server, in transaction
// pooling: its clients share that many connections, and each of a client's
// transactions may get another one. See [Server.PostgresURL].
func PgBouncer(t TB, postgres *Server, connections int) *Server {
	t.Helper()
	program := "pgbouncer"
	if _, err := exec.LookPath(program); err != nil {
		program = "/usr/sbin/pgbouncer" // Debian's path, which is not on most users' PATH
	}
	s := newServer(t, "pgbouncer", program)
	config := fmt.Sprintf(`[databases]
* = host=127.0.0.1 port=%d user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = %d
max_client_conn = 1000
server_login_retry = 1
`, postgres.Port, s.Port, connections)
	file := filepath.Join(s.Dir, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		// It refuses to run as root.
		s.cred = credential(t, "postgres")
		own(t, s.Dir, s.cred)
	}
	s.args = []string{"-q", file}
	s.ready = func(ctx context.Context) error {
		return exec.CommandContext(ctx, postgresProgram(t, "pg_isready"), "-h", "127.0.0.1", "-p", strconv.Itoa(s.Port)).Run()
	}
	s.Start()
	return s
}
