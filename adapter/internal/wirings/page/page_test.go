package page

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const (
	top  = "../../../.."
	ours = "github.com/sojourn-go/sojourn"
)

// packages are the packages that the pages' programs may use without an import:
// the standard library's, and ours. Any other is in a comment "// import
// "path"".
var packages = map[string]string{
	"context": "context", "pbkdf2": "crypto/pbkdf2", "rand": "crypto/rand", "sha256": "crypto/sha256", "subtle": "crypto/subtle",
	"json": "encoding/json", "errors": "errors", "fmt": "fmt", "html": "html", "template": "html/template", "log": "log",
	"slog": "log/slog", "http": "net/http", "httptest": "net/http/httptest", "httputil": "net/http/httputil", "url": "net/url",
	"os": "os", "signal": "os/signal", "strings": "strings", "syscall": "syscall", "testing": "testing", "synctest": "testing/synctest",
	"time":    "time",
	"sojourn": ours, "oidc": ours + "/oidc", "admin": ours + "/admin", "keys": ours + "/keys", "ops": ours + "/ops", "sojourntest": ours + "/sojourntest",
	"store": ours + "/store", "open": ours + "/store/open", "storetest": ours + "/store/storetest", "memcached": ours + "/store/memcached",
	"postgres": ours + "/store/postgres", "sqlite": ours + "/store/sqlite", "tiered": ours + "/store/tiered",
}

// given are variables that every program may use without declaring them.
var given = []struct{ name, declaration string }{
	{"sessions", "sessions *sojourn.Manager"},
	{"visits", `visits = sojourn.NewKey[int]("visits")`},
	{"session", "session *sojourn.Session"},
	{"cfg", "cfg sojourn.Config"},
	{"ctx", "ctx context.Context"},
	{"mux", "mux *http.ServeMux"},
	{"db", "db store.Store"},
	{"w", "w http.ResponseWriter"},
	{"r", "r *http.Request"},
}

var (
	// What begins with "<!--go" declares names for the programs after it on the page.
	block       = regexp.MustCompile("(?ms)^```go\n(.*?)^```$|^<!--go\n(.*?)^-->$")
	comments    = regexp.MustCompile(`//.*|"(?:[^"\\\n]|\\.)*"`)
	function    = regexp.MustCompile(`(?m)^func `)
	declaration = regexp.MustCompile(`^(?:(?:var|type|const|func)\b|//|[\s)}])`)
	headers     = regexp.MustCompile(`(?m)^func .*[^{\n]$`)
	result      = regexp.MustCompile(`(?m)^\s*return [^\n]`)
	variables   = regexp.MustCompile(`(?m)^(\w+(?:, \w+)*) :=`)
)

// declares reports whether code has declarations only, not statements.
func declares(code string) bool {
	if function.MatchString(code) {
		return true
	}
	for line := range strings.Lines(code) {
		if !declaration.MatchString(line) {
			return false
		}
	}
	return true
}

// program makes a package of a block of Go, which is a whole program, declarations,
// or statements.
func program(before, code string) string {
	if main, ok := strings.CutPrefix(code, "package main\n"); ok {
		return "package page\n" + main // so that it is compiled and not linked
	}
	var imports, body []string
	for line := range strings.Lines(before + code) {
		if spec, ok := strings.CutPrefix(line, "// import "); ok {
			imports = append(imports, spec)
		} else {
			body = append(body, line)
		}
	}
	if statements := strings.Join(body, ""); declares(code) {
		code = statements
	} else {
		body := strings.TrimPrefix(statements, before)
		end := ""
		for _, m := range variables.FindAllStringSubmatch(body, -1) {
			for name := range strings.SplitSeq(m[1], ", ") {
				if name != "_" {
					end += "_ = " + name + "\n"
				}
			}
		}
		head := "func _() {\n"
		if result.MatchString(body) {
			head, end = "func _() error {\n", end+"return nil\n"
		}
		code = before + head + body + end + "}\n"
	}
	for _, g := range given {
		used := regexp.MustCompile(`\b` + g.name + `\b`).MatchString(code)
		if declared := regexp.MustCompile(`(?m)^var ` + g.name + `\b`).MatchString(code); used && !declared {
			code = "var " + g.declaration + "\n" + code
		}
	}
	plain := comments.ReplaceAllString(code, "")
	for name, path := range packages {
		if regexp.MustCompile(`(?m)(?:^|[^.\w])` + name + `\.[A-Z]`).MatchString(plain) {
			imports = append(imports, fmt.Sprintf("%q\n", path))
		}
	}
	return "package page\n\nimport (\n" + strings.Join(imports, "") + ")\n\n" + code
}

// pages are those whose programs are compiled.
func pages(t *testing.T) []string {
	t.Helper()
	all := []string{"README.md", "docs/start.md"}
	for _, pattern := range []string{"docs/build/*.md", "docs/run/*.md"} {
		found, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d pages, %v", pattern, len(found), err)
		}
		for _, name := range found {
			all = append(all, filepath.Join(filepath.Dir(pattern), filepath.Base(name)))
		}
	}
	return all
}

// programs returns the programs of a page, by a name that says on which line each is.
func programs(t *testing.T, page string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(top, page))
	if err != nil {
		t.Fatal(err)
	}
	name := strings.NewReplacer("/", "_", ".md", "", "-", "_").Replace(page)
	all, before := map[string]string{}, ""
	for _, at := range block.FindAllSubmatchIndex(text, -1) {
		if at[4] >= 0 {
			before = headers.ReplaceAllString(string(text[at[4]:at[5]]), "$0 { panic(0) }")
			continue
		}
		line := strings.Count(string(text[:at[0]]), "\n") + 1
		all[fmt.Sprintf("%s_line_%d", name, line)] = program(before, string(text[at[2]:at[3]]))
	}
	return all
}

func TestTheProgramsOfThePagesCompile(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	// The packages are in a folder that exists for the compiler only. It has to be
	// inside a module, and in this one it sees all of the workspace.
	temp, folders, replace := t.TempDir(), []string{}, map[string]string{}
	for _, page := range pages(t) {
		for name, code := range programs(t, page) {
			file := filepath.Join(temp, name+".go")
			if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
				t.Fatal(err)
			}
			replace[filepath.Join(here, name, "page.go")] = file
			folders = append(folders, "./"+name)
		}
	}
	if len(folders) < 60 {
		t.Errorf("the pages have %d programs", len(folders))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(temp, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "go", append([]string{"build", "-overlay", file}, folders...)...)
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
