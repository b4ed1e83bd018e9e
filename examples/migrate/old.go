package main

import (
	"bufio"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/filestore"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
)

//go:embed old/*.py recorded/beaker.json
var files embed.FS

// The kinds of old applications.
const (
	oldBeaker   = "beaker"
	oldWebapp2  = "webapp2"
	oldRecorded = "recorded" // no application, only its recorded sessions
)

// secret signs the cookies of the old shop. It is public because this is an
// example, and the recorded sessions are signed with it.
const secret = "the secret of the old shop, 2011"

// oldApp is the running old shop, and the format of its sessions.
type oldApp struct {
	kind    string
	format  legacy.Format
	folder  string // of its sessions; "" if they are in cookies
	visits  []recording
	handler http.Handler
	stop    func() error
	release func() error
}

// recording is a visitor's recorded session of the real old shop.
type recording struct {
	Cookie string `json:"cookie"`
	Path   string `json:"path"` // of the file below the folder of the sessions
	File   []byte `json:"file"` // base64
}

// errMissing means that this machine cannot run an old shop.
var errMissing = errors.New("not on this machine")

// startOld starts an old shop. With kind "" it is the first kind that this
// machine can run.
func startOld(kind, data string) (*oldApp, error) {
	switch kind {
	case oldBeaker, oldWebapp2:
		return startPython(kind, data)
	case oldRecorded:
		return replay(data)
	case "":
		for _, kind := range []string{oldBeaker, oldWebapp2} {
			if old, err := startPython(kind, data); !errors.Is(err, errMissing) {
				return old, err
			}
		}
		return replay(data)
	}
	return nil, fmt.Errorf("there is no old application %q", kind)
}

// openFormat describes the old shop's sessions, as its own configuration does.
func openFormat(kind, data, version string) (*oldApp, error) {
	attributes := cookies.Attributes{HTTPOnly: true}
	if kind == oldWebapp2 {
		format, err := webapp2.New(webapp2.Config{Secret: []byte(secret), Name: "shop", Cookie: attributes})
		return &oldApp{kind: kind, format: format, release: func() error { return nil }}, err
	}
	folder := filepath.Join(data, "old-sessions")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	sessions, err := filestore.Open(folder)
	if err != nil {
		return nil, err
	}
	format, err := beaker.New(beaker.Config{
		Type: beaker.File, Name: "shop", Secret: []byte(secret), Store: sessions, Cookie: attributes,
		PlainStored: olderThan112(version), // 1.12 changed the stored form; each can read only its own
	})
	return &oldApp{kind: kind, format: format, folder: folder, release: sessions.Close}, err
}

// startPython runs the old shop as a separate process.
func startPython(kind, data string) (*oldApp, error) {
	python, err := findPython(kind)
	if err != nil {
		return nil, err
	}
	source := filepath.Join(data, "old-app")
	if err := unpack(source); err != nil {
		return nil, err
	}
	old, err := openFormat(kind, data, python.version)
	if err != nil {
		return nil, err
	}
	script, err := filepath.Abs(filepath.Join(source, kind+"_app.py"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(python.path, script, old.folder, secret)
	cmd.Env = append(os.Environ(), python.env...)
	cmd.Stderr = os.Stderr
	life, err := cmd.StdinPipe() // the process ends when this closes, also when this program ends
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	old.stop = sync.OnceValue(func() error { return errors.Join(life.Close(), cmd.Wait()) })
	line, err := bufio.NewReader(out).ReadString('\n')
	port, bad := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || bad != nil {
		return nil, errors.Join(fmt.Errorf("the old shop did not start: it said %q", line), old.close())
	}
	old.handler = httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "127.0.0.1:" + strconv.Itoa(port)})
	return old, nil
}

// unpack writes the old shop's programs to a folder.
func unpack(folder string) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	names, err := fs.Glob(files, "old/*.py")
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(folder, filepath.Base(name)), text, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// interpreter is a Python that has the library.
type interpreter struct {
	path    string
	env     []string
	version string // of Beaker
}

