package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/store"
)

// Exit status 0 means that the command has done its task.

// record loads a record of the service.
func (s *service) record(t *testing.T, handle string) store.Record {
	t.Helper()
	id, err := store.ParseID(handle)
	if err != nil {
		t.Fatal(err)
	}
	rec, err := s.database.Load(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// damage changes a byte of a record's sealed data.
func (s *service) damage(t *testing.T, handle string) {
	t.Helper()
	rec := s.record(t, handle)
	base := rec.Base()
	rec.Data = bytes.Clone(rec.Data)
	rec.Data[len(rec.Data)-1] ^= 1
	rec.Version++
	rec.SaveIDs = append([]store.SaveID{99}, rec.SaveIDs...)
	if err := s.database.Save(t.Context(), rec, base); err != nil {
		t.Fatal(err)
	}
}

// withIndex is a copy of a key file in which the index entry is another one.
func withIndex(t *testing.T, path string) string {
	t.Helper()
	lines := strings.Split(read(t, path), "\n")
	i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "index:") })
	if i < 0 {
		t.Fatal("no index entry")
	}
	lines[i] = entryOf("index", time.Hour)
	other := filepath.Join(t.TempDir(), "other.keys")
	write(t, other, strings.Join(lines, "\n"))
	return other
}

// aboutUser are all calls about a user, and one about a session.
func aboutUser(user, handle string) [][]string {
	return [][]string{
		{"ls", "--user", user},
		{"ls", "--user", user, "--json"},
		{"user", "list", user},
		{"user", "list", user, "--json"},
		{"user", "export", user},
		{"user", "revoke", user},
		{"user", "revoke", user, "--json"},
		{"user", "revoke", user, "--dry-run"},
		{"user", "revoke", user, "--keep", handle},
		{"user", "erase", user, "--yes"},
		{"user", "erase", user, "--dry-run"},
	}
}

func TestWrongKeysAndNamesAreSaidInsteadOfNoSession(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{Name: "admin"})
	handle, _ := s.visit(t, login("ada"))
	s.visit(t, func(session *sojourn.Session) { cart.Set(session, []string{"mug"}) })
	handleCalls := [][]string{{"end", handle}, {"end", handle, "--dry-run"}, {"inspect", handle}}
	for name, tt := range map[string]struct {
		flags []string
		says  string
		calls [][]string
	}{
		"the key file of another service": {[]string{"--keys", newKeyFile(t), "--name", "admin"}, keyID(s.record(t, handle).Data), append(aboutUser("ada", handle), append(handleCalls, []string{"ls"})...)},
		"another index key":               {[]string{"--keys", withIndex(t, s.keys), "--name", "admin"}, "index key", aboutUser("ada", handle)},
		"no name":                         {[]string{"--keys", s.keys}, `"admin"`, append(aboutUser("ada", handle), append(handleCalls, []string{"ls"})...)},
		"a name that is not theirs":       {[]string{"--keys", s.keys, "--name", "Admin"}, `"admin"`, append(aboutUser("ada", handle), append(handleCalls, []string{"ls"})...)},
		"a user of another case":          {[]string{"--keys", s.keys, "--name", "admin"}, "of ada", aboutUser("Ada", handle)},
		"a user with a space":             {[]string{"--keys", s.keys, "--name", "admin"}, "of ada", aboutUser("ada ", handle)},
		"nobody":                          {[]string{"--keys", s.keys, "--name", "admin"}, "no live session", aboutUser("eve", handle)},
	} {
		for _, args := range tt.calls {
			t.Run(name+": "+strings.Join(args, " "), func(t *testing.T) {
				r := inProcess(t, append(append(args, "--store", s.store), tt.flags...)...)
				if r.status != exitFailed || !strings.Contains(r.stderr, tt.says) || args[0] != "ls" && r.stdout != "" {
					t.Errorf("%+v, want status %d and %q", r, exitFailed, tt.says)
				}
			})
		}
	}
	if s.live(t, "ada") != 1 {
		t.Error("the session has ended")
	}
}

