package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// A rehearsal is a local release: a copy of the working tree, and a module
// proxy in a folder, with a zip of each module.
type rehearsal struct {
	*repository // the copy
	proxy       string
	cache       string // the go commands' module cache
	env         []string
}

// rehearse makes a release in a folder, builds each of its modules as
// downloaded modules, and then uses it: a first program, and the command. From
// an earlier rehearsal in the folder, only foreign modules are reused. With
// keep, the go.mod and go.sum files of the release are copied into the working
// tree.
func (r *repository) rehearse(folder string, keep bool) error {
	start := time.Now()
	reh, err := r.prepare(folder)
	if err != nil {
		return err
	}
	for _, m := range reh.modules {
		if err := reh.publish(m); err != nil {
			return err
		}
	}
	said(start, "%d modules are tidy at %s and in the proxy", len(reh.modules), r.version)
	for _, m := range reh.modules {
		if err := command(reh.abs(m.dir), reh.env, "go", "build", "./..."); err != nil {
			return err
		}
	}
	said(start, "each builds without go.work")
	if err := reh.firstProgram(filepath.Join(folder, "first")); err != nil {
		return err
	}
	said(start, "an empty module gets %s and %s/store/sqlite, and the guide's first program builds", r.path, r.path)
	installed := filepath.Join(folder, "bin")
	if err := command(folder, append(reh.env, "GOBIN="+installed), "go", "install", r.path+"/cmd/sojourn@"+r.version); err != nil {
		return err
	}
	out, err := exec.Command(filepath.Join(installed, "sojourn"), "version", "--json").Output()
	if err != nil {
		return fmt.Errorf("sojourn version: %w", err)
	}
	var is struct{ Version string }
	if err := json.Unmarshal(out, &is); err != nil || is.Version != r.version {
		return errors.Join(err, fmt.Errorf("sojourn version says %s, want %s", out, r.version))
	}
	said(start, "go install %s/cmd/sojourn@%s works", r.path, r.version)
	if !keep {
		return nil
	}
	for _, m := range reh.modules {
		for _, name := range []string{"go.mod", "go.sum"} {
			text, err := readSums(reh.abs(m.dir, name))
			if err != nil {
				return err
			}
			if err := writeSums(r.abs(m.dir, name), text); err != nil {
				return err
			}
		}
	}
	fmt.Println("The go.sum files are those of the release. Its tags, in this order:")
	for _, m := range reh.modules {
		if m.released() {
			fmt.Println(path.Join(m.dir, r.version))
		}
	}
	return nil
}

// released reports whether other repositories can require the module. The
// others are internal.
func (m *goModule) released() bool {
	first, _, _ := strings.Cut(m.dir, "/")
	return first != "internal" && first != "examples" && first != "bench" && !strings.Contains(m.dir, "/internal/")
}

// prepare copies the working tree and empties the proxy.
func (r *repository) prepare(folder string) (*rehearsal, error) {
	at := func(name string) string { return filepath.Join(folder, name) }
	ours, err := module.EscapePath(r.path)
	if err != nil {
		return nil, err
	}
	// The go command never downloads a version again.
	for _, old := range []string{"tree", "proxy", "first", "bin", "mod/" + ours, "mod/cache/download/" + ours} {
		if err := os.RemoveAll(at(old)); err != nil {
			return nil, err
		}
	}
	versions, err := filepath.Glob(at("mod/" + ours + "@*"))
	if err != nil {
		return nil, err
	}
	for _, old := range versions {
		if err := os.RemoveAll(old); err != nil {
			return nil, err
		}
	}
	for _, name := range r.files {
		if err := copyFile(r.abs(name), filepath.Join(at("tree"), name)); err != nil {
			return nil, err
		}
	}
	// Use the modules in the local cache without a download.
	out, err := exec.Command("go", "env", "GOMODCACHE", "GOPROXY", "GONOSUMDB", "GOFLAGS").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	is := strings.Split(string(out), "\n")
	cache, proxies, noSums, flags := is[0], is[1], is[2], is[3]
	reh := &rehearsal{
		repository: &repository{top: at("tree"), files: r.files, version: r.version},
		proxy:      at("proxy"),
		cache:      at("mod"),
	}
	reh.env = []string{
		"GOWORK=off",
		"GOFLAGS=" + strings.TrimSpace(flags+" -modcacherw -buildvcs=false"),
		"GOMODCACHE=" + reh.cache,
		"GOPROXY=file://" + reh.proxy + ",file://" + cache + "/cache/download," + proxies,
		"GONOSUMDB=" + strings.TrimPrefix(noSums+","+r.path+","+r.path+"/*", ","),
		// The go command caches a module's index by folder, whose files have changed.
		"GODEBUG=" + strings.TrimPrefix(os.Getenv("GODEBUG")+",goindex=0", ","),
	}
	return reh, reh.read()
}

