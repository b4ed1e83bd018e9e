package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
)

// tidy writes go.work, every go.mod and go.sum, and go.work.sum.
func (r *repository) tidy() error {
	for _, m := range r.modules {
		if _, err := r.step(m); err != nil {
			return err
		}
		if err := r.write(m); err != nil {
			return err
		}
	}
	if err := os.WriteFile(r.abs("go.work"), r.workText(), 0o644); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "modules-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	// A module's requirements depend on those of its own required modules, so
	// tidy these first.
	for _, m := range r.modules {
		if err := r.tidyModule(m, tmp); err != nil {
			return err
		}
	}
	return r.workSums()
}

func (r *repository) tidyModule(m *goModule, tmp string) error {
	name, err := r.standalone(m, tmp)
	if err != nil {
		return err
	}
	if err := command(r.abs(m.dir), []string{"GOWORK=off"}, "go", "mod", "tidy", "-modfile="+name); err != nil {
		return err
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if m.file, err = modfile.Parse(name, text, nil); err != nil {
		return err
	}
	if _, err := r.step(m); err != nil {
		return err
	}
	if err := r.write(m); err != nil {
		return err
	}
	sums, err := readSums(sumName(name))
	if err != nil {
		return err
	}
	return writeSums(r.abs(m.dir, "go.sum"), r.foreign(sums))
}

// alone writes a go.mod and a go.sum for each module into a folder, for
// -modfile without go.work.
func (r *repository) alone(folder string) error {
	for _, m := range r.modules {
		if _, err := r.standalone(m, folder); err != nil {
			return err
		}
	}
	return nil
}

// standalone writes m's go.mod and go.sum into a folder of the same place below
// dir. The copy has a replace line for each of our own modules, so it needs no
// go.work, no proxy, and no hashes for them.
func (r *repository) standalone(m *goModule, dir string) (name string, err error) {
	text, err := m.file.Format()
	if err != nil {
		return "", err
	}
	file, err := modfile.Parse("go.mod", text, nil)
	if err != nil {
		return "", err
	}
	for _, other := range r.modules {
		if other == m {
			continue
		}
		if err := file.AddReplace(other.path, r.version, r.abs(other.dir), ""); err != nil {
			return "", err
		}
	}
	if text, err = file.Format(); err != nil {
		return "", err
	}
	name = filepath.Join(dir, m.dir, "go.mod")
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return "", err
	}
	if err := os.WriteFile(name, text, 0o644); err != nil {
		return "", err
	}
	sums, err := readSums(r.abs(m.dir, "go.sum"))
	if err != nil {
		return "", err
	}
	return name, writeSums(sumName(name), r.foreign(sums))
}

func sumName(mod string) string { return strings.TrimSuffix(mod, ".mod") + ".sum" }

// complete are the commands that need more hashes than a build. They add them
// to go.work.sum.
var complete = [][]string{
	{"go", "list", "-m", "all"},
	{"go", "mod", "download"},
	{"go", "mod", "graph"},
}

// workSums rewrites go.work.sum completely, so that no go command adds to it.
func (r *repository) workSums() (err error) {
	name := r.abs("go.work.sum")
	old, err := readSums(name)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, writeSums(name, old))
		}
	}()
	if err := writeSums(name, nil); err != nil {
		return err
	}
	for _, args := range complete {
		if err := command(r.top, []string{"GOWORK=" + r.abs("go.work")}, args...); err != nil {
			return err
		}
	}
	return nil
}

// check returns an error that lists tidy's changes of go.work, of a go.mod's
// lines for our own modules, and of go.work.sum. It does not check what go mod
// tidy itself checks.
func (r *repository) check() error {
	var wrong []error
	for _, m := range r.modules {
		if changed, err := r.step(m); changed || err != nil {
			wrong = append(wrong, errors.Join(err, fmt.Errorf("%s/go.mod requires another version of a module of ours than %s, one that is gone, or replaces one", m.dir, r.version)))
		}
		sums, err := readSums(r.abs(m.dir, "go.sum"))
		if err != nil || !bytes.Equal(sums, r.foreign(sums)) {
			wrong = append(wrong, errors.Join(err, fmt.Errorf("%s/go.sum has hashes of modules of ours", m.dir)))
		}
	}
	if text, err := os.ReadFile(r.abs("go.work")); err != nil || !bytes.Equal(text, r.workText()) {
		wrong = append(wrong, errors.Join(err, errors.New("go.work does not have the list of modules")))
	}
	name := r.abs("go.work.sum")
	before, err := readSums(name)
	if err != nil {
		return err
	}
	if err := command(r.top, []string{"GOWORK=" + r.abs("go.work")}, complete[0]...); err != nil {
		return errors.Join(append(wrong, err)...)
	}
	if after, err := readSums(name); err != nil || !bytes.Equal(before, after) {
		wrong = append(wrong, errors.Join(err, writeSums(name, before), errors.New("go.work.sum is not complete")))
	}
	if len(wrong) > 0 {
		wrong = append(wrong, errors.New("make tidy mends that"))
	}
	return errors.Join(wrong...)
}

// command runs a command with more in its environment. Its output is shown if
// it fails.
func command(dir string, env []string, args ...string) error {
	if args[0] == "go" && os.Getenv("GO") != "" {
		args = append([]string{os.Getenv("GO")}, args[1:]...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = dir
	cmd.Env = slices.Concat(os.Environ(), env)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %s: %w\n%s", dir, strings.Join(args, " "), err, out)
	}
	return nil
}