func TestKeysAreOnlyFoundWrongIfNothingFits(t *testing.T) {
	t.Parallel()
	// Sessions of two names and of two key files share a store, and one is damaged.
	s := newService(t, sojourn.Config{})
	url := s.store
	other := newServiceOn(t, url, sojourn.Config{Name: "admin"})
	for range 3 {
		other.visit(t, login("ada"))
		damaged, _ := other.visit(t, login("bob"))
		other.damage(t, damaged)
	}
	s.visit(t, login("ada"))
	for _, flags := range [][]string{{"--keys", s.keys}, {"--keys", other.keys, "--name", "admin"}} {
		r := inProcess(t, append([]string{"user", "list", "eve", "--store", url}, flags...)...)
		if r.refused(t, exitFailed, "no live session of that user"); strings.Contains(r.stderr, "key") {
			t.Errorf("with %v: %s", flags, r.stderr)
		}
	}
	empty := newService(t, sojourn.Config{})
	inProcess(t, "user", "list", "eve", "--store", empty.store, "--keys", empty.keys).refused(t, exitFailed, "no live session of that user")
}

func TestLsShowsUsersWhenThereAreKeys(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	ada, _ := s.visit(t, login("Ada Lovelace"))
	anonymous, _ := s.visit(t, func(session *sojourn.Session) { cart.Set(session, []string{"mug"}) })
	damaged, _ := s.visit(t, login("bob"))
	s.damage(t, damaged)
	users := func(r result) map[string]string {
		var rows []rowJSON
		r.json(t, &rows)
		got := map[string]string{}
		for _, row := range rows {
			if got[row.Handle] = "?"; row.User != nil {
				got[row.Handle] = *row.User
			}
		}
		return got
	}
	want := map[string]string{ada: "Ada Lovelace", anonymous: "", damaged: "?"}
	env := call{env: []string{"SOJOURN_KEYS=" + read(t, s.keys), "SOJOURN_STORE=" + s.store}}
	for name, r := range map[string]result{
		"a key file":      sojournCommand(t, "ls", "--json", "--store", s.store, "--keys", s.keys),
		"the environment": env.run(t, "ls", "--json"),
	} {
		if got := users(r); r.status != exitOK || fmt.Sprint(got) != fmt.Sprint(want) || !strings.Contains(r.stderr, "1 session") {
			t.Errorf("keys from %s: %v, want %v; %+v", name, got, want, r)
		}
	}
	if r := inProcess(t, "ls", "--store", s.store, "--keys", s.keys); !strings.Contains(r.stdout, "Ada Lovelace") {
		t.Errorf("as text: %s", r.stdout)
	}
	for handle, user := range users(sojournCommand(t, "ls", "--json", "--store", s.store).ok(t)) {
		if user != "?" {
			t.Errorf("without keys %s is known to be of %q", handle, user)
		}
	}
	inProcess(t, "ls", "--store", newService(t, sojourn.Config{}).store, "--keys", s.keys).ok(t) // there is nothing to open
}

func TestEndEndsOneSession(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, c call, s *service) {
		one, cookies := s.visit(t, login("ada"))
		s.visit(t, login("ada"))
		anonymous, _ := s.visit(t, func(session *sojourn.Session) { cart.Set(session, []string{"mug"}) })
		flags := []string{"--store", s.store, "--keys", s.keys}
		var n endedJSON
		c.run(t, append([]string{"end", one, "--json", "--dry-run"}, flags...)...).ok(t).json(t, &n)
		if n != (endedJSON{1, true}) || s.live(t, "ada") != 2 {
			t.Errorf("a dry run: %+v", n)
		}
		if r := c.run(t, append([]string{"end", one}, flags...)...).ok(t); r.stdout != "ended 1 session\n" || s.live(t, "ada") != 1 {
			t.Errorf("%q, then %d are live", r.stdout, s.live(t, "ada"))
		}
		s.comesBack(t, cookies, "")
		c.run(t, append([]string{"end", one}, flags...)...).refused(t, exitFailed, "already")
		c.run(t, append([]string{"end", strings.Repeat("a", 26)}, flags...)...).refused(t, exitFailed)
		c.run(t, append([]string{"end", anonymous, "--json"}, flags...)...).ok(t).json(t, &n)
		if rec := s.record(t, anonymous); n != (endedJSON{1, false}) || !rec.IsEnd() {
			t.Errorf("an anonymous one: %+v", n)
		}
		expired := s.keep(t, "expired", over(2*store.ClockSkew))
		c.run(t, append([]string{"end", expired}, flags...)...).refused(t, exitFailed) // or gone by itself
	})
}

