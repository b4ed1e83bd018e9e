package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
)

// anySecret matches 32 bytes in base64url outside of a path.
var anySecret = regexp.MustCompile(`(^|[^/A-Za-z0-9_-])[A-Za-z0-9_-]{43}([^A-Za-z0-9_-]|$)`)

// keysCommand runs sojourn keys, and checks that it prints no secret.
func keysCommand(t *testing.T, args ...string) result {
	t.Helper()
	r := sojournCommand(t, append([]string{"keys"}, args...)...)
	if anySecret.MatchString(r.stdout + r.stderr) {
		t.Errorf("keys %q prints a secret", args)
	}
	return r
}

// keysResult is the documented output of the commands with --json.
type keysResult struct {
	File  string `json:"file"`
	Index bool   `json:"index"`
	Keys  []struct {
		ID        string     `json:"id"`
		State     string     `json:"state"`
		Seals     bool       `json:"seals"`
		Created   *time.Time `json:"created"`
		Activated *time.Time `json:"activated"`
		Retired   *time.Time `json:"retired"`
	} `json:"keys"`
	Changed []string `json:"changed"`
	Next    string   `json:"next"`
	Wait    int      `json:"wait_seconds"`
}

func keysJSONOf(t *testing.T, args ...string) (out keysResult) {
	t.Helper()
	keysCommand(t, append(args, "--json")...).ok(t).json(t, &out)
	return out
}

// states returns the states of the keys, in order, with a star at the key that
// seals.
func (k keysResult) states() string {
	var all []string
	for _, one := range k.Keys {
		if one.Seals {
			one.State += "*"
		}
		all = append(all, one.State)
	}
	return strings.Join(all, " ")
}

func newKeyFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "session.keys")
	if _, err := sojourn.LoadKeyFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// entryOf is a key that was made some time ago.
func entryOf(state string, ago time.Duration) string {
	_, rest, _ := strings.Cut(keys.Generate(), ":")
	_, secret, _ := strings.Cut(rest, ":")
	return state + ":" + time.Now().Add(-ago).UTC().Format(noteTime) + ":" + secret
}

// keysOf is a text of several entries.
func keysOf(entries ...string) string {
	return fmt.Sprintf("entries:%d\n%s\n", len(entries), strings.Join(entries, "\n"))
}

func TestARollOutGoesThroughItsStages(t *testing.T) {
	t.Parallel()
	path := newKeyFile(t)
	ring, err := sojourn.LoadKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	now := []string{"--reload", "0s", "--lifetime", "0s"}
	for _, stage := range []struct {
		command, states, next string
		changed               int
	}{
		{"list", "active*", "", 0},
		{"add", "active* published", "sojourn keys activate", 1},
		{"list", "active* published", "sojourn keys activate", 0},
		{"activate", "active active*", "sojourn keys retire", 1},
		{"retire", "retired active*", "sojourn keys remove", 1},
		{"remove", "active*", "", 1},
	} {
		got := keysJSONOf(t, append([]string{stage.command, path}, now...)...)
		if got.states() != stage.states || len(got.Changed) != stage.changed || !strings.Contains(got.Next, stage.next) ||
			(stage.next == "") != (got.Next == "") || !got.Index || got.File != path {
			t.Errorf("%s: %+v", stage.command, got)
		}
		// A running service accepts each of them.
		if err := ring.Replace(read(t, path)); err != nil {
			t.Errorf("after %s: %v", stage.command, err)
		}
	}
	if strings.Contains(read(t, path), "retired 20") {
		t.Errorf("notes about a key that is gone are left:\n%s", read(t, path))
	}
}

func TestEachStageSaysWhatIsNextAndHowLongToWait(t *testing.T) {
	t.Parallel()
	path := newKeyFile(t)
	// On a busy machine a second may have passed since.
	waits := func(text string, around ...string) bool {
		return slices.ContainsFunc(around, func(d string) bool { return strings.Contains(text, "next: wait "+d) })
	}
	if r := keysCommand(t, "add", path, "--reload", "5m").ok(t); !waits(r.stdout, "5m0s, until ", "4m5") || !strings.Contains(r.stdout, "sojourn keys activate "+path) {
		t.Errorf("add: %s", r.stdout)
	}
	keysCommand(t, "activate", path, "--reload", "5m").refused(t, exitFailed, "wait ", "--now")
	if got := keysJSONOf(t, "list", path, "--reload", "5m"); got.Wait < 200 || got.Wait > 300 || got.states() != "active* published" {
		t.Errorf("after a refusal: %+v", got)
	}
	keysCommand(t, "activate", path, "--reload", "0s").ok(t)
	if r := keysCommand(t, "list", path, "--reload", "5m").ok(t); !strings.Contains(r.stdout, "sojourn keys retire") {
		t.Errorf("list: %s", r.stdout)
	}
	if r := keysCommand(t, "retire", path, "--lifetime", "48h", "--reload", "0s").ok(t); !waits(r.stdout, "48h0m0s", "47h59m5") {
		t.Errorf("retire: %s", r.stdout)
	}
	keysCommand(t, "remove", path, "--lifetime", "48h").refused(t, exitFailed, "was retired at", "wait 4")
	if got := keysJSONOf(t, "list", path); got.states() != "retired active*" {
		t.Errorf("after a refusal: %+v", got)
	}
}

