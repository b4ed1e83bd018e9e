package admin

import (
	"slices"
	"testing"
	"unicode/utf8"
)

func FuzzParseAgent(f *testing.F) {
	for _, header := range []string{
		"", "curl/8.0", "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0",
		"Mozilla/5.0 (iPad; CPU OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.1 Mobile/15E148 Safari/604.1",
		"<script>/1 (x;y", "((((;;;;", "\xff/\xff",
	} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		a := parseAgent(header)
		// 40 characters of a name, " on ", a system, and versions.
		if name := a.Name(); name == "" || len(name) > 200 || utf8.ValidString(header) && !utf8.ValidString(name) {
			t.Errorf("%q is called %q", header, name)
		}
		if !slices.Contains([]string{"computer", "phone", "tablet", "program"}, a.Icon) {
			t.Errorf("%q has the icon %q", header, a.Icon)
		}
	})
}
