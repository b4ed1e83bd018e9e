package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a program that this one has started on a free loopback port.
type process struct {
	addr string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// launch starts a program in dir. It ends with this program, whatever happens
// to it.
func launch(dir, program string, cred *syscall.Credential, args ...string) (*process, error) {
	out, err := os.Create(filepath.Join(dir, filepath.Base(program)+".log"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &process{cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// stop ends the program, PostgreSQL without waiting for its clients.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// await waits until ready returns nil.
func (p *process) await(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended at once; see its log", p.cmd.Path)
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", p.cmd.Path, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// cpu is the processor time that the program and its children have taken.
// Ended children do not count.
func (p *process) cpu() (time.Duration, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	self := strconv.Itoa(p.cmd.Process.Pid)
	ticks := 0
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		// "pid (name) state ppid …"; the name may hold anything.
		pid, rest, _ := strings.Cut(string(b), " ")
		f := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:])
		if len(f) < 13 || pid != self && f[1] != self {
			continue
		}
		user, err1 := strconv.Atoi(f[11])
		system, err2 := strconv.Atoi(f[12])
		if err := errors.Join(err1, err2); err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		ticks += user + system
	}
	const tick = time.Second / 100 // on every Linux that Go runs on
	return time.Duration(ticks) * tick, nil
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// startRedis starts Redis with an append-only file that is synced every second.
func startRedis(ctx context.Context, dir string, args ...string) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	p, err := launch(dir, "redis-server", nil, append([]string{
		"--bind", "127.0.0.1", "--port", port, "--dir", dir, "--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
	}, args...)...)
	if err != nil {
		return nil, err
	}
	p.addr = addr
	return p, p.await(ctx, func() error { return says(addr, "PING\r\n", "+PONG") })
}

// startMemcached starts memcached with that many MiB of memory.
func startMemcached(ctx context.Context, dir string, mebibytes int) (*process, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	p, err := launch(dir, "memcached", nil, "-l", "127.0.0.1", "-p", port, "-U", "0", "-m", strconv.Itoa(mebibytes), "-u", "nobody")
	if err != nil {
		return nil, err
	}
	p.addr = addr
	return p, p.await(ctx, func() error { return says(addr, "version\r\n", "VERSION") })
}

// says sends a line and expects an answer with that beginning.
func says(addr, line, want string) error {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte(line)); err != nil {
		return err
	}
	answer := make([]byte, 64)
	n, err := c.Read(answer)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(answer[:n]), want) {
		return fmt.Errorf("%q is no answer", answer[:n])
	}
	return nil
}

// startPostgres starts PostgreSQL as it comes (fsync and synchronous_commit are
// on), with pg_stat_statements to count what it is asked.
func startPostgres(ctx context.Context, dir string) (*process, error) {
	bin, err := postgresPrograms()
	if err != nil {
		return nil, err
	}
	dir, err = os.MkdirTemp(dir, "postgres-")
	if err != nil {
		return nil, err
	}
	var cred *syscall.Credential
	if os.Geteuid() == 0 {
		// It refuses to run as root; the package brings a user for it.
		if cred, err = credential("postgres"); err != nil {
			return nil, err
		}
		if err := os.Chown(dir, int(cred.Uid), int(cred.Gid)); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-instructions")
	initdb.Dir = dir
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	_, port, _ := net.SplitHostPort(addr)
	p, err := launch(dir, filepath.Join(bin, "postgres"), cred, "-D", data, "-p", port,
		"-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="+dir, "-c", "max_connections=300",
		"-c", "shared_preload_libraries=pg_stat_statements")
	if err != nil {
		return nil, err
	}
	p.addr = addr
	return p, p.await(ctx, func() error {
		return exec.CommandContext(ctx, filepath.Join(bin, "pg_isready"), "-h", "127.0.0.1", "-p", port).Run()
	})
}

// postgresPrograms is where PostgreSQL's programs are; Debian keeps them off
// the PATH, by version.
func postgresPrograms() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err == nil && len(found) > 0 {
		return filepath.Dir(found[len(found)-1]), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", fmt.Errorf("PostgreSQL is not installed: %w", err)
	}
	return filepath.Dir(path), nil
}

func credential(name string) (*syscall.Credential, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

func postgresURL(addr string) string {
	return "postgres://postgres@" + addr + "/postgres?sslmode=disable"
}
