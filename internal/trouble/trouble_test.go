package trouble

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// said is the log, a line for each record, without the time.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *said) take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.b.Reset()
	return strings.TrimSuffix(strings.ReplaceAll(s.b.String(), "level=", ""), "\n")
}

func newLog() (*Log, *said) {
	out := &said{}
	return &Log{Logger: slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{
		Level: slog.LevelInfo,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))}, out
}

func TestOneLineAMinuteOfEachKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out := newLog()
		for i, step := range []struct {
			after time.Duration
			kind  string
			want  string
		}{
			{0, "a", `WARN msg=a n=0`},
			{0, "a", ``},
			{0, "b", `WARN msg=b n=2`},
			{time.Minute - 1, "a", ``},
			{1, "a", `WARN msg=a n=4 not_logged_before=2`},
			{time.Second, "a", ``},
			{time.Minute - time.Second, "a", `WARN msg=a n=6 not_logged_before=1`},
			{0, "b", `WARN msg=b n=7`}, // the one was logged
			{time.Hour, "a", `WARN msg=a n=8`},
			{2 * time.Minute, "a", `WARN msg=a n=9`},
		} {
			time.Sleep(step.after)
			l.Report(slog.LevelWarn, step.kind, slog.Int("n", i))
			if got := out.take(); got != step.want {
				t.Errorf("step %d: %q, want %q", i, got, step.want)
			}
		}
	})
}

func TestWhatIsAFaultOnlyIfItHappensOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out := newLog()
		report := func(n int) string {
			for range n {
				l.ReportMany(slog.LevelInfo, "m")
			}
			return out.take()
		}
		for i, step := range []struct {
			after time.Duration
			n     int
			want  string
		}{
			{0, 3, ``},
			{time.Minute - 1, 1, `INFO msg=m`}, // the fourth within the minute
			{0, 5, ``},
			{1, 3, ``}, // another minute
			{0, 1, `INFO msg=m not_logged_before=5`},
			{time.Minute, 3, ``},
			{time.Minute, 3, ``},
			{0, 1, `INFO msg=m not_logged_before=3`},
			{time.Hour, 4, `INFO msg=m`},
		} {
			time.Sleep(step.after)
			if got := report(step.n); got != step.want {
				t.Errorf("step %d: %q, want %q", i, got, step.want)
			}
		}
	})
}

func TestWhatIsSaidOnceIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out := newLog()
		for range 3 {
			l.Once(slog.LevelError, "a", "key", 1)
			l.Once(slog.LevelError, "b")
			time.Sleep(time.Hour)
		}
		if got := out.take(); got != "ERROR msg=a key=1\nERROR msg=b" {
			t.Errorf("got %q", got)
		}
		if l.First("a") || !l.First("c") || l.First("c") {
			t.Error("it is not known what was said")
		}
	})
}

func TestManyWhoReportAtOnceAreOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, out := newLog()
		for range 50 {
			for k := range 3 {
				go l.Report(slog.LevelWarn, fmt.Sprint("k", k))
				go l.Once(slog.LevelWarn, fmt.Sprint("o", k))
			}
		}
		synctest.Wait()
		if got := strings.Split(out.take(), "\n"); len(got) != 6 {
			t.Errorf("%d lines: %q", len(got), got)
		}
		time.Sleep(time.Minute)
		l.Report(slog.LevelWarn, "k0")
		if got := out.take(); got != "WARN msg=k0 not_logged_before=49" {
			t.Errorf("got %q", got)
		}
	})
}