func TestADamagedSessionIsNeitherHiddenNorLeft(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	sound, _ := s.visit(t, login("ada"))
	damaged, _ := s.visit(t, login("ada"))
	s.damage(t, damaged)
	flags := []string{"--store", s.store, "--keys", s.keys}
	for _, command := range []string{"list", "export"} {
		r := inProcess(t, append([]string{"user", command, "ada"}, flags...)...)
		if r.status != exitFailed || !strings.Contains(r.stdout, sound) || strings.Contains(r.stdout, damaged) || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("%s: %+v", command, r)
		}
	}
	inProcess(t, append([]string{"end", damaged}, flags...)...).refused(t, exitFailed, "not ended")
	inProcess(t, append([]string{"inspect", damaged}, flags...)...).refused(t, exitFailed, "damaged")
	for _, args := range [][]string{{"show", damaged}, {"stats"}, {"ls"}} {
		inProcess(t, append(args, "--store", s.store)...).ok(t)
	}
	var n endedJSON
	inProcess(t, append([]string{"user", "revoke", "ada", "--json", "--dry-run"}, flags...)...).ok(t).json(t, &n)
	if n != (endedJSON{2, true}) {
		t.Errorf("dry run: %+v", n)
	}
	inProcess(t, append([]string{"user", "revoke", "ada", "--json"}, flags...)...).ok(t).json(t, &n)
	if n != (endedJSON{2, false}) {
		t.Errorf("revoke: %+v", n)
	}
	for _, handle := range []string{sound, damaged} {
		if rec := s.record(t, handle); !rec.IsEnd() {
			t.Errorf("%s has not ended", handle)
		}
	}
	alone, _ := s.visit(t, login("bob"))
	s.damage(t, alone)
	if r := inProcess(t, append([]string{"user", "export", "bob"}, flags...)...); r.status != exitFailed || strings.TrimSpace(r.stdout) != "[]" {
		t.Errorf("an export of a damaged session alone: %+v", r)
	}
	inProcess(t, append([]string{"user", "erase", "bob", "--yes", "--json"}, flags...)...).ok(t).json(t, &n)
	if rec := s.record(t, alone); n.Ended != 1 || !rec.IsEnd() || len(rec.Data) > 0 {
		t.Errorf("erase: %+v", n)
	}
}

// The index finds sessions sealed with a removed key, but they cannot be read.
func TestSessionsWhoseKeyIsGoneAreNotExportedAsEmpty(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	s.visit(t, login("ada"))
	var index string
	for line := range strings.Lines(read(t, s.keys)) {
		if strings.HasPrefix(line, "index:") {
			index = strings.TrimSpace(line)
		}
	}
	later := filepath.Join(t.TempDir(), "later.keys")
	write(t, later, keysOf(index, entryOf("active", time.Minute)))
	flags := []string{"--store", s.store, "--keys", later}
	r := inProcess(t, append([]string{"user", "export", "ada"}, flags...)...)
	if r.status != exitFailed || strings.TrimSpace(r.stdout) != "[]" || !strings.Contains(r.stderr, "1 live session") {
		t.Errorf("export: %+v", r)
	}
	var n endedJSON
	inProcess(t, append([]string{"user", "revoke", "ada", "--json"}, flags...)...).ok(t).json(t, &n)
	if n.Ended != 1 || s.live(t, "ada") != 0 {
		t.Errorf("revoke: %+v", n)
	}
}

func TestWhatIsToBeKeptHasToBeThere(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	mine, _ := s.visit(t, login("ada"))
	bobs, _ := s.visit(t, login("bob"))
	inProcess(t, s.of("revoke", "ada", "--keep", bobs)...).refused(t, exitFailed, "no session was ended")
	inProcess(t, s.of("revoke", "ada", "--keep", mine, "--keep", strings.Repeat("a", 26))...).refused(t, exitFailed, "no session was ended")
	inProcess(t, s.of("revoke", "ada", "--keep", "canary")...).refused(t, exitUsage, "--keep")
	inProcess(t, s.of("revoke", "ada", "--keep", mine)...).refused(t, exitFailed, "kept")
	if s.live(t, "ada") != 1 {
		t.Error("it has ended")
	}
}