func TestOneStageCannotBeTakenForAnother(t *testing.T) {
	t.Parallel()
	path := newKeyFile(t)
	id := keysJSONOf(t, "list", path).Keys[0].ID
	before := read(t, path)
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"activate", path}, "no published key"},
		{[]string{"retire", path}, "only one is active"},
		{[]string{"retire", path, "--key", id}, "the one that seals"},
		{[]string{"retire", path, "--key", "00000000"}, "no key of that id"},
		{[]string{"remove", path}, "no key is retired"},
		{[]string{"remove", path, "--key", id}, "retire it first"},
		{[]string{"remove", path, "--key", "00000000"}, "no key of that id"},
	} {
		keysCommand(t, tt.args...).refused(t, exitFailed, tt.says)
	}
	if read(t, path) != before {
		t.Error("a refusal changed the file")
	}
	keysCommand(t, "add", path).ok(t)
	keysCommand(t, "add", path).refused(t, exitFailed, "is published already")
	keysCommand(t, "activate", path, "--reload", "-1s").refused(t, exitUsage, "--reload")
	keysCommand(t, "remove", path, "--lifetime", "-1s").refused(t, exitUsage, "--lifetime")
	keysCommand(t, "check", path, "--age", "0s").refused(t, exitUsage, "--age")
}

func TestAChangeKeepsModeCommentsAndLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, link := filepath.Join(dir, "real.keys"), filepath.Join(dir, "link.keys")
	first, index := entryOf("active", time.Hour), entryOf("index", time.Hour)
	text := "# our keys, see the wiki\nentries:2, # counted\n" + first + ", # from the first year\n\n" + index + " # never change\n# the end"
	write(t, path, text)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"add", "activate", "retire"} {
		keysCommand(t, command, link, "--reload", "0s").ok(t)
	}
	after := read(t, path)
	for _, line := range []string{"# our keys, see the wiki\n", ", # from the first year\n\n", index + " # never change\n# the end\n", "retired" + first[len("active"):]} {
		if !strings.Contains(after, line) {
			t.Errorf("%q is not there any more", line)
		}
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("the file's mode is now %v: %v", info.Mode(), err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is now %v: %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	keysCommand(t, "remove", link, "--reload", "0s", "--lifetime", "0s").ok(t)
	if after := read(t, path); strings.Contains(after, first[len("active"):]) || !strings.Contains(after, "# from the first year") {
		t.Error("the key is still there, or somebody's comment is not")
	}
}

func TestKeysInOneLineAreChangedOneByOne(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys")
	one, two, three := entryOf("active", 3*time.Hour), entryOf("active", 2*time.Hour), entryOf("published", time.Hour)
	write(t, path, "entries:4 "+entryOf("index", time.Hour)+","+one+"\t"+two+" "+three)
	for _, want := range []struct{ command, states string }{
		{"activate", "active active active*"},
		{"retire", "retired retired active*"},
		{"remove", "active*"},
	} {
		if got := keysJSONOf(t, want.command, path, "--lifetime", "0s", "--reload", "0s"); got.states() != want.states {
			t.Errorf("%s: %s, want %s", want.command, got.states(), want.states)
		}
	}
	if !strings.Contains(read(t, path), "active"+three[len("published"):]) {
		t.Error("another key is left than the newest")
	}
}

func TestTheKeyThatStandsInForAnIndexEntryStays(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys")
	write(t, path, keysOf(entryOf("retired", 9000*time.Hour), entryOf("active", time.Hour)))
	keysCommand(t, "remove", path, "--lifetime", "0s", "--reload", "0s").refused(t, exitFailed, "no index entry")
	if got := keysJSONOf(t, "list", path); got.Index || got.Next != "" {
		t.Errorf("list: %+v", got)
	}
}

func TestANewKeyIsTheNewestEvenIfAClockWasWrong(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys")
	write(t, path, keysOf(entryOf("index", 0), entryOf("active", -48*time.Hour)))
	keysCommand(t, "add", path).ok(t)
	if got := keysJSONOf(t, "activate", path, "--reload", "0s"); got.states() != "active active*" {
		t.Errorf("got %+v", got)
	}
}

func TestCheckFindsWhatIsWrongOrRisky(t *testing.T) {
	t.Parallel()
	index := "entries:2 " + entryOf("index", time.Hour) + "\n"
	three := "entries:3 " + entryOf("index", time.Hour) + "\n"
	for name, tt := range map[string]struct {
		text string
		mode os.FileMode
		says []string
	}{
		"open to everybody":       {index + entryOf("active", time.Hour), 0o644, []string{"wrong: services refuse the file", "chmod o=", "defaultMode: 0400"}},
		"written by its group":    {index + entryOf("active", time.Hour), 0o620, []string{"wrong: services refuse the file", "chmod g="}},
		"cut short":               {three + entryOf("active", time.Hour), 0o600, []string{"wrong: services refuse it", "it says 3, and 2 are there"}},
		"changed by its group":    {index + entryOf("active", time.Hour), 0o660, []string{"risky: all members of the file's group"}},
		"not a key":               {index + "active:secret", 0o600, []string{"wrong: services refuse it"}},
		"no active key":           {index + entryOf("published", time.Hour), 0o600, []string{"wrong: services refuse it"}},
		"no index entry":          {entryOf("active", time.Hour), 0o600, []string{"risky: there is no index entry"}},
		"several active keys":     {three + entryOf("active", 2*time.Hour) + " " + entryOf("active", time.Hour), 0o600, []string{"is active and does not seal"}},
		"a stage skipped":         {three + entryOf("retired", time.Hour) + " " + entryOf("active", -50*time.Second), 0o600, []string{"a stage was skipped"}},
		"an old key seals":        {index + entryOf("active", 9000*time.Hour), 0o600, []string{"seals and is 375 days old", "sojourn keys add"}},
		"never activated":         {three + entryOf("active", time.Hour) + " " + entryOf("published", 9000*time.Hour), 0o600, []string{"never became active"}},
		"made in the future":      {index + entryOf("active", -48*time.Hour), 0o600, []string{"made in the future"}},
		"two at once, both named": {entryOf("active", 9000*time.Hour), 0o644, []string{"all users", "no index entry", "375 days"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys")
			write(t, path, tt.text)
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			r := keysCommand(t, "check", path)
			if r.status != exitFailed || strings.Count(r.stderr, "\n") != 1 || strings.Count(r.stdout, "\n") < len(tt.says)/2 {
				t.Errorf("exit status %d, stdout %q, stderr %q", r.status, r.stdout, r.stderr)
			}
			for _, says := range tt.says {
				if !strings.Contains(r.stdout, says) {
					t.Errorf("%q does not say %q", r.stdout, says)
				}
			}
			var found []complaint
			keysCommand(t, "check", path, "--json").json(t, &found)
			if len(found) != strings.Count(r.stdout, "\n") {
				t.Errorf("as JSON: %+v", found)
			}
		})
	}
}

func TestCheckHasNothingToSayAboutAGoodFile(t *testing.T) {
	t.Parallel()
	path := newKeyFile(t)
	if r := keysCommand(t, "check", path).ok(t); r.stdout != path+" is fine\n" {
		t.Errorf("got %q", r.stdout)
	}
	r := keysCommand(t, "check", path, "--json").ok(t)
	if strings.TrimSpace(r.stdout) != "[]" {
		t.Errorf("got %q", r.stdout)
	}
	env := call{env: []string{"SOJOURN_KEYS=" + read(t, path)}}
	env.run(t, "keys", "check").ok(t)
	if r := env.run(t, "keys", "list").ok(t); !strings.Contains(r.stdout, "active") || anySecret.MatchString(r.stdout) {
		t.Errorf("list: %s", r.stdout)
	}
	keysCommand(t, "check").refused(t, exitUsage, "SOJOURN_KEYS")
	keysCommand(t, "list", filepath.Join(t.TempDir(), "none")).refused(t, exitFailed, "no such file")
	keysCommand(t, "add", filepath.Join(t.TempDir(), "none")).refused(t, exitFailed, "no such file")
}

// A service may read the file at any moment, so it must always be complete.
func TestAKeyFileIsReplacedAllAtOnce(t *testing.T) {
	t.Parallel()
	path := newKeyFile(t)
	stop, failed := make(chan struct{}), make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			text, err := os.ReadFile(path)
			if err == nil {
				_, err = sojourn.ParseKeys(string(text))
			}
			if err != nil {
				failed <- fmt.Errorf("%w in %d bytes", err, len(text))
				return
			}
		}
	}()
	for range 5 {
		for _, command := range []string{"add", "activate", "retire", "remove"} {
			keysCommand(t, command, path, "--reload", "0s", "--lifetime", "0s").ok(t)
		}
	}
	close(stop)
	if err := <-failed; err != nil {
		t.Error(err)
	}
}

// An operator edits the file by hand while a command is running.
func TestAChangeMeanwhileIsNotOverwritten(t *testing.T) {
	t.Parallel()
	path := newKeyFile(t)
	file, err := readKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	before := file.text
	file.append(entryOf("published", 0))
	write(t, path, before+"# a comment\n")
	if err := file.save(before); err == nil || !strings.Contains(err.Error(), "somebody else has changed it") {
		t.Errorf("got %v", err)
	}
	if read(t, path) != before+"# a comment\n" {
		t.Error("the change was overwritten")
	}
}

// The index key must not change, so an edit that changes it is refused.
func TestAnEditThatChangesTheIndexKeyIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys")
	write(t, path, keysOf(entryOf("retired", 9000*time.Hour), entryOf("active", time.Hour)))
	file, err := readKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	before := file.text
	file.remove(&file.keys[0])
	if err := file.save(before); err == nil || !strings.Contains(err.Error(), "finds users' sessions") {
		t.Errorf("got %v", err)
	}
	if read(t, path) != before {
		t.Error("the file was changed")
	}
}
