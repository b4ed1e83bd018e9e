//go:build !race

package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
)

// These tests are sequential and slow, so the race detector does not run them.

// everyCommand are all commands with their required and optional arguments,
// except the store and the keys.
var everyCommand = []struct {
	args        []string
	store, keys bool
	missing     bool // without its arguments it is a mistake
}{
	{args: []string{"keygen"}},
	{args: []string{"keys", "list", "KEYFILE"}},
	{args: []string{"keys", "add", "KEYFILE"}, missing: true},
	{args: []string{"keys", "activate", "KEYFILE"}, missing: true},
	{args: []string{"keys", "retire", "KEYFILE"}, missing: true},
	{args: []string{"keys", "remove", "KEYFILE"}, missing: true},
	{args: []string{"keys", "check", "KEYFILE"}},
	{args: []string{"inspect", "HANDLE"}, store: true, keys: true},
	{args: []string{"ls"}, store: true},
	{args: []string{"ls", "--user", "ada"}, store: true, keys: true},
	{args: []string{"show", "HANDLE"}, store: true, missing: true},
	{args: []string{"stats"}, store: true},
	{args: []string{"sweep"}, store: true},
	{args: []string{"migrate"}, store: true},
	{args: []string{"user", "list", "ada"}, store: true, keys: true, missing: true},
	{args: []string{"user", "export", "ada"}, store: true, keys: true, missing: true},
	{args: []string{"user", "revoke", "ada"}, store: true, keys: true, missing: true},
	{args: []string{"user", "erase", "ada", "--yes"}, store: true, keys: true, missing: true},
	{args: []string{"end", "HANDLE"}, store: true, keys: true, missing: true},
	{args: []string{"restored"}, store: true},
	{args: []string{"copy", "--to", "sqlite:TO", "--state", "STATE"}, store: true, missing: true},
	{args: []string{"legacy", "inspect", "--system", "scs", "--config", "CONFIG"}, missing: true},
	{args: []string{"legacy", "count", "--system", "scs", "--config", "CONFIG", "--from", "sqlite:SCS"}, missing: true},
	{args: []string{"legacy", "convert", "--system", "scs", "--config", "CONFIG", "--from", "sqlite:SCS"}, store: true, keys: true, missing: true},
	{args: []string{"legacy", "check", "CONFIG"}, missing: true},
	{args: []string{"legacy", "write", "CONFIG"}, missing: true},
	{args: []string{"version"}},
}

// filled are the arguments with real files and names.
func filled(t *testing.T, args []string) []string {
	t.Helper()
	dir := t.TempDir()
	keyFile, config, scs := newKeyFile(t), configFile(t, "{}"), filepath.Join(dir, "scs.db")
	write(t, scs, "")
	r := strings.NewReplacer("KEYFILE", keyFile, "CONFIG", config, "HANDLE", strings.Repeat("a", 26), "SCS", scs,
		"TO", filepath.Join(dir, "to.db"), "STATE", filepath.Join(dir, "state.json"))
	var out []string
	for _, arg := range args {
		out = append(out, r.Replace(arg))
	}
	return out
}

// words are the arguments before the first that is not a command.
func words(args []string) []string {
	n := 1
	if slices.Contains([]string{"keys", "user", "legacy"}, args[0]) {
		n = 2
	}
	return args[:n]
}

