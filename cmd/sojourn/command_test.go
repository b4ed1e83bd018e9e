package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/programs"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/keys"
	"github.com/sojourn-go/sojourn/sojourntest"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/open"
)

// The tests run the real command on a real service's data.

var built programs.Built

// common are the servers of all tests.
var common servers.Package

func TestMain(m *testing.M) {
	status := built.Main(m)
	common.Close()
	os.Exit(status)
}

func buildCommand() (string, error) { return built.Program(".", "sojourn") }

// result is the result of a command.
type result struct {
	status         int
	stdout, stderr string
}

// call describes a run of the command.
type call struct {
	stdin string
	env   []string
}

func (c call) run(t *testing.T, args ...string) result {
	t.Helper()
	path, err := buildCommand()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{"PATH=/nowhere"}, c.env...)
	cmd.Stdin = strings.NewReader(c.stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(cmd.Dir); err != nil || len(left) > 0 {
		t.Errorf("it has left %v in the current folder", left)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

func sojournCommand(t *testing.T, args ...string) result {
	t.Helper()
	return call{}.run(t, args...)
}

// ok fails the test unless the command succeeded without complaint.
func (r result) ok(t *testing.T) result {
	t.Helper()
	if r.status != exitOK || r.stderr != "" {
		t.Fatalf("exit status %d, stderr %q, stdout %q", r.status, r.stderr, r.stdout)
	}
	return r
}

// refused fails the test unless the command failed with that status, and
// printed only one line on stderr.
func (r result) refused(t *testing.T, status int, says ...string) {
	t.Helper()
	if r.status != status || r.stdout != "" || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("exit status %d (want %d), stderr %q, stdout %q", r.status, status, r.stderr, r.stdout)
	}
	for _, s := range says {
		if !strings.Contains(r.stderr, s) {
			t.Errorf("%q does not say %q", r.stderr, s)
		}
	}
}

func (r result) json(t *testing.T, into any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%v in %s", err, r.stdout)
	}
}

// service is a site's sessions: a key file and a database.
type service struct {
	keys, store string // as flags take them
	database    store.Store
	sessions    *sojourn.Manager
}

func newService(t *testing.T, cfg sojourn.Config) *service {
	t.Helper()
	return newServiceOn(t, "sqlite:"+filepath.Join(t.TempDir(), "sessions.db"), cfg)
}

func newServiceOn(t *testing.T, url string, cfg sojourn.Config) *service {
	t.Helper()
	s := &service{keys: filepath.Join(t.TempDir(), "session.keys"), store: url}
	var err error
	if cfg.Keys, err = sojourn.LoadKeyFile(s.keys); err != nil {
		t.Fatal(err)
	}
	db, closer, err := open.Store(t.Context(), s.store)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closer.Close(); err != nil {
			t.Error(err)
		}
	})
	if s.database = db; cfg.Mode != sojourn.CookieOnly {
		cfg.Store = db
	}
	s.sessions = sojourntest.NewManager(t, cfg)
	return s
}

// visit makes a session and returns its handle and the browser's Cookie header.
func (s *service) visit(t *testing.T, prepare func(*sojourn.Session)) (handle, cookies string) {
	t.Helper()
	r := sojourntest.Request(t, s.sessions, "GET", "/", nil, func(session *sojourn.Session) {
		prepare(session)
		handle = session.Handle()
	})
	return handle, r.Header.Get("Cookie")
}

// keep puts a record into the database as it would be after some time.
func (s *service) keep(t *testing.T, name string, change func(*store.Record)) string {
	t.Helper()
	now := time.Now()
	rec := store.Record{
		ID: store.HashIdentifier([]byte(name)), Version: 1, SaveIDs: []store.SaveID{1},
		Created: now, Seen: now, Deadline: now.Add(time.Hour), Expires: now.Add(2 * time.Hour), Data: []byte("sealed"),
	}
	change(&rec)
	if err := s.database.Save(t.Context(), rec, store.Base{}); err != nil {
		t.Fatal(err)
	}
	return rec.ID.String()
}

func over(ago time.Duration) func(*store.Record) {
	return func(rec *store.Record) {
		rec.Deadline = time.Now().Add(-ago)
		rec.Seen, rec.Created = rec.Deadline, rec.Deadline
	}
}

func ended(rec *store.Record) {
	rec.Ended, rec.Data = time.Now(), nil
	rec.Deadline = rec.Ended.Add(time.Minute)
}

func TestHelpIsThereForEverything(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{},
		{"--help"},
		{"-h"},
		{"-help"},
		{"ls", "-h"},
		{"keygen", "-help"},
		{"inspect", "--help"},
		{"show", "--help"},
		{"sweep", "--help"},
		{"stats", "--help"},
		{"migrate", "--help"},
		{"copy", "--help"},
		{"keys", "list", "--help"},
		{"keys", "add", "--help"},
		{"keys", "activate", "--help"},
		{"keys", "retire", "--help"},
		{"keys", "remove", "--help"},
		{"keys", "check", "--help"},
		{"user", "list", "--help"},
		{"user", "export", "--help"},
		{"user", "revoke", "--help"},
		{"user", "erase", "--help"},
		{"restored", "--help"},
		{"legacy", "inspect", "--help"},
		{"legacy", "check", "--help"},
		{"legacy", "write", "--help"},
		{"version", "--help"},
	} {
		r := sojournCommand(t, args...).ok(t)
		if !strings.Contains(r.stdout, "Usage: sojourn") {
			t.Errorf("%q: %s", args, r.stdout)
		}
		if len(args) >= 2 && args[0] != "version" && !strings.Contains(r.stdout, "Examples:") {
			t.Errorf("%q gives no examples", args)
		}
	}
	for _, says := range []string{"Exit status: 0", "SOJOURN_STORE", "SOJOURN_KEYS"} {
		if r := sojournCommand(t, "--help"); !strings.Contains(strings.Join(strings.Fields(r.stdout), " "), says) {
			t.Errorf("the help does not mention %q", says)
		}
	}
}

