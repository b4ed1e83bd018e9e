package sojourn_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheSecurityModelNamesTestsThatExist keeps the tables of docs/security.md
// honest: a test that is renamed or removed is one there, too.
func TestTheSecurityModelNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("docs/security.md")
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
			t.Errorf("docs/security.md names %s, which does not exist", n[1])
		}
	}
}

// TestTheSecurityModelHasEveryItem checks that no line of the two chapters is
// missing, and that each is met by something or left to the application.
func TestTheSecurityModelHasEveryItem(t *testing.T) {
	text, err := os.ReadFile("docs/security.md")
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
