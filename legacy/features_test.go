package legacy_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTheFeaturesNameTestsThatExist reads docs/migrate/features.md: each row
// for a supported feature must name a test of it, and that test must exist.
func TestTheFeaturesNameTestsThatExist(t *testing.T) {
	doc, err := os.ReadFile("../docs/migrate/features.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := repositoryTests(t)
	rows := 0
	for line := range strings.Lines(string(doc)) {
		line = strings.TrimSpace(line)
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| feature") {
			continue
		}
		rows++
		if len(cells) != 4 {
			t.Errorf("%s: %d cells", line, len(cells))
			continue
		}
		there, named := strings.TrimSpace(cells[2]), strings.Trim(strings.TrimSpace(cells[3]), "`")
		if strings.HasPrefix(there, "**") || named == "–" {
			if !strings.Contains(there, "**missing**") && !strings.Contains(there, "**not a session's business**") || named != "–" {
				t.Errorf("%s: no test for what is there, or one for what is not", line)
			}
			continue
		}
		folder, name, inFolder := strings.Cut(named, ".")
		if !inFolder {
			folder, name = "", named
		}
		if !tests[name] && !inFolder || inFolder && !tests[folder+"."+name] {
			t.Errorf("%s: there is no test %s", line, named)
		}
	}
	if rows < 90 {
		t.Errorf("only %d features", rows)
	}
}

// repositoryTests returns the names of all tests of the repository, alone and with
// their folders.
func repositoryTests(t *testing.T) map[string]bool {
	t.Helper()
	test := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	tests := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		folder := filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), ".."+string(filepath.Separator)))
		for _, m := range test.FindAllStringSubmatch(string(b), -1) {
			tests[m[1]], tests[folder+"."+m[1]] = true, true
		}
		return nil
	})
	if err != nil || len(tests) == 0 {
		t.Fatal(err)
	}
	return tests
}