// publish makes one module tidy, with the hashes of our modules that it
// requires, and puts it into the proxy as it will be released.
func (reh *rehearsal) publish(m *goModule) error {
	if _, err := reh.step(m); err != nil {
		return err
	}
	if err := reh.write(m); err != nil {
		return err
	}
	if err := command(reh.abs(m.dir), reh.env, "go", "mod", "tidy"); err != nil {
		return err
	}
	escaped, err := module.EscapePath(m.path)
	if err != nil {
		return err
	}
	at := filepath.Join(reh.proxy, escaped, "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	info, err := json.Marshal(map[string]any{"Version": reh.version, "Time": time.Now().UTC()})
	if err != nil {
		return err
	}
	mod, err := os.ReadFile(reh.abs(m.dir, "go.mod"))
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"list": []byte(reh.version + "\n"), reh.version + ".info": info, reh.version + ".mod": mod} {
		if err := os.WriteFile(filepath.Join(at, name), text, 0o644); err != nil {
			return err
		}
	}
	return reh.zip(m, filepath.Join(at, reh.version+".zip"))
}

// zip writes a module's zip. Like the go command's, it has the files in git,
// none of a nested module, and the repository's license if the module has none.
func (reh *rehearsal) zip(m *goModule, name string) (err error) {
	prefix := ""
	if m.dir != "." {
		prefix = m.dir + "/"
	}
	var files []zip.File
	licensed := false
	add := func(inside, name string) {
		if inside == "LICENSE" {
			licensed = true
		}
		files = append(files, zipFile{inside, reh.abs(name)})
	}
	for _, name := range reh.files {
		if inside, ok := strings.CutPrefix(name, prefix); ok {
			add(inside, name)
		}
	}
	// Tidying may have created a go.sum that is not in git yet.
	if _, err := os.Lstat(reh.abs(m.dir, "go.sum")); err == nil && !has(files, "go.sum") {
		add("go.sum", path.Join(m.dir, "go.sum"))
	}
	if !licensed {
		add("LICENSE", "LICENSE")
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return zip.Create(f, module.Version{Path: m.path, Version: reh.version}, files)
}

func has(files []zip.File, name string) bool {
	for _, f := range files {
		if f.Path() == name {
			return true
		}
	}
	return false
}

// A zipFile is a file of the working tree.
type zipFile struct{ inside, name string }

func (f zipFile) Path() string                 { return f.inside }
func (f zipFile) Lstat() (os.FileInfo, error)  { return os.Lstat(f.name) }
func (f zipFile) Open() (io.ReadCloser, error) { return os.Open(f.name) }

var goBlock = regexp.MustCompile("(?s)```go\n(package main\n.*?)```")

// firstProgram makes a module, gets the library and a store, and builds the first
// program of docs/start.md.
func (reh *rehearsal) firstProgram(folder string) error {
	guide, err := os.ReadFile(reh.abs("docs/start.md"))
	if err != nil {
		return err
	}
	program := goBlock.FindSubmatch(guide)
	if program == nil {
		return errors.New("docs/start.md has no program")
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if err := command(folder, reh.env, "go", "mod", "init", "example.com/first"); err != nil {
		return err
	}
	if err := command(folder, reh.env, "go", "get", reh.path+"@"+reh.version, reh.path+"/store/sqlite@"+reh.version); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(folder, "main.go"), program[1], 0o644); err != nil {
		return err
	}
	return command(folder, reh.env, "go", "build", ".")
}

func copyFile(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, text, info.Mode().Perm())
}

func said(start time.Time, format string, args ...any) {
	fmt.Printf("%4ds  %s\n", int(time.Since(start).Seconds()), fmt.Sprintf(format, args...))
}
