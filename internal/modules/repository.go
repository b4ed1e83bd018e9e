package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
)

// A repository is the files of a working tree that git tracks or would add.
type repository struct {
	top     string
	files   []string // from the top, with slashes
	modules []*goModule
	path    string // of the module at the top
	version string // the next release
	work    *modfile.WorkFile
}

// A goModule is one of the repository's modules.
type goModule struct {
	path string
	dir  string // from the top; "." for the root
	file *modfile.File
}

// open reads the list of files and the modules. An empty version means the one in
// go.work.
func open(top, version string) (*repository, error) {
	cmd := exec.Command("git", "ls-files", "-co", "--exclude-standard", "-z")
	cmd.Dir = top
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	r := &repository{top: top, version: version}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		// The index may have deleted files.
		if _, err := os.Lstat(filepath.Join(top, name)); err == nil {
			r.files = append(r.files, name)
		}
	}
	return r, r.read()
}

// read reads go.work and the go.mod files, and puts the modules in an order in
// which each comes after those that it requires.
func (r *repository) read() error {
	text, err := os.ReadFile(filepath.Join(r.top, "go.work"))
	if err != nil {
		return err
	}
	if r.work, err = modfile.ParseWork("go.work", text, nil); err != nil {
		return err
	}
	r.modules = nil
	for _, name := range r.files {
		if path.Base(name) != "go.mod" || strings.Contains(name, "testdata/") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(r.top, name))
		if err != nil {
			return err
		}
		file, err := modfile.Parse(name, text, nil)
		if err != nil {
			return err
		}
		if file.Module == nil {
			return fmt.Errorf("%s names no module", name)
		}
		m := &goModule{path: file.Module.Mod.Path, dir: path.Dir(name), file: file}
		r.modules = append(r.modules, m)
		if m.dir == "." {
			r.path = m.path
		}
	}
	for _, m := range r.modules {
		if want := path.Join(r.path, m.dir); m.path != want {
			return fmt.Errorf("%s/go.mod has %s, want %s", m.dir, m.path, want)
		}
	}
	if r.version == "" {
		for _, line := range r.work.Replace {
			if line.Old.Path == r.path {
				r.version = line.Old.Version
			}
		}
	}
	if err := module.Check(r.path, r.version); err != nil {
		return fmt.Errorf("the next release: %w", err)
	}
	return r.sort()
}

func (r *repository) sort() error {
	slices.SortFunc(r.modules, func(a, b *goModule) int { return strings.Compare(a.path, b.path) })
	var sorted []*goModule
	var visit func(m *goModule, below []string) error
	visit = func(m *goModule, below []string) error {
		if slices.Contains(sorted, m) {
			return nil
		}
		if slices.Contains(below, m.path) {
			return fmt.Errorf("modules require each other in a circle: %s", strings.Join(append(below, m.path), " "))
		}
		for _, line := range m.file.Require {
			if needed := r.module(line.Mod.Path); needed != nil {
				if err := visit(needed, append(below, m.path)); err != nil {
					return err
				}
			}
		}
		sorted = append(sorted, m)
		return nil
	}
	for _, m := range r.modules {
		if err := visit(m, nil); err != nil {
			return err
		}
	}
	r.modules = sorted
	return nil
}

// module returns the module with that path, or nil.
func (r *repository) module(name string) *goModule {
	for _, m := range r.modules {
		if m.path == name {
			return m
		}
	}
	return nil
}

// ours reports whether a path is below this repository's, even if there is no
// such module.
func (r *repository) ours(name string) bool {
	return name == r.path || strings.HasPrefix(name, r.path+"/")
}

func (r *repository) abs(name ...string) string {
	return filepath.Join(r.top, filepath.Join(name...))
}

// workText is the expected go.work.
func (r *repository) workText() []byte {
	dirs := make([]string, len(r.modules))
	for i, m := range r.modules {
		dirs[i] = m.dir
		if m.dir != "." {
			dirs[i] = "./" + m.dir
		}
	}
	slices.Sort(dirs)
	var b bytes.Buffer
	fmt.Fprintf(&b, "// Written by make tidy from the list of modules.\n\ngo %s\n\nuse (\n", r.work.Go.Version)
	for _, dir := range dirs {
		fmt.Fprintf(&b, "\t%s\n", dir)
	}
	b.WriteString(")\n\n// The modules require the next release of each other. It is here.\nreplace (\n")
	for _, dir := range dirs {
		fmt.Fprintf(&b, "\t%s %s => %s\n", path.Join(r.path, dir), r.version, dir)
	}
	b.WriteString(")\n")
	return b.Bytes()
}

// step makes a go.mod require the next release of our own modules, and removes
// lines of removed modules and replace lines. It reports whether it changed
// anything.
func (r *repository) step(m *goModule) (changed bool, err error) {
	for _, line := range slices.Clone(m.file.Replace) {
		if r.ours(line.Old.Path) {
			changed = true
			err = errors.Join(err, m.file.DropReplace(line.Old.Path, line.Old.Version))
		}
	}
	for _, line := range slices.Clone(m.file.Require) {
		switch mod := line.Mod; {
		case !r.ours(mod.Path):
		case r.module(mod.Path) == nil:
			changed = true
			err = errors.Join(err, m.file.DropRequire(mod.Path))
		case mod.Version != r.version:
			changed = true
			err = errors.Join(err, m.file.AddRequire(mod.Path, r.version))
		}
	}
	m.file.Cleanup()
	return changed, err
}

func (r *repository) write(m *goModule) error {
	text, err := m.file.Format()
	if err != nil {
		return err
	}
	return os.WriteFile(r.abs(m.dir, "go.mod"), text, 0o644)
}

// foreign returns a go.sum without the lines about our own modules, whose hashes
// change with every commit.
func (r *repository) foreign(sums []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(sums) {
		if name, _, _ := bytes.Cut(line, []byte(" ")); !r.ours(string(name)) {
			b.Write(line)
		}
	}
	return b.Bytes()
}

// writeSums writes a go.sum. A module without requirements has none.
func writeSums(name string, sums []byte) error {
	if len(sums) > 0 {
		return os.WriteFile(name, sums, 0o644)
	}
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// readSums reads a go.sum, which may be missing.
func readSums(name string) ([]byte, error) {
	sums, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return sums, err
}
