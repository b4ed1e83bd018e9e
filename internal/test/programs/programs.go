//go:build linux

package programs

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Built are the programs for a package's tests, each built once. The zero value
// is ready.
type Built struct {
	mu    sync.Mutex
	dir   string
	paths map[string]string
}

// Main runs the tests, removes what was built, and returns the exit status: what
// a TestMain does.
func (b *Built) Main(m *testing.M) (status int) {
	defer func() {
		if b.dir != "" {
			os.RemoveAll(b.dir)
		}
	}()
	return m.Run()
}

// Dir is a folder for all tests, which Main removes.
func (b *Built) Dir() (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.folder()
}

func (b *Built) folder() (_ string, err error) {
	if b.dir == "" {
		b.dir, err = os.MkdirTemp("", "sojourn-programs-*")
	}
	return b.dir, err
}

// Program builds the program in a folder, with further arguments of go build,
// and returns its path, which ends in name. Each name is built once.
func (b *Built) Program(folder, name string, args ...string) (path string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if path, ok := b.paths[name]; ok {
		return path, nil
	}
	dir, err := b.folder()
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, name)
	// Without tables for debuggers, linking takes less time.
	cmd := exec.Command("go", append(append([]string{"build", "-ldflags=-w"}, args...), "-o", path, ".")...)
	cmd.Dir = folder
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w: %s", folder, err, out)
	}
	if b.paths == nil {
		b.paths = map[string]string{}
	}
	b.paths[name] = path
	return path, nil
}

// Process is a running server program.
type Process struct {
	Base string        // its URL: "http://…"
	Log  *Output       // its standard error
	Gone chan struct{} // closed when it has exited

	cmd *exec.Cmd
}

// patience bounds the wait for a process that stops.
const patience = 90 * time.Second

// Start starts a program whose first line is "listening on" and its URL, with
// env besides this process's environment. The test kills it at its end.
func Start(t testing.TB, path string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{cmd: exec.Command(path, args...), Log: &Output{}, Gone: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = p.Log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.Base, err = Address(stdout)
	go func() {
		defer close(p.Gone)
		_ = p.cmd.Wait()
	}()
	t.Cleanup(p.Kill)
	if err != nil {
		t.Fatalf("%s did not start: %v; it said: %s", filepath.Base(path), err, p.Log)
	}
	return p
}

// Address reads the line with a program's address.
func Address(stdout io.Reader) (string, error) {
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return "", err
	}
	base, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "listening on ")
	if !found {
		return "", fmt.Errorf("its first line is %q", line)
	}
	return base, nil
}

// Kill ends the process with SIGKILL, and waits until it has exited.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.Gone
}

// Signal sends a signal, if the process is still there.
func (p *Process) Signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// ID is the process's number.
func (p *Process) ID() int { return p.cmd.Process.Pid }

// Terminate asks the process to stop, and returns its exit status.
func (p *Process) Terminate(t testing.TB) int {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.Gone:
	case <-time.After(patience):
		t.Fatalf("it does not stop; it said: %s", p.Log)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Output is a program's output so far.
type Output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements [io.Writer].
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}