// Expired sessions keep their values until they are swept.
func TestEraseRemovesWhatHasExpired(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	handle, _ := s.visit(t, func(session *sojourn.Session) {
		session.Login("ada")
		session.SetExpiry(time.Millisecond, 0)
	})
	for rec := s.record(t, handle); !rec.Expired(time.Now()); {
		<-time.After(time.Millisecond)
	}
	var n endedJSON
	inProcess(t, s.of("erase", "ada", "--yes", "--json")...).ok(t).json(t, &n)
	if rec := s.record(t, handle); n.Ended != 1 || len(rec.Data) > 0 {
		t.Errorf("%+v, and %d bytes are left", n, len(rec.Data))
	}
}

func TestFlashMessagesAreReadable(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	flashing := func(user string) func(*sojourn.Session) {
		return func(session *sojourn.Session) {
			if user != "" {
				session.Login(user)
			}
			session.Set("flashes", "our own")
			session.Flash("success", "Saved")
			session.Flash("error", "No \x1b[31m stock")
		}
	}
	stored, _ := s.visit(t, flashing("ada"))
	_, inline := s.visit(t, flashing(""))
	for name, tt := range map[string]struct {
		call call
		args []string
	}{
		"in a store":  {call{}, []string{stored, "--store", s.store}},
		"in a cookie": {call{stdin: inline}, nil},
	} {
		args := append([]string{"--keys", s.keys}, tt.args...)
		in := open1(t, tt.call, append(args, "--values")...).Session
		if len(in.Flashes) != 2 || in.Flashes[0].Level != "success" || *in.Flashes[0].Text != "Saved" || in.Flashes[1].Level != "error" ||
			len(in.Values) != 1 || in.Values[0].Name != "flashes" {
			t.Errorf("%s: %+v", name, in)
		}
		if in := open1(t, tt.call, args...).Session; len(in.Flashes) != 2 || in.Flashes[0].Text != nil {
			t.Errorf("%s, with hidden values: %+v", name, in.Flashes)
		}
		text := tt.call.run(t, append([]string{"inspect", "--values"}, args...)...).ok(t).stdout
		if !strings.Contains(text, "success: Saved") || strings.Contains(text, "\x1b") || strings.Contains(text, "_flash") {
			t.Errorf("%s: %s", name, text)
		}
		if text := tt.call.run(t, append([]string{"inspect"}, args...)...).ok(t).stdout; strings.Contains(text, "Saved") {
			t.Errorf("%s, with hidden values: %s", name, text)
		}
	}
}

func TestRetiringTooEarlyIsRefused(t *testing.T) {
	t.Parallel()
	path := newKeyFile(t)
	old := keysJSONOf(t, "list", path).Keys[0].ID
	keysCommand(t, "add", path).ok(t)
	keysCommand(t, "activate", path).refused(t, exitFailed, "--now")
	keysCommand(t, "activate", path, "--now").ok(t)
	for _, args := range [][]string{{"retire", path}, {"retire", path, "--key", old}, {"retire", path, "--reload", "5m"}} {
		keysCommand(t, args...).refused(t, exitFailed, "--now")
	}
	if got := keysJSONOf(t, "list", path, "--reload", "5m"); got.states() != "active active*" || got.Wait < 200 {
		t.Errorf("after the refusals: %+v", got)
	}
	keysCommand(t, "retire", path, "--now").ok(t)
	keysCommand(t, "remove", path).refused(t, exitFailed, "--now")
	keysCommand(t, "remove", path, "--now").ok(t)
	if got := keysJSONOf(t, "list", path); got.states() != "active*" || got.Keys[0].ID == old {
		t.Errorf("at the end: %+v", got)
	}
}

