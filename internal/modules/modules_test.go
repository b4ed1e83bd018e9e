package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/dirhash"
)

const (
	ours    = "github.com/sojourn-go/imagined"
	version = "v0.1.0"
)

// tree writes a repository with a module at its top and one in store, which uses
// it and does not say so yet. Nothing can be downloaded.
func tree(t *testing.T) string {
	t.Helper()
	t.Setenv("GOPROXY", "off")
	t.Setenv("GOFLAGS", "-modcacherw")
	t.Setenv("GOMODCACHE", t.TempDir())
	t.Setenv("GOWORK", "")
	top := t.TempDir()
	put(t, top, "go.work", "go 1.25.0\n")
	put(t, top, "go.mod", "module "+ours+"\n\ngo 1.25.0\n")
	put(t, top, "root.go", "package imagined\n\nconst Answer = 42\n")
	put(t, top, "LICENSE", "Do as you like.\n")
	put(t, top, ".gitignore", "*.db\n")
	put(t, top, "store/go.mod", "module "+ours+"/store\n\ngo 1.25.0\n")
	put(t, top, "store/store.go", "package store\n\nimport \""+ours+"\"\n\nvar Answer = imagined.Answer\n")
	git(t, top, "init", "-q")
	return top
}

func put(t *testing.T, top, name, text string) {
	t.Helper()
	name = filepath.Join(top, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func text(t *testing.T, top, name string) string {
	t.Helper()
	b, err := readSums(filepath.Join(top, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func git(t *testing.T, top string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=T", "-c", "user.email=t@example.com"}, args...)...)
	cmd.Dir = top
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func tidied(t *testing.T, top, version string) {
	t.Helper()
	r, err := open(top, version)
	if err == nil {
		err = r.tidy()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestANewModuleNeedsNoMoreThanItsGoMod(t *testing.T) {
	top := tree(t)
	tidied(t, top, version)
	mod := text(t, top, "store/go.mod")
	if !strings.Contains(mod, ours+" "+version) || strings.Contains(mod, "replace") {
		t.Errorf("store/go.mod is\n%s", mod)
	}
	before := text(t, top, "go.work") + text(t, top, "go.work.sum") + mod
	for _, args := range [][]string{
		{"go", "build", "./store/..."},
		{"go", "vet", "./store/..."},
		{"go", "list", "-m", "all"},
		{"go", "mod", "download"},
	} {
		if err := command(top, nil, args...); err != nil {
			t.Error(err)
		}
	}
	if after := text(t, top, "go.work") + text(t, top, "go.work.sum") + text(t, top, "store/go.mod"); after != before {
		t.Errorf("a go command made\n%s\nof\n%s", after, before)
	}
	r, err := open(top, "")
	if err == nil {
		err = r.check()
	}
	if err != nil {
		t.Errorf("what tidy wrote: %v", err)
	}
}

func TestCheckSeesWhatTidyMends(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, top string){
		"a replace line": func(t *testing.T, top string) {
			put(t, top, "store/go.mod", text(t, top, "store/go.mod")+"\nreplace "+ours+" => ..\n")
		},
		"an old version": func(t *testing.T, top string) {
			put(t, top, "store/go.mod", strings.Replace(text(t, top, "store/go.mod"), version, "v0.0.9", 1))
		},
		"a hash of ours": func(t *testing.T, top string) {
			put(t, top, "store/go.sum", ours+" "+version+"/go.mod h1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n")
		},
		"one more module": func(t *testing.T, top string) {
			put(t, top, "oidc/go.mod", "module "+ours+"/oidc\n\ngo 1.25.0\n")
		},
		"one module less": func(t *testing.T, top string) {
			if err := os.RemoveAll(filepath.Join(top, "store")); err != nil {
				t.Fatal(err)
			}
		},
		"a requirement of a module that is gone": func(t *testing.T, top string) {
			put(t, top, "store/go.mod", text(t, top, "store/go.mod")+"\nrequire "+ours+"/gone "+version+"\n")
		},
	} {
		t.Run(name, func(t *testing.T) {
			top := tree(t)
			tidied(t, top, version)
			change(t, top)
			r, err := open(top, "")
			if err != nil {
				t.Fatal(err)
			}
			if err := r.check(); err == nil {
				t.Error("check sees nothing")
			}
			tidied(t, top, "")
			if r, err = open(top, ""); err != nil {
				t.Fatal(err)
			}
			if err := r.check(); err != nil {
				t.Errorf("after tidy: %v", err)
			}
		})
	}
}

func TestTheNextReleaseIsRequiredEverywhere(t *testing.T) {
	top := tree(t)
	tidied(t, top, version)
	tidied(t, top, "v0.2.0")
	if all := text(t, top, "go.work") + text(t, top, "store/go.mod"); strings.Contains(all, version) || strings.Count(all, "v0.2.0") != 3 {
		t.Errorf("%s", all)
	}
}

func TestModulesInACircleAreAnError(t *testing.T) {
	top := tree(t)
	tidied(t, top, version)
	put(t, top, "go.mod", "module "+ours+"\n\ngo 1.25.0\n\nrequire "+ours+"/store "+version+"\n")
	if _, err := open(top, ""); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Errorf("%v", err)
	}
}

// Hashes of our own modules are committed before the tags exist. They are only
// correct if a rehearsal's zip equals the go command's zip of the tag.
func TestARehearsedModuleIsTheOneAtItsTag(t *testing.T) {
	top := tree(t)
	put(t, top, "local.db", "visitors")         // git ignores it
	put(t, top, "vendor/modules.txt", "# no\n") // no zip has it
	put(t, top, "testdata/go.mod", "module example.com/x\n")
	put(t, top, "testdata/x.go", "package x\n")
	tidied(t, top, version)
	r, err := open(top, "")
	if err != nil {
		t.Fatal(err)
	}
	reh, err := r.prepare(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range reh.modules {
		if err := reh.publish(m); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"go.mod", "go.sum"} {
			if sums := text(t, reh.top, filepath.Join(m.dir, name)); sums != "" {
				put(t, top, filepath.Join(m.dir, name), sums)
			}
		}
	}
	if sums := text(t, top, "store/go.sum"); !strings.Contains(sums, ours+" "+version+" h1:") {
		t.Errorf("the release's go.sum is %q", sums)
	}
	git(t, top, "add", "-A")
	git(t, top, "commit", "-qm", "Release")
	git(t, top, "tag", version)
	git(t, top, "tag", "store/"+version)

	// The go command asks the repository, by way of git, which finds it here.
	t.Setenv("GIT_CONFIG_COUNT", "1")
	t.Setenv("GIT_CONFIG_KEY_0", "url.file://"+top+".insteadOf")
	t.Setenv("GIT_CONFIG_VALUE_0", "https://"+ours)
	for _, m := range reh.modules {
		cmd := exec.Command("go", "mod", "download", "-json", m.path+"@"+version)
		cmd.Dir = t.TempDir()
		cmd.Env = append(os.Environ(), "GOPROXY=direct", "GONOSUMDB="+ours+","+ours+"/*", "GOVCS=*:git")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		var tagged struct{ Sum string }
		if err := json.Unmarshal(out, &tagged); err != nil {
			t.Fatal(err)
		}
		rehearsed, err := dirhash.HashZip(filepath.Join(reh.proxy, m.path, "@v", version+".zip"), dirhash.DefaultHash)
		if err != nil || rehearsed != tagged.Sum {
			t.Errorf("%s: %s in the rehearsal, %s at the tag (%v)", m.path, rehearsed, tagged.Sum, err)
		}
	}
}

// The go command assumes that a version never changes, but each rehearsal has
// other files under the same version.
func TestASecondRehearsalSeesWhatIsNew(t *testing.T) {
	top := tree(t)
	tidied(t, top, version)
	folder := t.TempDir()
	rehearse := func() {
		t.Helper()
		r, err := open(top, "")
		if err != nil {
			t.Fatal(err)
		}
		reh, err := r.prepare(folder)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range reh.modules {
			if err := reh.publish(m); err != nil {
				t.Fatal(err)
			}
			if err := command(reh.abs(m.dir), reh.env, "go", "build", "./..."); err != nil {
				t.Fatal(err)
			}
		}
	}
	rehearse()
	put(t, top, "extra/extra.go", "package extra\n\nconst Answer = 43\n")
	put(t, top, "store/store.go", "package store\n\nimport \""+ours+"/extra\"\n\nvar Answer = extra.Answer\n")
	rehearse()
}
