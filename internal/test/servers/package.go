//go:build linux

package servers

import (
	"fmt"
	"os"
	"slices"
	"sync"
)

// TB is a server's interface to a test or a [Package].
type TB interface {
	Helper()
	Name() string
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Skip(args ...any)
	Cleanup(f func())
}

// Package is a TB for servers that all tests of a package share, or for
// programs other than tests. They stop with Close. The zero value is ready.
type Package struct {
	mu       sync.Mutex
	cleanups []func()
}

// failure is the panic value of a Package.
type failure struct{ error }

// Helper implements [TB].
func (p *Package) Helper() {}

// Name implements [TB].
func (p *Package) Name() string { return "all tests of the package" }

// Errorf writes to the standard error, because no test can fail any more.
func (p *Package) Errorf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Fatal panics. See [Package.Try].
func (p *Package) Fatal(args ...any) { panic(failure{fmt.Errorf("%s", fmt.Sprint(args...))}) }

// Fatalf panics. See [Package.Try].
func (p *Package) Fatalf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }

// Skip panics, like Fatal: tests that use a shared server call [NeedsGoogle]
// themselves.
func (p *Package) Skip(args ...any) { p.Fatal(args...) }

// Cleanup implements [TB].
func (p *Package) Cleanup(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleanups = append(p.cleanups, f)
}

// Close stops the servers.
func (p *Package) Close() {
	p.mu.Lock()
	cleanups := p.cleanups
	p.cleanups = nil
	p.mu.Unlock()
	for _, f := range slices.Backward(cleanups) {
		f()
	}
}

// Try returns the failure of f, which starts servers.
func (p *Package) Try(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r.error
		default:
			panic(r)
		}
	}()
	f()
	return nil
}