func TestMistakesOnTheCommandLineAreStatus2(t *testing.T) {
	t.Parallel()
	handle, empty := strings.Repeat("a", 26), configFile(t, "{}")
	keys := call{env: []string{"SOJOURN_KEYS=" + keys.Generate()}}
	for _, tt := range []struct {
		call call
		args []string
		says string
	}{
		{call{}, []string{"dance"}, "no such command"},
		{call{}, []string{"ls", "--nonsense"}, "nonsense"},
		{call{}, []string{"ls"}, "SOJOURN_STORE"},
		{call{}, []string{"ls", "--store", "floppy:a"}, "opens no stores of that kind"},
		{call{}, []string{"ls", "--store", "sessions.db"}, "sqlite:PATH"},
		{call{}, []string{"ls", "--limit", "-1"}, "--limit"},
		{call{}, []string{"ls", "--limit", "many"}, "--limit"},
		{call{}, []string{"show"}, "handle"},
		{call{}, []string{"sweep", "--age", "-1h"}, "--age"},
		{call{}, []string{"sweep", "--age", "old"}, "--age"},
		{call{}, []string{"inspect"}, "SOJOURN_KEYS"},
		{keys, []string{"inspect"}, "no cookie"},
		{keys, []string{"inspect", handle, "--file", "b"}, "--file"},
		{keys, []string{"inspect", handle}, "--store"},
		{call{}, []string{"legacy"}, "see sojourn legacy --help"},
		{call{}, []string{"legacy", "check"}, "see sojourn legacy check --help"},
		{call{}, []string{"legacy", "write"}, "<file>"},
		{call{}, []string{"legacy", "inspect", "--config", empty}, "--system"},
		{call{}, []string{"legacy", "inspect", "--system", "gae-sessions"}, "--config"},
		{call{}, []string{"legacy", "inspect", "--system", "php", "--config", empty}, "gae-sessions"},
		{call{}, []string{"legacy", "inspect", "--system", "gae-sessions", "--config", empty}, "no cookie"},
		{call{}, []string{"legacy", "inspect", "--system", "gae-sessions", "--config", empty, "--at", "noon"}, "--at"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			tt.call.run(t, tt.args...).refused(t, exitUsage, tt.says, "--help)")
		})
	}
}

func TestWhatIsNotThereIsStatus1AndIsNotMade(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "no", "sessions.db")
	s := newService(t, sojourn.Config{})
	handle := strings.Repeat("a", 26)
	for _, tt := range []struct {
		args []string
		says string
	}{
		{[]string{"ls", "--store", "sqlite:" + missing}, "no file " + missing},
		{[]string{"stats", "--store", "sqlite:" + missing}, missing},
		{[]string{"sweep", "--store", "sqlite:" + missing}, missing},
		{[]string{"show", handle, "--store", "sqlite:" + missing}, missing},
		{[]string{"ls", "--store", "memory:"}, "own process"},
		{[]string{"show", handle, "--store", s.store}, "may have ended"},
		{[]string{"inspect", handle, "--store", s.store, "--keys", s.keys}, "may have ended"},
		{[]string{"inspect", "--keys", missing}, "no such file"},
		{[]string{"inspect", "--file", missing, "--keys", s.keys}, "no such file"},
		{[]string{"ls", "--user", "ada", "--store", s.store, "--keys", missing}, "no such file"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			sojournCommand(t, tt.args...).refused(t, exitFailed, tt.says)
			if _, err := os.Stat(filepath.Dir(missing)); !os.IsNotExist(err) {
				t.Errorf("the folder %s is there now", filepath.Dir(missing))
			}
		})
	}
}

func TestAPasswordInAStoreURLIsNotRepeated(t *testing.T) {
	t.Parallel()
	if r := sojournCommand(t, "ls", "--store", "mysql://root:hunter2@db/sessions"); strings.Contains(r.stderr, "hunter2") {
		t.Errorf("it says %q", r.stderr)
	}
}

func TestAFileThatIsNoDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notes.txt")
	for name, text := range map[string]string{"empty": "", "text": strings.Repeat("some notes\n", 100)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r := sojournCommand(t, "ls", "--store", "sqlite:"+path)
		r.refused(t, exitFailed, path)
		if after, err := os.ReadFile(path); err != nil || string(after) != text {
			t.Errorf("%s: the file has changed: %q %v", name, after, err)
		}
	}
}

func TestTheStoreMayBeNamedInTheEnvironment(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	s.visit(t, func(session *sojourn.Session) { session.Login("ada") })
	env := call{env: []string{"SOJOURN_STORE=" + s.store}}
	var counts store.Counts
	env.run(t, "stats", "-json").ok(t).json(t, &counts)
	if counts.Live != 1 {
		t.Errorf("got %+v", counts)
	}
	env.run(t, "stats", "--store", "sqlite:/missing.db").refused(t, exitFailed, "/missing.db")
}

func TestVersion(t *testing.T) {
	t.Parallel()
	if r := sojournCommand(t, "version").ok(t); !strings.HasPrefix(r.stdout, "sojourn ") || !strings.Contains(r.stdout, "go1.") {
		t.Errorf("got %q", r.stdout)
	}
	var v struct{ Version, Revision, Go, Platform string }
	sojournCommand(t, "version", "-json").ok(t).json(t, &v)
	if v.Version == "" || v.Go == "" || v.Platform == "" {
		t.Errorf("got %+v", v)
	}
}
