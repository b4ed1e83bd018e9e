package servers

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// Glewlwyd starts an OpenID provider written in C. It is empty except for its
// administrator, "admin" with the password "password"; configure it by its API,
// at /api/. See its OIDC.md.
func Glewlwyd(t TB) *Server {
	t.Helper()
	s := newServer(t, "glewlwyd", "glewlwyd")
	db, config := filepath.Join(s.Dir, "glewlwyd.db"), filepath.Join(s.Dir, "glewlwyd.conf")
	const fill = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).executescript(open(sys.argv[2]).read())"
	if out, err := exec.Command("/usr/bin/python3", "-c", fill, db, "/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3").CombinedOutput(); err != nil {
		t.Fatalf("glewlwyd: making its database: %v\n%s", err, out)
	}
	text := fmt.Sprintf(`
port = %d
bind_address = "127.0.0.1"
external_url = "http://127.0.0.1:%d"
login_url = "login.html"
api_prefix = "api"
log_mode = "console"
log_level = "WARNING"
cookie_secure = 0
session_expiration = 2419200
session_key = "GLEWLWYD2_SESSION_ID"
admin_scope = "g_admin"
profile_scope = "g_profile"
user_module_path = "/usr/lib/glewlwyd/user"
client_module_path = "/usr/lib/glewlwyd/client"
user_auth_scheme_module_path = "/usr/lib/glewlwyd/scheme"
plugin_module_path = "/usr/lib/glewlwyd/plugin"
static_files_path = "/usr/share/glewlwyd/webapp/"
static_files_mime_types = (
	{ extension = ".html" mime_type = "text/html" }, { extension = ".css" mime_type = "text/css" },
	{ extension = ".js" mime_type = "application/javascript" }, { extension = ".json" mime_type = "application/json" }
)
hash_algorithm = "SHA512"
database = { type = "sqlite3" path = "%s" }
`, s.Port, s.Port, db)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.args = []string{"-c", config}
	s.ready = func(ctx context.Context) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:"+strconv.Itoa(s.Port)+"/api/config", nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(r)
		if err == nil {
			_ = res.Body.Close()
		}
		return err
	}
	s.Start()
	return s
}