// askBeaker imports Beaker and prints its version.
const askBeaker = `
import beaker.middleware
try:
    from importlib.metadata import version
except ImportError:
    from pkg_resources import get_distribution
    version = lambda name: get_distribution(name).version
print(version("beaker"))`

// olderThan112 reports whether a version of Beaker stores plain dictionaries.
func olderThan112(version string) bool {
	var minor int
	n, err := fmt.Sscanf(version, "1.%d", &minor)
	return err == nil && n == 1 && minor < 12
}

// findPython returns an interpreter that has the library: Debian's python3-beaker,
// or the webapp2 in the Google Cloud SDK. LEGACY_PYTHON names more interpreters to
// try, separated as in PATH.
func findPython(kind string) (*interpreter, error) {
	env := []string{"PYTHONDONTWRITEBYTECODE=1", "PYTHONWARNINGS=ignore"}
	ask := askBeaker
	if kind == oldWebapp2 {
		ask = "import webapp2_extras.sessions"
		folders, err := webapp2Folders()
		if err != nil {
			return nil, err
		}
		env = append(env, "PYTHONPATH="+strings.Join(folders, string(os.PathListSeparator)))
	}
	candidates := append(filepath.SplitList(os.Getenv("LEGACY_PYTHON")), "python3", "/usr/bin/python3", "python2.7", "python2")
	for _, candidate := range candidates {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		cmd := exec.CommandContext(ctx, candidate, "-c", ask)
		cmd.Env = append(os.Environ(), env...)
		version, err := cmd.Output()
		cancel()
		if err == nil {
			return &interpreter{candidate, env, strings.TrimSpace(string(version))}, nil
		}
	}
	return nil, fmt.Errorf("a Python with %s is %w", kind, errMissing)
}

// webapp2Folders are where the Cloud SDK has webapp2 and what that needs.
func webapp2Folders() (folders []string, err error) {
	if more := os.Getenv("PYTHONPATH"); more != "" {
		folders = append(folders, more)
	}
	lib := cloudSDK("platform/google_appengine/lib")
	if lib == "" {
		return folders, nil
	}
	for _, name := range []string{"webapp2*", "webapp2/webapp2*", "webob*", "six*"} {
		found, err := filepath.Glob(filepath.Join(lib, name))
		if err != nil {
			return nil, err
		}
		folders = append(folders, found...)
	}
	return folders, nil
}

// cloudSDK returns a folder of the Google Cloud SDK, "" if there is no SDK.
func cloudSDK(folder string) string {
	if root := os.Getenv("CLOUDSDK_ROOT"); root != "" {
		return filepath.Join(root, folder)
	}
	gcloud, err := exec.LookPath("gcloud")
	if err != nil {
		return ""
	}
	if gcloud, err = filepath.EvalSymlinks(gcloud); err != nil {
		return ""
	}
	return filepath.Join(filepath.Dir(filepath.Dir(gcloud)), folder)
}

// replay puts recorded sessions of the real old shop in their places. No
// application serves the old pages.
func replay(data string) (*oldApp, error) {
	old, err := openFormat(oldRecorded, data, "1.11.0") // the recorded version
	if err != nil {
		return nil, err
	}
	text, err := files.ReadFile("recorded/beaker.json")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &old.visits); err != nil {
		return nil, err
	}
	for _, v := range old.visits {
		path := filepath.Join(old.folder, filepath.FromSlash(v.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		if err := os.WriteFile(path, v.File, 0o600); err != nil {
			return nil, err
		}
	}
	old.stop = func() error { return nil }
	old.handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "This page is still the old shop's, and there is no Python with Beaker here to run it.\n")
	})
	return old, nil
}

// close stops the old shop. Its sessions stay readable until release.
func (o *oldApp) close() error { return o.stop() }

// left counts the sessions in the old shop's folder. known is false for
// sessions in cookies, which cannot be counted.
func (o *oldApp) left() (n int, known bool, err error) {
	if o.folder == "" {
		return 0, false, nil
	}
	err = filepath.WalkDir(o.folder, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(d.Name()) == ".cache" {
			n++
		}
		return err
	})
	return n, true, err
}
