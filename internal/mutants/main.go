// Command mutants shows that the table of ASVS rows in docs/run/security.md names
// tests that prove them. For each row, mutants.txt has changes that break what
// the row promises. Each is applied to a copy of one file (go test -overlay), and
// the row's tests are run: every change must make one of them fail, and every
// test must fail for one of the changes.
//
//	go run ./internal/mutants            all rows
//	go run ./internal/mutants 7.3.1      some
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A mutant is a change that breaks a row's promise.
type mutant struct {
	row, what string
	file      string // from the top of the repository
	old, new  string // text of the file; old occurs exactly once
}

// A row of the table, with the tests that it names.
type row struct {
	name  string
	tests []string
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(only []string, out io.Writer) error {
	rows, err := readRows("docs/run/security.md")
	if err != nil {
		return err
	}
	mutants, err := readMutants("internal/mutants/mutants.txt")
	if err != nil {
		return err
	}
	where, err := findTests()
	if err != nil {
		return err
	}
	failed := 0
	for _, r := range rows {
		if len(only) > 0 && !slices.Contains(only, r.name) || len(r.tests) == 0 {
			continue
		}
		found := map[string]bool{}
		for _, m := range mutants {
			if m.row != r.name {
				continue
			}
			red, err := m.test(r.tests, where)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", m.row, m.what, err)
			}
			fmt.Fprintf(out, "%-6s %-60s %s\n", m.row, m.what, strings.Join(red, " "))
			if len(red) == 0 {
				failed++
				fmt.Fprintf(out, "       SURVIVES: no test of the row fails\n")
			}
			for _, t := range red {
				found[t] = true
			}
		}
		for _, t := range r.tests {
			if !found[t] {
				failed++
				fmt.Fprintf(out, "       %s proves nothing: it passes with each of the row's mutants\n", t)
			}
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d rows or tests prove nothing", failed)
	}
	return nil
}

// test returns the tests that fail with the mutant in place.
func (m *mutant) test(tests []string, where map[string]string) (red []string, err error) {
	text, err := os.ReadFile(m.file)
	if err != nil {
		return nil, err
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		return nil, fmt.Errorf("%s has the text to change %d times", m.file, n)
	}
	dir, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	changed := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(changed, []byte(strings.Replace(string(text), m.old, m.new, 1)), 0o600); err != nil {
		return nil, err
	}
	file, err := filepath.Abs(m.file)
	if err != nil {
		return nil, err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{file: changed}})
	if err != nil {
		return nil, err
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		return nil, err
	}
	byFolder := map[string][]string{}
	for _, t := range tests {
		folder, ok := where[t]
		if !ok {
			return nil, fmt.Errorf("no test is called %s", t)
		}
		byFolder[folder] = append(byFolder[folder], t)
	}
	for folder, names := range byFolder {
		cmd := exec.Command("go", "test", "-json", "-count=1", "-timeout=5m",
			"-run", "^("+strings.Join(names, "|")+")$", ".")
		cmd.Dir = folder
		// In the environment, because programs that a test builds must also be broken.
		cmd.Env = append(os.Environ(), strings.TrimSpace("GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlayFile))
		cmd.Stderr = os.Stderr
		printed, err := cmd.Output()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return nil, err
		}
		failures, ran := results(printed)
		if ran == 0 {
			return nil, fmt.Errorf("no test ran in %s: does the changed file compile?\n%s", folder, printed)
		}
		red = append(red, failures...)
	}
	slices.Sort(red)
	return red, nil
}

// results returns the tests that failed, or were still running when the program
// died, and how many began.
func results(printed []byte) (red []string, ran int) {
	running := map[string]bool{}
	for line := range strings.Lines(string(printed)) {
		var e struct{ Action, Test string }
		if json.Unmarshal([]byte(line), &e) != nil || e.Test == "" || strings.Contains(e.Test, "/") {
			continue
		}
		switch e.Action {
		case "run":
			ran++
			running[e.Test] = true
		case "pass", "skip":
			delete(running, e.Test)
		}
	}
	for t := range running {
		red = append(red, t)
	}
	return red, ran
}

var testName = regexp.MustCompile("`(Test[A-Za-z0-9_]+)`")

// readRows reads the rows of the table of ASVS.
func readRows(name string) (rows []row, err error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	begins := regexp.MustCompile(`^\| \*\*([0-9.]+)\*\* \[`)
	for line := range strings.Lines(string(text)) {
		item := begins.FindStringSubmatch(line)
		if item == nil {
			continue
		}
		r := row{name: item[1]}
		for _, t := range testName.FindAllStringSubmatch(line, -1) {
			r.tests = append(r.tests, t[1])
		}
		rows = append(rows, r)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s has no row that begins like one of ASVS", name)
	}
	return rows, nil
}

// readMutants reads a file of entries, each of which is a line "== ROW FILE what
// it does", then lines with the text to find, which begin with "-", and lines with
// what to put there, which begin with "+". Lines that begin with "#" are comments.
func readMutants(name string) (mutants []mutant, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		last := len(mutants) - 1
		switch {
		case line == "" || line[0] == '#':
		case strings.HasPrefix(line, "== "):
			parts := strings.SplitN(line, " ", 4)
			if len(parts) < 4 {
				return nil, fmt.Errorf("%s:%d: want == ROW FILE what it does", name, n)
			}
			mutants = append(mutants, mutant{row: parts[1], file: parts[2], what: parts[3]})
		case last >= 0 && line[0] == '-':
			mutants[last].old += line[1:] + "\n"
		case last >= 0 && line[0] == '+':
			mutants[last].new += line[1:] + "\n"
		default:
			return nil, fmt.Errorf("%s:%d: unexpected line", name, n)
		}
	}
	return mutants, lines.Err()
}

// findTests returns the folder of each test in the repository.
func findTests() (map[string]string, error) {
	where := map[string]string{}
	declares := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9_]+)\(`)
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != "." {
			return filepath.SkipDir // .bin has a copy of the repository, and .git much else
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, t := range declares.FindAllStringSubmatch(string(text), -1) {
			if _, ok := where[t[1]]; !ok || filepath.Dir(path) == "." {
				where[t[1]] = filepath.Dir(path)
			}
		}
		return nil
	})
	return where, err
}
