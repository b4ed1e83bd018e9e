package prose

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// patterns are the patterns that docs/style.md rules out, with replacements.
var patterns = []struct {
	pattern *regexp.Regexp
	instead string
}{
	{regexp.MustCompile(`\banew\b`), "again"},
	{regexp.MustCompile(`\black(s|ing)\b`), "does not have, without, missing"},
	{regexp.MustCompile(`\b(is|are|was|were) to be\b`), "must be, had to be"},
	{regexp.MustCompile(`\bof before\b`), "previous, old"},
	{regexp.MustCompile(`, too([.,;:)]|$)`), "also, as well, or nothing"},
	{regexp.MustCompile(`(^|[.!?] )Who (?:[a-z]+ ){0,3}(is|has|had|does|can|gets|keeps|may|makes|seals|stays)\b`), "a subject: a user who, a process that"},
	{regexp.MustCompile(`(^|[.!?] )(What|Whoever) (meets|could|cannot)\b`), "a subject"},
	{regexp.MustCompile(`\bcould not be told\b`), "missed the invalidation"},
}

// spared are files with foreign text, or about the patterns.
var spared = []string{"docs/style.md", "LICENSE"}

// check returns the problems of a line.
func check(line string) (wrong []string) {
	for _, p := range patterns {
		if m := p.pattern.FindString(line); m != "" {
			wrong = append(wrong, "\""+strings.TrimSpace(m)+"\": write "+p.instead)
		}
	}
	return wrong
}

func TestPagesAndCommentsAreInPlainEnglish(t *testing.T) {
	top, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(top, path)
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && name != ".") {
			return filepath.SkipDir
		}
		if err != nil || d.IsDir() || slices.Contains(spared, name) {
			return err
		}
		var lines map[int]string
		switch filepath.Ext(name) {
		case ".md":
			lines, err = page(path)
		case ".go":
			if strings.HasSuffix(name, filepath.Join("prose", "prose_test.go")) {
				return nil
			}
			lines, err = comments(path)
		default:
			return nil
		}
		files++
		for number, line := range lines {
			for _, wrong := range check(line) {
				t.Errorf("%s:%d: %s", name, number, wrong)
			}
		}
		return err
	})
	if err != nil || files < 500 {
		t.Fatalf("%d files, %v", files, err)
	}
}

var (
	code = regexp.MustCompile("`[^`]*`")
	link = regexp.MustCompile(`\]\([^)]*\)`)
)

// page returns the lines of a page that are prose, by their number.
func page(path string) (map[int]string, error) {
	text, err := os.ReadFile(path)
	lines, inCode := map[int]string{}, false
	for i, line := range strings.Split(string(text), "\n") {
		if strings.HasPrefix(strings.TrimSpace(line), "```") {
			inCode = !inCode
		} else if !inCode {
			lines[i+1] = link.ReplaceAllString(code.ReplaceAllString(line, "x"), "]")
		}
	}
	return lines, err
}

// comments returns the lines of a file's comments, by their number.
func comments(path string) (map[int]string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	lines := map[int]string{}
	set := token.NewFileSet()
	file := set.AddFile(path, -1, len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, scanner.ScanComments)
	for {
		at, what, lit := s.Scan()
		if what == token.EOF {
			return lines, nil
		}
		if what == token.COMMENT {
			for i, line := range strings.Split(lit, "\n") {
				lines[file.Line(at)+i] = strings.TrimPrefix(strings.TrimSpace(line), "// ")
			}
		}
	}
}

func TestEachPatternIsFound(t *testing.T) {
	for _, line := range []string{
		"The lifetime starts anew.", "a key that the ring lacks", "where they are lacking", "a cookie that is to be set",
		"the cookies of before", "It is gone, too.", "It is gone, too", "That holds. Who logs in again keeps it.",
		"Who could do that may.", "What meets is merged.", "a cache that could not be told",
	} {
		if len(check(line)) == 0 {
			t.Errorf("nothing is found in %q", line)
		}
	}
	for _, line := range []string{"too many, too late", "It ends again.", "what a user who logs in has", "The question is who is there."} {
		if wrong := check(line); len(wrong) > 0 {
			t.Errorf("%q: %v", line, wrong)
		}
	}
}
