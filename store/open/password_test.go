package open

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func source(t *testing.T, query url.Values) func(context.Context) (string, error) {
	t.Helper()
	ask, err := PasswordSource(query)
	if err != nil || ask == nil {
		t.Fatalf("%v: %v", query, err)
	}
	if query.Has(passwordFile) || query.Has(passwordCommand) || query.Get("table") != "t" {
		t.Errorf("what is left of the query: %v", query)
	}
	return ask
}

func TestAPasswordIsReadAnewForEachConnection(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	for option, value := range map[string]string{passwordFile: file, passwordCommand: "cat '" + file + "'"} {
		ask := source(t, url.Values{option: {value}, "table": {"t"}})
		for text, want := range map[string]string{"hunter2\n": "hunter2", "hunter3": "hunter3", "hunter4\r\n": "hunter4", " a b\n\n": " a b\n"} {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := ask(t.Context()); got != want || err != nil {
				t.Errorf("%s with %q: %q, %v", option, text, got, err)
			}
		}
	}
}

func TestWithoutAnOptionThereIsNoPasswordSource(t *testing.T) {
	if ask, err := PasswordSource(url.Values{"table": {"t"}}); ask != nil || err != nil {
		t.Errorf("it has one, %v", err)
	}
}

func TestAPasswordSourceIsGivenOnce(t *testing.T) {
	for _, query := range []url.Values{
		{passwordFile: {""}},
		{passwordCommand: {""}},
		{passwordFile: {"a", "b"}},
		{passwordCommand: {"a", "b"}},
		{passwordFile: {"a"}, passwordCommand: {"b"}},
	} {
		if _, err := PasswordSource(query); !errors.Is(err, ErrURL) {
			t.Errorf("%v: %v, want ErrURL", query, err)
		}
	}
}

func TestAPasswordThatCannotBeHadIsAnErrorWithoutSecrets(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, query := range map[string]url.Values{
		"no such file":       {passwordFile: {filepath.Join(empty, "none")}},
		"an empty file":      {passwordFile: {empty}},
		"a command fails":    {passwordCommand: {"echo hunter2; echo hunter2 >&2; exit 3"}},
		"no such command":    {passwordCommand: {"/nowhere/hunter2"}},
		"it answers nothing": {passwordCommand: {"true"}},
	} {
		query.Set("table", "t")
		got, err := source(t, query)(t.Context())
		if err == nil || got != "" || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	ask := source(t, url.Values{passwordFile: {filepath.Join(t.TempDir(), "none")}, "table": {"t"}})
	if _, err := ask(t.Context()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want fs.ErrNotExist", err)
	}
}

func TestACommandThatHangsIsKilledWithItsContext(t *testing.T) {
	for _, query := range []url.Values{
		{passwordCommand: {"exec sleep 600"}, "table": {"t"}},
		{passwordCommand: {"sleep 20 & wait"}, "table": {"t"}}, // its child has the output
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := source(t, query)(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want context.DeadlineExceeded", err)
		}
		cancel()
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, option := range []string{passwordFile, passwordCommand} {
		if _, err := source(t, url.Values{option: {"true"}, "table": {"t"}})(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v, want context.Canceled", option, err)
		}
	}
}