// A key that was replaced long ago can be removed, whatever was activated since.
func TestAKeyIsRetiredByTheTimeItStoppedSealing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys")
	first, second := entryOf("active", 3*time.Hour), entryOf("active", 2*time.Hour)
	write(t, path, keysOf(entryOf("index", time.Hour), first, second, entryOf("published", time.Hour)))
	keysCommand(t, "activate", path).ok(t)
	if got := keysJSONOf(t, "retire", path, "--reload", "5m"); got.states() != "retired active active*" || len(got.Changed) != 1 || got.Wait < 200 {
		t.Errorf("got %+v", got)
	}
	// One that never sealed need not wait.
	keysCommand(t, "add", path).ok(t)
	published := keysJSONOf(t, "list", path)
	keysCommand(t, "retire", path, "--key", published.Keys[3].ID).ok(t)
}

// canary must not appear in any error. It does not look like a flag's name.
const canary = "hunter2-CANARY"

// silent fails the test if an error repeats the canary.
func (r result) silent(t *testing.T, what string) result {
	t.Helper()
	if strings.Contains(strings.ToLower(r.stderr+r.stdout), "canary") || strings.Contains(r.stderr+r.stdout, "hunter2") {
		t.Errorf("%s: a secret is repeated: %q", what, r.stderr+r.stdout)
	}
	return r
}

// start starts the command with its own pipes.
func start(t *testing.T, stdin io.Reader, stdout io.Writer, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	path, err := buildCommand()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Env = t.TempDir(), []string{"PATH=/nowhere"}
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &stderr
}

func TestAResultThatCannotBeWrittenIsStatus1(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	handle, _ := s.visit(t, login("ada"))
	s.visit(t, login("bob"))
	for i := range 300 {
		s.keep(t, fmt.Sprint(i), func(*store.Record) {})
	}
	flags := []string{"--store", s.store, "--keys", s.keys}
	for _, args := range [][]string{
		{"--help"},
		{"ls", "--help"},
		{"version"},
		{"keygen"},
		{"keys", "list", s.keys},
		{"ls", "--store", s.store, "--limit", "0"},
		{"ls", "--json", "--store", s.store, "--limit", "0"},
		{"show", handle, "--store", s.store},
		{"stats", "--store", s.store},
		{"sweep", "--store", s.store},
		{"migrate", "--store", s.store},
		append([]string{"inspect", handle}, flags...), append([]string{"inspect", handle, "--json"}, flags...),
		append([]string{"user", "list", "ada"}, flags...), append([]string{"user", "export", "ada"}, flags...), append([]string{"user", "revoke", "bob"}, flags...),
	} {
		closed, ours, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		closed.Close() // the reader has gone
		cmd, stderr := start(t, nil, ours, args...)
		ours.Close()
		if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != exitFailed || stderr.Len() > 0 {
			t.Errorf("%q into a closed pipe: %v, %q", args, cmd.ProcessState, stderr)
		}
		if runtime.GOOS != "linux" || args[0] == "user" && args[1] == "revoke" {
			continue
		}
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		cmd, stderr = start(t, nil, full, args...)
		full.Close()
		if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != exitFailed || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%q onto a full disk: %v, %q", args, cmd.ProcessState, stderr)
		}
	}
	if s.live(t, "bob") != 0 {
		t.Error("the sessions were to end, whoever reads the result")
	}
}

// silentServer accepts connections and never answers. came receives each connection.
func silentServer(t *testing.T) (addr string, came <-chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	connected := make(chan struct{}, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
			connected <- struct{}{}
		}
	}()
	return l.Addr().String(), connected
}

func TestAnInterruptEndsWhatTakesLong(t *testing.T) {
	t.Parallel()
	keyFile := newKeyFile(t)
	for name, args := range map[string][]string{
		"a store that does not answer": {"stats", "--store", "postgres://u:" + canary + "@ADDR/app"},
		"a user's sessions":            {"user", "revoke", "ada", "--keys", keyFile, "--store", "postgres://u@ADDR/app"},
		"a copy":                       {"copy", "--store", "postgres://u@ADDR/app", "--to", "sqlite:/nowhere/at/all.db", "--dry-run"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr, came := silentServer(t)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "ADDR", addr)
			}
			cmd, stderr := start(t, nil, io.Discard, args...)
			<-came
			interrupted(t, cmd, stderr)
		})
	}
	t.Run("a cookie that nobody types", func(t *testing.T) {
		t.Parallel()
		in, typing, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer typing.Close()
		// More than a pipe holds: once all is written, the command reads.
		cmd, stderr := start(t, in, io.Discard, "inspect", "--keys", keyFile)
		in.Close()
		if _, err := typing.Write(bytes.Repeat([]byte{'A'}, 100_000)); err != nil {
			t.Fatal(err)
		}
		interrupted(t, cmd, stderr)
	})
}

