package sojourn_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestTheSecurityModelNamesTestsThatExist keeps the tables of docs/run/security.md
// honest: a test that is renamed or removed is one there, too.
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
