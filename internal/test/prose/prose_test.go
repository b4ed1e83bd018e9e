package prose

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// patterns are phrases that readers stumble over: see docs/style.md.
var patterns = []string{
	`\banew\b`,
	`\black(?:s|ing)\b`,
	`\bis to be\b`,
	`\bof before\b`,
	`, too[.:;)]`,
	`\b[Ww]hoever\b`,
	`\bwhat meets\b`,
	`(?:^|[.!?] )Who [a-z][^?\n]*\.`,
	`\bcould not be told\b`,
	`\b(?:process|replica|browser|cache|store|server|stream)s? (?:hears?|tells?|looks?)\b`,
}

// code is what the patterns do not apply to.
var code = regexp.MustCompile("(?ms)^<!--go$.*?^-->$|^```.*?^```$|`[^`\n]*`")

func TestTheGuideIsPlainEnglish(t *testing.T) {
	top := "../../.."
	var names []string
	for _, pattern := range []string{"README.md", "docs/README.md", "docs/start.md", "docs/reference.md", "docs/build/*.md", "docs/run/*.md"} {
		found, err := filepath.Glob(filepath.Join(top, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %d pages, %v", pattern, len(found), err)
		}
		names = append(names, found...)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		plain := code.ReplaceAllString(string(text), "x")
		for _, p := range patterns {
			for _, at := range regexp.MustCompile("(?m)"+p).FindAllStringIndex(plain, -1) {
				t.Errorf("%s: …%s… matches %s", name, plain[max(at[0]-40, 0):at[1]], p)
			}
		}
	}
}