// interrupted interrupts the command, and fails the test unless that is what it says.
func interrupted(t *testing.T, cmd *exec.Cmd, stderr *bytes.Buffer) {
	t.Helper()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	result{cmd.ProcessState.ExitCode(), "", stderr.String()}.silent(t, "interrupted").refused(t, exitFailed, "interrupted")
}

// interrupting is an output that interrupts the command at its first write.
type interrupting struct{ stop context.CancelFunc }

func (i interrupting) Write(b []byte) (int, error) {
	i.stop()
	return len(b), nil
}

func TestAnInterruptedListIsNotAWholeOne(t *testing.T) {
	t.Parallel()
	s := newService(t, sojourn.Config{})
	for i := range 2*pageSize + 50 {
		s.keep(t, fmt.Sprint(i), func(*store.Record) {})
	}
	for _, format := range []string{"--json=true", "--json=false"} {
		ctx, stop := context.WithCancel(t.Context())
		var messages bytes.Buffer
		status := run(ctx, []string{"ls", "--limit", "0", "--store", s.store, format}, terminal{in: strings.NewReader(""), out: interrupting{stop}, messages: &messages})
		result{status, "", messages.String()}.refused(t, exitFailed, "interrupted")
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	for _, args := range [][]string{{"sweep"}, {"stats"}, {"ls"}, {"restored"}, {"show", strings.Repeat("a", 26)}, {"user", "erase", "ada", "--yes", "--keys", s.keys}} {
		var out, messages bytes.Buffer
		status := run(ctx, append(args, "--store", s.store), terminal{in: strings.NewReader(""), out: &out, messages: &messages})
		result{status, out.String(), messages.String()}.refused(t, exitFailed, "interrupted")
	}
}

func TestACopyOfNothingIsNoCopy(t *testing.T) {
	t.Parallel()
	m := newMove(t)
	if r := inProcess(t, append([]string{"copy"}, m.args...)...); r.status != exitFailed || !strings.Contains(r.stderr, "--store") {
		t.Errorf("an empty store: %+v", r)
	}
}

func TestConvertingWithTheWrongKeysIsRefused(t *testing.T) {
	t.Parallel()
	o := oldSites(t)["beaker-session in files"]
	o.visitor(t, "ada", time.Now())
	s := newService(t, sojourn.Config{})
	s.visit(t, login("bob"))
	count := func() int {
		counts, err := s.database.(store.Counter).Count(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return int(counts.Live)
	}
	args := append([]string{"legacy", "convert", "--store", s.store}, o.flags(t)...)
	inProcess(t, append(args, "--keys", newKeyFile(t))...).refused(t, exitFailed, "nothing was converted")
	inProcess(t, append(args, "--keys", withIndex(t, s.keys))...).refused(t, exitFailed, "index key")
	if n := count(); n != 1 {
		t.Errorf("%d sessions are in the store", n)
	}
	// A name that is new in the store may be correct.
	if r := inProcess(t, append(args, "--keys", s.keys, "--name", "second")...); r.status != exitOK || !strings.Contains(r.stderr, "warning: ") || count() != 2 {
		t.Errorf("%+v, then %d sessions", r, count())
	}
}

func TestEveryFieldThatIsPrintedIsDocumented(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{row{}, finding{}, contents{}, value{}, flash{}, userSession{}, keysJSON{}, keyJSON{}, complaint{}, schemaJSON{}, tally{}, legacyTally{}, converted{}} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(text, &fields); err != nil {
			t.Fatal(err)
		}
		for name := range fields {
			if !strings.Contains(string(readme), "`"+name+"`") && !strings.Contains(string(readme), `"`+name+`"`) {
				t.Errorf("the README does not say what %q of %T is", name, v)
			}
		}
	}
}