func TestWrongUseOfEveryCommandIsStatus2AndRepeatsNothing(t *testing.T) {
	for _, c := range everyCommand {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			args := filled(t, c.args)
			if c.store {
				args = append(args, "--store", newService(t, sojourn.Config{}).store)
			}
			if c.keys {
				args = append(args, "--keys", newKeyFile(t))
			}
			for name, more := range map[string][]string{
				"an unknown flag":                  {"--" + canary},
				"one with a value":                 {"--pass=" + canary},
				"with one dash":                    {"-" + canary},
				"a cookie that begins with a dash": {"-_8" + canary + "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789"},
				"a surplus argument":               {"https://u:" + canary + "@h", canary},
			} {
				if slices.Contains([]string{"check", "write"}, c.args[len(words(c.args))-1]) && c.args[0] == "legacy" && name == "a surplus argument" {
					continue // they take any number
				}
				r := inProcess(t, append(slices.Clone(args), more...)...).silent(t, name)
				r.refused(t, exitUsage, "--help)")
			}
			if c.missing {
				inProcess(t, words(c.args)...).refused(t, exitUsage, strings.Join(words(c.args), " ")+" --help")
			}
			for _, help := range [][]string{append(slices.Clone(words(args)), "--help"), append([]string{"help"}, words(args)...)} {
				if r := inProcess(t, help...).ok(t); !strings.Contains(r.stdout, "Usage: sojourn "+strings.Join(words(args), " ")) {
					t.Errorf("%q: %s", help, r.stdout)
				}
			}
			if c.store {
				t.Setenv(storeVariable, "")
				inProcess(t, filled(t, c.args)...).refused(t, exitUsage, storeVariable)
			}
		})
	}
	for _, args := range [][]string{{canary}, {"help", canary}, {"user", canary}, {"-" + canary}, {"--" + canary + "=x"}, {"keys", "-" + canary}} {
		inProcess(t, args...).silent(t, "no command").refused(t, exitUsage)
	}
	if r := inProcess(t, "ls", "--limt=5"); r.status != exitUsage || !strings.Contains(r.stderr, "--limt") || !strings.Contains(r.stderr, "--limit") {
		t.Errorf("a flag that is nearly right: %+v", r)
	}
}

func TestAStoreThatDoesNotAnswerIsStatus1(t *testing.T) {
	t.Parallel()
	for _, c := range everyCommand {
		if !c.store {
			continue
		}
		for _, url := range []string{"redis://u:" + canary + "@127.0.0.1:1", "sqlite:/nowhere/at/all.db"} {
			args := append(filled(t, c.args), "--store", url)
			if c.keys {
				args = append(args, "--keys", newKeyFile(t))
			}
			if c.args[0] == "migrate" && url[0] == 'r' || c.args[0] == "legacy" && url[0] == 's' {
				continue // there is no schema to ask for; convert makes its store
			}
			inProcess(t, args...).silent(t, url).refused(t, exitFailed)
		}
	}
}

func TestAKeyFileThatIsNoneIsStatus1AndNotRepeated(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	secret := keys.Generate()
	text := filepath.Join(t.TempDir(), "notes.txt")
	write(t, text, "active:"+canary)
	for _, c := range everyCommand {
		if !c.keys {
			continue
		}
		for name, file := range map[string]string{"no such file": "/nowhere/session.keys", "a key in place of a file": secret, "no keys": text, "long": strings.Repeat(canary, 100)} {
			r := inProcess(t, append(filled(t, c.args), "--store", s.store, "--keys", file)...).silent(t, name)
			if r.refused(t, exitFailed); strings.Contains(r.stderr, secret) {
				t.Errorf("%v: the key is repeated: %s", c.args, r.stderr)
			}
		}
	}
	for _, args := range [][]string{{"keys", "list", secret}, {"keys", "add", secret}, {"keys", "check", secret}, {"inspect", "--keys", s.keys, "--file", secret}, {"legacy", "check", secret}} {
		if r := inProcess(t, args...); r.status != exitFailed || strings.Contains(r.stderr+r.stdout, secret) {
			t.Errorf("%s: %+v", args[0], r)
		}
	}
}

