//go:build !race && unix

package values_test

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"syscall"
	"testing"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store/memory"
)

// processorTime is the processor time of this process, in microseconds. Unlike
// the clock it does not depend on the machine's load.
func processorTime(t *testing.T) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return u.Utime.Nano() / 1000
}

// A visitor may control the names and the number of values. Eight times as many
// must not take 64 times as long, for any operation.
func TestManyNamesTakeTimeInProportionToTheirNumber(t *testing.T) {
	m, err := sojourn.New(sojourn.Config{
		Keys: sitetest.Keys(t), Store: memory.New(), MaxSize: 32 << 20, Mode: sojourn.StoredOnly,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	open := func(in http.Header) (*sojourn.Session, *sojourn.Exchange) {
		s, x, err := sitetest.Begin(t.Context(), m, in)
		if err != nil {
			t.Fatal(err)
		}
		return s, x
	}
	save := func(s *sojourn.Session) {
		if err := s.Save(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	commit := func(x *sojourn.Exchange) http.Header {
		out := http.Header{}
		if err := x.Commit(http.StatusOK, out); err != nil {
			t.Fatal(err)
		}
		in := http.Header{}
		for _, line := range out["Set-Cookie"] {
			c, err := http.ParseSetCookie(line)
			if err == nil && c.MaxAge >= 0 {
				in.Add("Cookie", c.Name+"="+c.Value)
			}
		}
		return in
	}
	names := func(n int) []string {
		list := make([]string, n)
		for i, p := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
			list[i] = fmt.Sprintf("name%d", p)
		}
		return list
	}
	filled := func(n int) *sojourn.Session {
		s, x := open(nil)
		for _, name := range names(n) {
			s.Set(name, 1)
		}
		s, _ = open(commit(x))
		return s
	}
	for what, prepare := range map[string]func(n int) (work func()){
		"Set": func(n int) func() {
			s, _ := open(nil)
			return func() {
				for _, name := range names(n) {
					s.Set(name, 1)
				}
				save(s)
			}
		},
		"Set and Has in turn": func(n int) func() {
			s, _ := open(nil)
			return func() {
				for _, name := range names(n) {
					if s.Set(name, 1); !s.Has(name) || s.Has(name+"x") {
						t.Fatal("not set")
					}
				}
			}
		},
		"Delete": func(n int) func() {
			s := filled(n)
			return func() {
				for _, name := range names(n) {
					s.Delete(name)
				}
				save(s)
			}
		},
		"Pop": func(n int) func() {
			s := filled(n)
			return func() {
				for _, name := range names(n) {
					if _, ok := sojourn.NewKey[int](name).Pop(s); !ok {
						t.Fatal("not there")
					}
				}
				save(s)
			}
		},
		"Update": func(n int) func() {
			s := filled(n)
			return func() {
				for _, name := range names(n) {
					sojourn.NewKey[int](name).Update(s, func(i int) int { return i + 1 })
				}
				save(s)
			}
		},
		"Clear and Set": func(n int) func() {
			s := filled(n)
			return func() {
				s.Clear()
				for _, name := range names(n) {
					s.Set(name, 2)
				}
				save(s)
			}
		},
		"a save after another request's": func(n int) func() {
			s, x := open(nil)
			s.Set("x", 1)
			in := commit(x)
			slow, _ := open(in)
			for _, name := range names(n) {
				sojourn.NewKey[int](name).Update(slow, func(i int) int { return i + 1 })
			}
			fast, _ := open(in)
			fast.Set("x", 2)
			save(fast)
			return func() { save(slow) }
		},
		"Open": func(n int) func() {
			s, x := open(nil)
			for _, name := range names(n) {
				s.Set(name, 1)
			}
			in := commit(x)
			return func() {
				for range 20 {
					s, _ := open(in)
					if !s.Has("name7") {
						t.Fatal("not there")
					}
				}
			}
		},
		"names that cannot be used": func(n int) func() {
			s, _ := open(nil)
			return func() {
				for _, name := range names(n) {
					s.Set("_"+name, 1)
				}
				if err := s.Save(t.Context()); err == nil || len(err.Error()) > 1000 {
					t.Fatal(err)
				}
			}
		},
		"Flash": func(n int) func() {
			s, _ := open(nil)
			return func() {
				for range n / 8 { // each is some work
					s.Flash("info", "hello")
				}
				save(s)
			}
		},
	} {
		measure := func(n int) int64 {
			work := prepare(n)
			before := processorTime(t)
			work()
			return processorTime(t) - before
		}
		// The clock of short times is coarse, so they are added up.
		const few, many, runs = 2_000, 16_000, 4
		var a int64
		for range runs {
			a += measure(few)
		}
		a = max(a/runs, 2000)
		// On a busy machine, the same work can take several times the processor time.
		b := measure(many)
		for i := 1; i < runs && b > 32*a; i++ {
			b = min(b, measure(many))
		}
		if b > 32*a {
			t.Errorf("%s: %d take %d µs of processor time, %d take %d µs", what, few, a, many, b)
		}
	}
}
