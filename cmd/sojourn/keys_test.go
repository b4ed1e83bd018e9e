package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/sojourntest"
)

func TestKeygenPrintsOneNewEntry(t *testing.T) {
	t.Parallel()
	one, two := sojournCommand(t, "keygen").ok(t).stdout, sojournCommand(t, "keygen").ok(t).stdout
	if one == two {
		t.Error("two keys are the same")
	}
	if strings.Count(one, "\n") != 1 || !strings.HasPrefix(one, "active:") {
		t.Errorf("got %q", one)
	}
	if _, err := sojourn.ParseKeys("entries:2 " + one + two); err != nil {
		t.Error(err)
	}
}

func TestKeygenMakesKeysOfEachState(t *testing.T) {
	t.Parallel()
	var text string
	for _, state := range []string{"active", "published", "index"} {
		entry := sojournCommand(t, "keygen", "--state", state).ok(t).stdout
		if !strings.HasPrefix(entry, state+":") {
			t.Errorf("got %q, want state %s", entry, state)
		}
		text += entry
	}
	if _, err := sojourn.ParseKeys("entries:3 " + text); err != nil {
		t.Error(err)
	}
	sojournCommand(t, "keygen", "--state", "old").refused(t, exitUsage, "state")
	sojournCommand(t, "keygen", "--state", "index", "--file", "keys").refused(t, exitUsage, "--state")
}

func TestKeygenMakesAKeyFileForItsOwnerOnly(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "new", "session.keys")
	if r := sojournCommand(t, "keygen", "-file", path).ok(t); !strings.Contains(r.stdout, path) || strings.Contains(r.stdout, "active:") {
		t.Errorf("got %q", r.stdout)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
	if _, err := sojourn.LoadKeyFile(path); err != nil {
		t.Error(err)
	}
}

func TestKeygenNeverOverwrites(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "session.keys")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	dangling := path + ".link"
	if err := os.Symlink(filepath.Join(t.TempDir(), "nothing"), dangling); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, dangling} {
		sojournCommand(t, "keygen", "--file", p).refused(t, exitFailed, p, "never overwritten")
	}
	if text, _ := os.ReadFile(path); string(text) != "precious" {
		t.Errorf("the file is now %q", text)
	}
}

func TestKeysMayComeFromTheEnvironment(t *testing.T) {
	t.Parallel()
	text := keys.Generate()
	keys, err := sojourn.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	s := newService(t, sojourn.Config{})
	s.sessions = sojourntest.NewManager(t, sojourn.Config{Keys: keys, Store: s.database})
	handle, _ := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	r := call{env: []string{"SOJOURN_KEYS=" + text}}.run(t, "inspect", handle, "--store", s.store).ok(t)
	if !strings.Contains(r.stdout, "ada") {
		t.Errorf("got %s", r.stdout)
	}
	// The flag takes precedence over the variable.
	call{env: []string{"SOJOURN_KEYS=" + text}}.run(t, "inspect", handle, "--store", s.store, "--keys", s.keys).
		refused(t, exitFailed, "the keys open no session")
	call{env: []string{"SOJOURN_KEYS=nonsense"}}.run(t, "inspect", handle, "--store", s.store).
		refused(t, exitFailed, "SOJOURN_KEYS", "entry 1")
}

func TestAKeyFileThatEverybodyCanReadIsWarnedAbout(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	handle, _ := s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	if err := os.Chmod(s.keys, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"inspect", handle}, {"ls"}, {"user", "list", "ada"}, {"end", handle}} {
		r := sojournCommand(t, append(args, "--store", s.store, "--keys", s.keys)...)
		if r.status != exitOK || strings.Count(r.stderr, "warning: services refuse") != 1 {
			t.Errorf("%s: exit status %d, stderr %q", args[0], r.status, r.stderr)
		}
	}
}

func TestABadKeyFileIsRefusedWithoutRepeatingIt(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys")
	for name, text := range map[string]string{
		"no key":    "# nothing\n",
		"bad entry": "active:20261120T131500Z:secret-but-short\n",
		"too long":  strings.Repeat("#", 70<<10),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := sojournCommand(t, "inspect", "--keys", path)
		r.refused(t, exitFailed, path)
		if strings.Contains(r.stderr, "secret-but-short") {
			t.Errorf("%s: the error repeats the key: %q", name, r.stderr)
		}
	}
	sojournCommand(t, "inspect", "--keys", t.TempDir()).refused(t, exitFailed, "is not a regular file")
}
