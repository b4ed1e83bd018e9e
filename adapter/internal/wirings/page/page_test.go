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

// standard are the packages that the programs of the page use without saying so.
var standard = map[string]string{
	"context": "context", "errors": "errors", "fmt": "fmt", "log": "log", "http": "net/http", "time": "time",
	"sojourn": "github.com/sojourn-go/sojourn",
}

// program makes a package of a block of Go: of declarations, or of statements.
func program(block string) string {
	var imports, body []string
	for line := range strings.Lines(block) {
		if spec, ok := strings.CutPrefix(line, "// import "); ok {
			imports = append(imports, spec)
		} else {
			body = append(body, line)
		}
	}
	code := strings.Join(body, "")
	if !regexp.MustCompile(`(?m)^func `).MatchString(code) {
		code = "func _() {\n" + code + "}\n"
	}
	code = `var (
	sessions *sojourn.Manager
	visits   = sojourn.NewKey[int]("visits")
)

` + code
	for name, path := range standard {
		if regexp.MustCompile(`\b` + name + `\.`).MatchString(code) {
			imports = append(imports, fmt.Sprintf("%q\n", path))
		}
	}
	return "package page\n\nimport (\n" + strings.Join(imports, "") + ")\n\n" + code
}

func TestTheProgramsOfTheFrameworksPageCompile(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/frameworks.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllSubmatch(page, -1)
	if len(blocks) < 14 {
		t.Errorf("the page has %d programs", len(blocks))
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	// The packages are in a folder that exists for the compiler only. It has to be
	// inside a module, and in this one it sees all of the workspace.
	temp, args, replace := t.TempDir(), []string{"build"}, map[string]string{}
	for i, b := range blocks {
		name := fmt.Sprintf("block%02d", i+1)
		file := filepath.Join(temp, name+".go")
		if err := os.WriteFile(file, []byte(program(string(b[1]))), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(here, name, name+".go")] = file
		args = append(args, "./"+name)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(temp, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "go", append([]string{args[0], "-overlay", file}, args[1:]...)...)
	if out, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
