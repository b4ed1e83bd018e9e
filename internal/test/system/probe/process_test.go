package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// The tests in this file run the real command.

func TestMistakesOfWhoeverStartsIt(t *testing.T) {
	t.Parallel()
	path, err := built.Program(".", "probe")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	shared := filepath.Join(dir, "shared.keys")
	if err := os.WriteFile(shared, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		args   []string
		status int
		says   string
	}{
		{"an unknown flag", []string{"-nonsense"}, 2, "nonsense"},
		{"a bad duration", []string{"-idle", "soon"}, 2, "-idle"},
		{"an argument", []string{"memory:"}, 2, "unexpected"},
		{"an unknown kind of store", []string{"-store", "floppy:a"}, 2, "opens no stores of that kind"},
		{"a store without a scheme", []string{"-store", "sessions.db"}, 2, "sqlite:PATH"},
		{"no cookies and no store", []string{"-store", "none", "-inline", "0"}, 2, "-inline"},
		{"a limit that browsers do not keep", []string{"-inline", "5000"}, 2, "InlineLimit"},
		{"two mistakes at once", []string{"-inline", "5000", "-lifetime", "20000h"}, 2, "Lifetime"},
		{"an unknown kind of cache", []string{"-cache", "floppy:a"}, 2, "-cache"},
		{"a cache without a size", []string{"-cache", "memory:"}, 2, "memory:67108864"},
		{"a cache in front of nothing", []string{"-store", "none", "-cache", "memory:1000000"}, 2, "-cache"},
		{"a negative age", []string{"-max-stale", "-1s"}, 2, "-max-stale"},
		{"an option that the store does not have", []string{"-store", "memcached://127.0.0.1:1?nonsense=1"}, 2, "prefix"},
		{"no PostgreSQL", []string{"-store", "postgres://root:hunter2@127.0.0.1:1/db"}, 1, "127.0.0.1"},
		{"no Redis", []string{"-store", "redis://root:hunter2@127.0.0.1:1"}, 1, "127.0.0.1"},
		{"no memcached", []string{"-store", "memcached://127.0.0.1:1"}, 1, "127.0.0.1"},
		{"a negative rotation period", []string{"-rotate", "-1h"}, 2, "Rotation.Every"},
		{"a grace that is too long", []string{"-grace", "48h"}, 2, "Rotation.Grace"},
		{"a negative cap", []string{"-max-per-user", "-3"}, 2, "Limit.Max"},
		{"a cap and no store", []string{"-store", "none", "-max-per-user", "3"}, 2, "Config.Limit needs a store"},
		{"no file to read again", []string{"-reload", "1s"}, 2, "-keys"},
		{"reading it again in the past", []string{"-keys", "k", "-reload", "-1s"}, 2, "-reload"},
		{"a store in a folder that is a file", []string{"-store", "sqlite:" + shared + "/sessions.db"}, 1, "sessions.db"},
		{"a file that is no key file", []string{"-keys", shared}, 1, "shared.keys"},
		{"an address that is not ours", []string{"-listen", "192.0.2.1:1"}, 1, "192.0.2.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), client.Patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, path, tt.args...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			_ = cmd.Run()
			if got := cmd.ProcessState.ExitCode(); got != tt.status {
				t.Errorf("exit status %d, want %d", got, tt.status)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout: %q", &stdout)
			}
			if strings.Contains(stderr.String(), "hunter2") {
				t.Errorf("stderr repeats the password: %s", &stderr)
			}
			if text := stderr.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, tt.says) {
				t.Errorf("stderr is not one line with %q: %q", tt.says, text)
			}
		})
	}
}

func TestZeroSwitchesOffWhatIsOptional(t *testing.T) {
	t.Parallel()
	p := startProcess(t, "-rotate", "0", "-grace", "0", "-max-per-user", "0", "-max-stale", "0", "-reload", "0")
	if status := p.Terminate(t); status != 0 {
		t.Errorf("exit status %d", status)
	}
}

func TestATerminatedProbeFinishesItsRequests(t *testing.T) {
	t.Parallel()
	args := []string{"-insecure", "-store", "sqlite:" + filepath.Join(t.TempDir(), "sessions.db"), "-keys", filepath.Join(t.TempDir(), "keys")}
	p := startProcess(t, args...)
	b := newBrowser(t, p.Base)
	b.mustPost("/login?user=ada")
	slow := make(chan client.Answer, 1)
	go func() {
		r, err := b.try("POST", "/set?key=k&value=slow&delay=3000")
		if err != nil {
			r.Body = err.Error()
		}
		slow <- r
	}()
	client.Eventually(t, "the slow request is under way", func() bool { return b.stats()["loads"] > 0 })
	stream, err := b.HTTP.Get(p.Base + "/stream?events=1000000&every=100")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	watched := make(chan string, 1)
	go func() {
		body, err := io.ReadAll(stream.Body)
		if err != nil {
			body = []byte(err.Error())
		}
		watched <- string(body)
	}()
	if status := p.Terminate(t); status != 0 {
		t.Errorf("exit status %d; it said: %s", status, p.Log)
	}
	if r := <-slow; r.Status != 200 {
		t.Errorf("the slow request got %d %s", r.Status, r.Body)
	}
	if body := <-watched; strings.Contains(body, "ended") || strings.Contains(body, "EOF") {
		t.Errorf("the stream was told that its session ended, or was cut off: %q", body)
	}
	again := b.at(startProcess(t, args...).Base)
	if r := again.get("/get?key=k"); r.Text() != "slow" {
		t.Errorf("after a restart the slow request's value is %s", r.Body)
	}
	if r := again.get("/info"); r.User != "ada" {
		t.Errorf("after a restart: %s", r.Body)
	}
}

func TestSeveralProcessesWithOneKeyFileAcceptEachOthersCookies(t *testing.T) {
	t.Parallel()
	keys := filepath.Join(t.TempDir(), "folder", "keys")
	one := startProcess(t, "-insecure", "-store", "none", "-keys", keys)
	two := startProcess(t, "-insecure", "-store", "none", "-keys", keys)
	b := newBrowser(t, one.Base)
	b.mustPost("/set?key=k&value=v")
	if r := b.at(two.Base).get("/get?key=k"); r.Text() != "v" {
		t.Errorf("got %s", r.Body)
	}
	other := startProcess(t, "-insecure", "-store", "none")
	if r := b.at(other.Base).get("/get?key=k"); r.Found {
		t.Errorf("a probe with its own key reads %s", r.Body)
	}
}
