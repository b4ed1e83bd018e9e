package keys

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sojourn-go/sojourn/internal/keyfile"
	"github.com/sojourn-go/sojourn/internal/seal"
)

// wantSameKeys checks that each ring opens what the other sealed, and that both
// find users in the same place.
func wantSameKeys(t *testing.T, a, b *Ring) {
	t.Helper()
	for _, pair := range [][2]*Ring{{a, b}, {b, a}} {
		sealed, err := pair[0].current().Seal(nil, seal.State, []byte("text"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := pair[1].current().Open(nil, seal.State, sealed, nil); err != nil {
			t.Errorf("the keys differ: %v", err)
		}
	}
	if a.current().UserHash("session", "alice") != b.current().UserHash("session", "alice") {
		t.Error("the index keys differ")
	}
}

func loadKeyFile(t *testing.T, path string) *Ring {
	t.Helper()
	keys, err := LoadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// writeKeyFile writes a file with that mode, ignoring the umask.
func writeKeyFile(t *testing.T, text string, mode fs.FileMode) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "session.keys")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func wantMode(t *testing.T, path string, want fs.FileMode) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != want {
		t.Errorf("%s has mode %v, want %v", filepath.Base(path), info.Mode(), want)
	}
}

func TestLoadFileMakesWhatIsMissingForItsOwnerOnly(t *testing.T) {
	top := t.TempDir()
	path := filepath.Join(top, "new", "data", "session.keys")
	made := loadKeyFile(t, path)
	wantMode(t, path, 0o600)
	wantMode(t, filepath.Join(top, "new"), 0o700|fs.ModeDir)
	wantMode(t, filepath.Join(top, "new", "data"), 0o700|fs.ModeDir)
	wantSameKeys(t, made, loadKeyFile(t, path))

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "# Sojourn session keys") {
		t.Error("the file does not say what it is")
	}
	parsed, err := Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	wantSameKeys(t, made, parsed)
}

func TestLoadFileLeavesNothingElseBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), "session.keys")
	loadKeyFile(t, path)
	files, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 1 || files[0].Name() != "session.keys" {
		t.Errorf("the folder holds %v", files)
	}
}

