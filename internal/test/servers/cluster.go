//go:build linux

package servers

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// emptyCluster makes the folder data, with an empty PostgreSQL cluster in it.
// It copies one from the user's cache, if there is one: initdb takes most of a
// second of processor time, and its result is always the same.
func (s *Server) emptyCluster(data string) {
	s.t.Helper()
	initdb := postgresProgram(s.t, "initdb")
	args := []string{"-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--no-instructions"}
	kept := keptCluster(initdb, args)
	if kept != "" && exec.Command("cp", "-a", kept, data).Run() == nil {
		return
	}
	_ = os.RemoveAll(data) // the partial copy
	init := exec.Command(initdb, append(args, "-D", data)...)
	init.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	init.Dir = s.Dir
	if out, err := init.CombinedOutput(); err != nil {
		s.t.Fatalf("initdb: %v\n%s", err, out)
	}
	if kept != "" {
		keepCluster(data, kept)
	}
}

// keptCluster is the cache's folder for this program's result with these
// arguments and environment, or "" if there is no cache.
func keptCluster(initdb string, args []string) string {
	cache, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	program, err := os.Stat(initdb)
	if err != nil {
		return ""
	}
	made := fmt.Sprintln(initdb, program.Size(), program.ModTime().UnixNano(), args)
	for _, name := range []string{"LANG", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_MONETARY", "LC_NUMERIC", "LC_TIME", "TZ"} {
		made += fmt.Sprintf("%s=%q\n", name, os.Getenv(name))
	}
	return filepath.Join(cache, "sojourn-tests", "postgres", fmt.Sprintf("%x", sha256.Sum256([]byte(made)))[:32])
}

// keepCluster atomically copies a cluster into the cache. A failure is not an
// error, because tests without a cached cluster create one.
func keepCluster(data, kept string) {
	if os.MkdirAll(filepath.Dir(kept), 0o755) != nil {
		return
	}
	part, err := os.MkdirTemp(filepath.Dir(kept), "part-")
	if err != nil {
		return
	}
	defer os.RemoveAll(part)
	whole := filepath.Join(part, "data")
	if exec.Command("cp", "-a", data, whole).Run() == nil {
		_ = os.Rename(whole, kept) // it fails if another process was faster
	}
}