func TestNoPasswordOfAURLIsRepeated(t *testing.T) {
	t.Parallel()
	env := "sqlite:/nowhere/at/all.db"
	for _, url := range []string{
		"memcached:/u:hunter2@h", "datastore:u:hunter2@h", "redis://:hunter2@127.0.0.1:1", "rediscluster://:hunter2@", "redissentinel://u:hunter2@127.0.0.1:1",
		"postgres://u:hunter2@127.0.0.1:1/%zz", "postgres://u:hunter2@[::1", "redis://u:hunter2%@h", "sqlite:/u:hunter2@h", "sqlite://u:hunter2@h/x", "hunter2@h", "//u:hunter2@h",
		"postgres:u:hunter2@h", "postgres://127.0.0.1:1/db?password=hunter2", "mysql://root:hunter2@db/app", "redis://127.0.0.1:1?password=hunter2", "u:hunter2", "floppy:hunter2",
		"postgres://u:hunt%65r2@127.0.0.1:1/db",
	} {
		for name, args := range map[string][]string{
			"--store":  {"ls", "--store", url},
			"=":        {"stats", "--store=" + url},
			"argument": {"ls", url},
			"--to":     {"copy", "--store", env, "--to", url, "--dry-run"},
			"--from":   {"legacy", "count", "--system", "scs", "--config", configFile(t, "{}"), "--from", url},
			"state":    {"copy", "--store", url, "--to", env, "--state", filepath.Join(t.TempDir(), "state.json")},
			"handle":   {"show", url, "--store", env},
			"keep":     {"user", "revoke", "ada", "--store", env, "--keys", url, "--keep", url},
		} {
			r := inProcess(t, args...).silent(t, name+" "+url)
			if r.status == exitOK || r.stderr == "" {
				t.Errorf("%s %s: %+v", name, url, r)
			}
		}
	}
	inEnvironment := call{env: []string{"SOJOURN_STORE=sqlite:/u:hunter2@h", "SOJOURN_TO=postgres://u:hunter2@127.0.0.1:1/db"}}
	for _, args := range [][]string{{"ls"}, {"copy", "--dry-run"}, {"copy", "--dry-run", "--store", newService(t, sojourn.Config{}).store}} {
		inEnvironment.run(t, args...).silent(t, "the environment").refused(t, exitFailed)
	}
}

// A password in the wrong argument is not written to a screen or a log.
func TestNoErrorRepeatsAPassword(t *testing.T) {
	for _, url := range []string{
		"memcached:/u:hunter2@h", "memcached://u:hunter2@h", "memcached:hunter2", "datastore:u:hunter2@h", "datastore://u:hunter2@h",
		"redis://:hunter2@127.0.0.1:1", "redis:hunter2@h", "redis://u:1/hunter2@h", "redis://u:p@hunter2@127.0.0.1:1", "rediss://u:hunter2@127.0.0.1:1",
		"rediscluster://u:hunter2@127.0.0.1:1,127.0.0.1:2", "redissentinel://u:hunter2@127.0.0.1:1/m",
		"postgres:u:hunter2@h/db", "postgres://u:hunter2@127.0.0.1:1/db", "postgres://u:p@hunter2@127.0.0.1:1/db", "postgres://u:hunter2%zz@h/db",
		"sqlite://u:hunter2@h/db", "mysql://u:hunter2@h/db", "u:hunter2@h", ":hunter2@h", "hunter2:@h", "hunter2",
	} {
		for _, args := range [][]string{
			{"ls", url},
			{"ls", "--store", url},
			{"ls", "--store=" + url},
			{"stats", "--store", url},
			{"stats", url},
			{"migrate", url},
			{"copy", url, "memory:"},
			{"show", url, "--store", url},
			{"ls", "--limit", url},
			{"ls", "--limit=" + url},
			{url},
			{"ls", "--u:" + url},
			{"copy", url, url, url},
		} {
			var out, messages strings.Builder
			status := run(t.Context(), args, terminal{in: strings.NewReader(""), out: &out, messages: &messages})
			if said := out.String() + messages.String(); strings.Contains(said, "hunter2") {
				t.Errorf("%v: status %d, %s", args, status, said)
			}
		}
	}
}