func TestLoadFileNeverChangesAFile(t *testing.T) {
	text := "# mine\n" + Generate()
	path := writeKeyFile(t, text, 0o640)
	loadKeyFile(t, path)
	if _, err := keyfile.Make(path); err != nil { // like a process that has just found no file
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != text {
		t.Errorf("the file holds %d other bytes, %v", len(got), err)
	}
	wantMode(t, path, 0o640)
}

// LoadFile shares nothing between goroutines, so goroutines can simulate
// processes.
func TestLoadFileGivesAllThatStartAtOnceTheSameKeys(t *testing.T) {
	for range 10 {
		path := filepath.Join(t.TempDir(), "data", "session.keys")
		var rings [16]*Ring
		var wg sync.WaitGroup
		start := make(chan struct{})
		for i := range rings {
			wg.Go(func() {
				<-start
				var err error
				if rings[i], err = LoadFile(path); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
		if t.Failed() {
			return
		}
		for _, r := range rings[1:] {
			wantSameKeys(t, rings[0], r)
		}
	}
}

func TestLoadFileRefusesWhatEverybodyCanAccess(t *testing.T) {
	for _, mode := range []fs.FileMode{0o604, 0o602, 0o601, 0o644, 0o666, 0o777} {
		path := writeKeyFile(t, Generate(), mode)
		_, err := LoadFile(path)
		if err == nil || !strings.Contains(err.Error(), "chmod o= "+path) {
			t.Errorf("mode %v: got %v, want an error that tells the way out", mode, err)
		}
	}
}

// A container runtime mounts secrets with mode 0444, read-only: chmod fails there.
func TestAKeyFileThatIsMountedForEverybodySaysWhatToSetWhereItIsMounted(t *testing.T) {
	for _, mode := range []fs.FileMode{0o444, 0o644, 0o404, 0o445} {
		_, err := LoadFile(writeKeyFile(t, Generate(), mode))
		for _, want := range []string{fmt.Sprintf("mode %#o", mode), "Kubernetes", "defaultMode: 0400", "fsGroup", "Compose", "mode: 0400", "uid"} {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("mode %v: %v does not say %q", mode, err, want)
			}
		}
	}
}

func TestLoadFileRefusesAGroupThatWritesWithoutReading(t *testing.T) {
	for _, mode := range []fs.FileMode{0o620, 0o630, 0o420, 0o020} {
		path := writeKeyFile(t, Generate(), mode)
		if _, err := LoadFile(path); err == nil || os.Geteuid() == 0 && !strings.Contains(err.Error(), "chmod g= "+path) {
			t.Errorf("mode %v: got %v, want an error that tells the way out", mode, err)
		}
	}
}

// 0440 is a secret that Kubernetes mounts with fsGroup; 0660 is what it makes of
// 0600 in any other volume with fsGroup; execution means nothing.
func TestLoadFileTakesWhatOwnerAndGroupMayRead(t *testing.T) {
	for _, mode := range []fs.FileMode{0o600, 0o400, 0o640, 0o440, 0o660, 0o670, 0o750} {
		if _, err := LoadFile(writeKeyFile(t, Generate(), mode)); err != nil {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

func TestLoadFileRefuses(t *testing.T) {
	folder := t.TempDir()
	file := writeKeyFile(t, Generate(), 0o600)
	for _, c := range []struct{ name, path, want string }{
		{"a folder", folder, "is not a regular file"},
		{"a path below a file", filepath.Join(file, "session.keys"), "session.keys"},
		{"an empty file", writeKeyFile(t, "", 0o600), "is empty"},
		{"a file without keys", writeKeyFile(t, "# none\n", 0o600), "there is no key"},
		{"a damaged file", writeKeyFile(t, "entries:2 "+Generate()+"\n"+Generate()[:50], 0o600), "session.keys: entry 2: its secret"},
		{"a file that is too large", writeKeyFile(t, Generate()+strings.Repeat("\n", seal.MaxText), 0o600), "longer than 65536 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := LoadFile(c.path)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestLoadFileFollowsALink(t *testing.T) {
	file := writeKeyFile(t, Generate(), 0o600)
	link := filepath.Join(t.TempDir(), "session.keys")
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	wantSameKeys(t, loadKeyFile(t, file), loadKeyFile(t, link))

	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadFile(link); err == nil {
		t.Error("a link to nothing: no error")
	}
}

func TestParseReadsWhatGenerateReturns(t *testing.T) {
	text := Generate()
	a, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Parse("\t" + text + ", # from the environment")
	if err != nil {
		t.Fatal(err)
	}
	wantSameKeys(t, a, b)
}

func TestKeyErrorsRepeatNoSecret(t *testing.T) {
	key := Generate()
	secret := key[strings.LastIndex(key, ":")+1:]
	for _, text := range []string{
		secret, ":" + secret, secret + "::", "active:" + secret + ":" + secret, "active:20261120T120000Z:" + secret + "x",
		"entries:2," + key + "," + key, strings.Replace(key, "active", "retired", 1), "entries:2 " + key + " " + secret, key + " " + secret, "entries:" + secret, "entries:3 " + key,
	} {
		_, err := Parse(text)
		if err == nil {
			t.Fatalf("no error for %d bytes", len(text))
		}
		_, fileErr := LoadFile(writeKeyFile(t, text, 0o600))
		for _, err := range []error{err, fileErr} {
			if out := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(out, secret[:8]) {
				t.Errorf("the error %q holds the secret", out)
			}
		}
	}
}

func TestARingPrintsWithoutItsSecrets(t *testing.T) {
	text := "entries:2 active:20261120T131500Z:S0tLS0tLS0tLS0tLS0tLS0tLS0tLS0tLS0tLS0tLS0s " + // 32 times K
		"index:20261120T131500Z:SUlJSUlJSUlJSUlJSUlJSUlJSUlJSUlJSUlJSUlJSUk" // 32 times I
	keys, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	const want = "keys.Ring(1 key, cbb9b900)"
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		if got := fmt.Sprintf(verb, keys); got != want {
			t.Errorf("%s prints %s, want %s", verb, got, want)
		}
	}

	var out bytes.Buffer
	config := struct{ Keys *Ring }{keys}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x"} {
		fmt.Fprintf(&out, verb, config)
		fmt.Fprintf(&out, verb, []*Ring{keys})
	}
	for _, v := range []any{keys, config} {
		// The time, in digits, may look like a key in digits.
		options := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}
		slog.New(slog.NewTextHandler(&out, options)).Info("keys", "keys", v)
		slog.New(slog.NewJSONHandler(&out, options)).Info("keys", "keys", v)
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(text)
	}
	if n := strings.Count(out.String(), want); n != 14 {
		t.Errorf("%q is there %d times, not 14, in\n%s", want, n, &out)
	}
	for _, secret := range []string{"KKKK", "IIII", "75 75", "73 73", "4b4b", "4949", "0x4b", "0x49", "S0tL", "SUlJ"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q is in\n%s", secret, &out)
		}
	}
}

func TestARingWithoutKeysPrintsToo(t *testing.T) {
	const want = "keys.Ring(no keys)"
	for _, keys := range []*Ring{nil, {}} {
		if got := fmt.Sprint(keys); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
