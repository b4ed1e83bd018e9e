package prose

import (
	"encoding/json"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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
	{regexp.MustCompile(`(^|[.!?] )What (could|cannot)\b`), "a subject"},
	{regexp.MustCompile(`(?i)\bwhat meets\b`), "a subject: concurrent requests, conflicting changes"},
	{regexp.MustCompile(`(?i)\bwhoever\b`), "a subject: a user who, a process that"},
	{regexp.MustCompile(`\bfor ever\b`), "forever, without limit"},
	{regexp.MustCompile(`\ball the same\b`), "nevertheless, or nothing"},
	{regexp.MustCompile(`\bgoes by\b`), "uses, follows"},
	{regexp.MustCompile(`\bcould not be told\b`), "missed the invalidation"},
	{regexp.MustCompile(`\b(process|replica|cache|store|server|browser|request|manager)(e?s)? ` +
		`(is|are|was|were|has been|have been|must be|can be)( not)? told\b`), "receives, or what is sent to it"},
	{regexp.MustCompile(`\b(is|are|was|were|be|been) heard\b|\b(that|cannot|not|nobody|[a-z]+s) hears?\b`), "receives, reads"},
}

// spared are files with foreign text, or about the patterns.
var spared = []string{"docs/style.md", "LICENSE"}

// check returns what is wrong with a text.
func check(text string) (wrong []string) {
	for _, p := range patterns {
		if m := p.pattern.FindString(text); m != "" {
			wrong = append(wrong, "\""+strings.TrimSpace(m)+"\": write "+p.instead)
		}
	}
	return wrong
}

// line is a piece of text for people.
type line struct {
	number int // in its file
	text   string
}

// readers have, for a file's extension, what reads the text for people in it.
var readers = map[string]func(string) ([]line, error){
	".md": page, ".go": source, ".html": template, ".gohtml": template, ".tmpl": template,
}

func TestTextsAreInPlainEnglish(t *testing.T) {
	top, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]int{}
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(top, path)
		if d.IsDir() && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && name != ".") {
			return filepath.SkipDir
		}
		if err != nil || d.IsDir() || slices.Contains(spared, name) {
			return err
		}
		kind := filepath.Ext(name)
		read := readers[kind]
		if filepath.Base(name) == "en.json" {
			kind, read = "en.json", translations
		}
		if read == nil || strings.HasSuffix(name, filepath.Join("prose", "prose_test.go")) {
			return nil
		}
		files[kind]++
		lines, err := read(path)
		for _, l := range lines {
			for _, wrong := range check(l.text) {
				t.Errorf("%s:%d: %s", name, l.number, wrong)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for kind, least := range map[string]int{".md": 50, ".go": 450, ".html": 25, "en.json": 1} {
		if files[kind] < least {
			t.Errorf("only %d files are %s", files[kind], kind)
		}
	}
}

// split returns the lines of a text that begins at that line of a file.
func split(number int, text string) (lines []line) {
	for i, l := range strings.Split(text, "\n") {
		lines = append(lines, line{number + i, strings.TrimSpace(l)})
	}
	return lines
}

var (
	code   = regexp.MustCompile("`[^`]*`")
	link   = regexp.MustCompile(`\]\([^)]*\)`)
	action = regexp.MustCompile(`\{\{.*?\}\}`)
	value  = regexp.MustCompile(`="([^"]* [^"]*)"`) // of an attribute
	tag    = regexp.MustCompile(`<[^>]*>`)
)

// page returns the lines of a page, without code and addresses.
func page(path string) (lines []line, err error) {
	text, err := os.ReadFile(path)
	inCode := false
	for _, l := range split(1, string(text)) {
		if strings.HasPrefix(l.text, "```") {
			inCode = !inCode
		} else if !inCode {
			lines = append(lines, line{l.number, link.ReplaceAllString(code.ReplaceAllString(l.text, "x"), "]")})
		}
	}
	return lines, err
}

// template returns the text and the attributes of an HTML template.
func template(path string) (lines []line, err error) {
	text, err := os.ReadFile(path)
	for _, l := range split(1, string(text)) {
		l.text = action.ReplaceAllString(l.text, "x")
		for _, v := range value.FindAllStringSubmatch(l.text, -1) {
			lines = append(lines, line{l.number, v[1]})
		}
		lines = append(lines, line{l.number, strings.TrimSpace(tag.ReplaceAllString(l.text, ""))})
	}
	return lines, err
}

// translations returns the texts of a translation file, all as of its first line.
func translations(path string) (lines []line, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var texts map[string]any
	err = json.Unmarshal(text, &texts)
	var collect func(any)
	collect = func(v any) {
		switch v := v.(type) {
		case string:
			lines = append(lines, line{1, v})
		case map[string]any:
			for _, one := range v {
				collect(one)
			}
		case []any:
			for _, one := range v {
				collect(one)
			}
		}
	}
	collect(texts)
	return lines, err
}

// source returns the comments of a Go file and, unless it is a test, its string
// literals of four words or more: errors, log lines, help texts.
func source(path string) (lines []line, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	set := token.NewFileSet()
	file := set.AddFile(path, -1, len(text))
	var s scanner.Scanner
	s.Init(file, text, nil, scanner.ScanComments)
	for {
		at, what, lit := s.Scan()
		switch what {
		case token.EOF:
			return lines, nil
		case token.COMMENT:
			lines = append(lines, split(file.Line(at), strings.TrimPrefix(strings.TrimSpace(lit), "// "))...)
		case token.STRING:
			literal, err := strconv.Unquote(lit)
			if err != nil {
				return nil, err
			}
			if !strings.HasSuffix(path, "_test.go") && len(strings.Fields(literal)) >= 4 {
				lines = append(lines, split(file.Line(at), literal)...)
			}
		}
	}
}

func TestEachPatternIsFound(t *testing.T) {
	for _, text := range []string{
		"The lifetime starts anew.", "a key that the ring lacks", "where they are lacking", "a cookie that is to be set",
		"the cookies of before", "It is gone, too.", "It is gone, too", "That holds. Who logs in again keeps it.",
		"Who could do that may.", "What meets is merged.", "a cache that could not be told",
		"It ends. What cannot be kept is dropped.", "Whoever logs in", "the result of whoever was faster", "It is kept for ever.",
		"They are edited all the same.", "what a limit goes by", "the caches must be told", "so that a process is told of it",
		"each browser is not told", "replicas that hear of it", "nobody hears them", "it was heard",
	} {
		if len(check(text)) == 0 {
			t.Errorf("nothing is found in %q", text)
		}
	}
	for _, text := range []string{
		"too many, too late", "It ends again.", "what a user who logs in has", "The question is who is there.",
		"The visitor is told to sign in again.", "Nothing was unheard of.",
	} {
		if wrong := check(text); len(wrong) > 0 {
			t.Errorf("%q: %v", text, wrong)
		}
	}
}
