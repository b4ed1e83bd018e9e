package sojourn_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
)

// TestTheSecurityModelNamesTestsThatExist keeps the tables of docs/run/security.md
// honest: a test that is renamed or removed is one there.
func TestTheSecurityModelNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("docs/run/security.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`(Test[A-Z0-9][A-Za-z0-9]*)`").FindAllStringSubmatch(string(text), -1)
	if len(named) < 40 {
		t.Errorf("only %d tests are named", len(named))
	}
	exist := map[string]bool{}
	function := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != "." {
			return fs.SkipDir // .bin has a copy of the repository, and .git much else
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for _, f := range function.FindAllSubmatch(source, -1) {
			exist[string(f[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range named {
		if !exist[n[1]] {
			t.Errorf("docs/run/security.md names %s, which does not exist", n[1])
		}
	}
}

// TestTheSecurityModelHasEveryItem checks that no line of the two chapters is
// missing, and that each is met by something or left to the application.
func TestTheSecurityModelHasEveryItem(t *testing.T) {
	text, err := os.ReadFile("docs/run/security.md")
	if err != nil {
		t.Fatal(err)
	}
	for chapter, items := range map[string]int{"3.3": 5, "7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5, "7.5": 3, "7.6": 2} {
		rows := regexp.MustCompile(`(?m)^\| \*\*`+regexp.QuoteMeta(chapter)+`\.(\d)\*\* \[[123]\] \|(.*)\|$`).FindAllStringSubmatch(string(text), -1)
		if len(rows) != items {
			t.Errorf("V%s has %d lines, want %d", chapter, len(rows), items)
		}
		for _, row := range rows {
			cells := strings.Split(row[2], "|")
			if len(cells) != 4 || strings.TrimSpace(cells[1]+cells[2]) == "" {
				t.Errorf("V%s.%s: %q", chapter, row[1], row[2])
			}
		}
	}
}

// TestEachPromiseOfTheReadmeHasATestOfItsName keeps the list in README.md, the tests
// here, and those that every store runs the same.
func TestEachPromiseOfTheReadmeHasATestOfItsName(t *testing.T) {
	find := func(file, pattern string) (found []string) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			found = append(found, fmt.Sprintf("%02s%s", m[1], m[2]))
		}
		return found
	}
	promised := find("README.md", `(?m)^(\d+)\. \*\*([^*]+)\*\*`)
	for i, p := range promised {
		promised[i] = ""
		for _, word := range strings.Fields(strings.NewReplacer("'", "", ".", "").Replace(p)) {
			promised[i] += strings.ToUpper(word[:1]) + word[1:]
		}
		n, name := promised[i][:2], promised[i][2:]
		promised[i] = n + strings.ToUpper(name[:1]) + name[1:]
	}
	if len(promised) != 13 {
		t.Errorf("README.md has %d promises", len(promised))
	}
	for file, pattern := range map[string]string{
		"promises_test.go":                   `(?m)^func TestPromise(\d\d)(\w+)\(`,
		"internal/test/promises/promises.go": `\{"(\d\d)(\w+)", \w+\},`,
	} {
		if tested := find(file, pattern); !slices.Equal(tested, promised) {
			t.Errorf("%s has\n%q, README.md promises\n%q", file, tested, promised)
		}
	}
}

// TestTheReferenceHasEveryFieldOfTheConfiguration keeps the table of docs/reference.md.
func TestTheReferenceHasEveryFieldOfTheConfiguration(t *testing.T) {
	text, err := os.ReadFile("docs/reference.md")
	if err != nil {
		t.Fatal(err)
	}
	var written, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+\\.\\w+)` \\|(?: [^|]+ \\|){3}$").FindAllStringSubmatch(string(text), -1) {
		written = append(written, m[1])
	}
	for _, v := range []any{sojourn.Config{}, sojourn.Cookie{}, sojourn.Limit{}, sojourn.Rotation{}} {
		of := reflect.TypeOf(v)
		for i := range of.NumField() {
			want = append(want, of.Name()+"."+of.Field(i).Name)
		}
	}
	if !slices.Equal(written, want) {
		t.Errorf("docs/reference.md has\n%q, want\n%q", written, want)
	}
}

// TestEveryLinkInAPageLeadsSomewhere follows the relative links of all Markdown
// files, to files and to headings.
func TestEveryLinkInAPageLeadsSomewhere(t *testing.T) {
	texts := map[string]string{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		if err != nil || d.IsDir() || filepath.Ext(path) != ".md" {
			return err
		}
		text, err := os.ReadFile(path)
		texts[path] = regexp.MustCompile("(?ms)^<!--go$.*?^-->$|^```.*?^```$").ReplaceAllString(string(text), "")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	headings := map[string]map[string]bool{}
	for name, text := range texts {
		headings[name] = map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
			heading := regexp.MustCompile(`\]\([^)]*\)`).ReplaceAllString(m[1], "")
			heading = regexp.MustCompile(`[^\p{L}\p{N}_\- ]`).ReplaceAllString(strings.ToLower(heading), "")
			headings[name][strings.ReplaceAll(heading, " ", "-")] = true
		}
	}
	code := regexp.MustCompile("(?ms)^```.*?^```|^<!--.*?-->|`[^`\n]*`")
	for name, text := range texts {
		text = code.ReplaceAllStringFunc(text, func(s string) string { return strings.Repeat("x", len(s)) })
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(text, -1) {
			path, heading, _ := strings.Cut(m[1], "#")
			if strings.Contains(path, ":") || path != "" && path[0] == '"' { // or code, such as NewKey[T]("name")
				continue
			}
			target := name
			if path != "" {
				target = filepath.Join(filepath.Dir(name), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: no file for %s", name, m[1])
			} else if of, page := headings[target]; heading != "" && page && !of[heading] {
				t.Errorf("%s: no heading for %s", name, m[1])
			}
		}
	}
}

// TestEveryErrorIsInTheTable compares the table of errors with what errors.go exports.
func TestEveryErrorIsInTheTable(t *testing.T) {
	source, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("docs/build/http.md")
	if err != nil {
		t.Fatal(err)
	}
	exported := regexp.MustCompile(`(?m)^\t(Err\w+) += `).FindAllSubmatch(source, -1)
	if len(exported) < 10 {
		t.Fatalf("errors.go exports %d errors", len(exported))
	}
	for _, m := range exported {
		if !strings.Contains(string(page), "\n| `"+string(m[1])+"` |") {
			t.Errorf("the table in docs/build/http.md has no row for %s", m[1])
		}
	}
}
