//go:build !race

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
)

// Texts that change from run to run, and their replacements.
var (
	changing = []struct {
		pattern *regexp.Regexp
		is      string
	}{
		{regexp.MustCompile(`/\S*/(session\.keys|sessions\.db|nothing\.db)`), "DIR/$1"},
		{regexp.MustCompile(`\b[a-z2-7]{26}\b`), "abcdefghijklmnopqrstuvwxyz"},
		{regexp.MustCompile(`\b\d{4}-\d\d-\d\d([ T])\d\d:\d\d(:\d\d)?(\.\d+)?`), "2026-12-01${1}12:00"},
		{regexp.MustCompile(`\(\d+ s ago\)`), "(1 s ago)"},
		{regexp.MustCompile(`\bwait \d+s\b`), "wait 10s"},
		{regexp.MustCompile(`\b\d{8}T\d{6}Z`), "20261201T120000Z"},
		{regexp.MustCompile(`\b(key )?[0-9a-f]{8}\b`), "${1}01234567"},
		{regexp.MustCompile(`\b\d{3} B\b|\b\d{3} bytes\b|"(size|bytes)": \d+`), "300 bytes"},
		{regexp.MustCompile(`save ids? .*`), "save IDs 0123456789abcdef"},
		{regexp.MustCompile(`sojourn v?\S+, go\S+.*`), "sojourn v0.1.0, go1.26"},
	}
	spaces = regexp.MustCompile(` {2,}`)
)

func steady(text string) string {
	for _, c := range changing {
		text = c.pattern.ReplaceAllString(text, c.is)
	}
	return spaces.ReplaceAllString(text, "  ")
}

// TestWhatTheCommandSaysIsReviewed compares help and outputs with testdata/golden.txt,
// so that a change of wording shows in a review. UPDATE_GOLDEN=1 writes the file.
func TestWhatTheCommandSaysIsReviewed(t *testing.T) {
	var got strings.Builder
	show := func(title string, args ...string) {
		t.Helper()
		r := sojournCommand(t, args...)
		fmt.Fprintf(&got, "$ sojourn %s\n%s", title, r.stdout)
		for line := range strings.Lines(r.stderr) {
			fmt.Fprintf(&got, "stderr: %s", line)
		}
		fmt.Fprintf(&got, "exit status %d\n\n", r.status)
	}
	show("help", "help")
	var seen []string
	for _, c := range everyCommand {
		command := strings.Join(words(c.args), " ")
		if command == "version" || slices.Contains(seen, command) {
			continue
		}
		seen = append(seen, command)
		show(command+" --help", append(slices.Clone(words(c.args)), "--help")...)
	}

	s := newService(t, sojourn.Config{})
	ada, _ := s.visit(t, func(session *sojourn.Session) {
		session.Login("ada", "pwd")
		session.Set("theme", "dark")
		session.Flash("success", "Saved.")
	})
	s.visit(t, func(session *sojourn.Session) { cart.Set(session, []string{"mug"}) })
	db, keys := "--store="+s.store, "--keys="+s.keys
	for _, c := range []struct {
		title string
		args  []string
	}{
		{"stats", []string{"stats", db}},
		{"show HANDLE", []string{"show", ada, db}},
		{"inspect HANDLE", []string{"inspect", ada, db, keys}},
		{"ls --user ada", []string{"ls", "--user", "ada", db, keys}},
		{"user list ada", []string{"user", "list", "ada", db, keys}},
		{"user list nobody", []string{"user", "list", "nobody", db, keys}},
		{"user export ada", []string{"user", "export", "ada", db, keys}},
		{"end HANDLE", []string{"end", ada, db, keys}},
		{"end HANDLE, again", []string{"end", ada, db, keys}},
		{"user revoke ada", []string{"user", "revoke", "ada", db, keys}},
		{"restored", []string{"restored", db}},
		{"sweep", []string{"sweep", db}},
		{"keys list", []string{"keys", "list", s.keys}},
		{"keys check", []string{"keys", "check", s.keys}},
		{"keys add", []string{"keys", "add", s.keys}},
		{"keys activate", []string{"keys", "activate", s.keys}},
		{"keys retire", []string{"keys", "retire", s.keys}},
		{"ls, of a store that is not there", []string{"ls", "--store=sqlite:" + filepath.Join(t.TempDir(), "nothing.db")}},
		{"ls, without a store", []string{"ls"}},
		{"lss", []string{"lss"}},
	} {
		show(c.title, c.args...)
	}

	file := filepath.Join("testdata", "golden.txt")
	text := steady(got.String())
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	has, wants := strings.Split(text, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(has), len(wants)) {
		a, b := at(has, i), at(wants, i)
		if a != b {
			t.Fatalf("%s:%d: the command says\n\t%s\nand the file\n\t%s\nIf that is right: UPDATE_GOLDEN=1 go test -run Reviewed ./cmd/sojourn", file, i+1, a, b)
		}
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return "(nothing)"
}
