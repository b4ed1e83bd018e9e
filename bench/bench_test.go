package main

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/sqlite"
)

// The benchmarks of the table, for profiles and benchstat.
func BenchmarkDirect(b *testing.B) {
	for _, sc := range directScenarios() {
		for _, s := range sc.sides {
			b.Run(sc.title+"/"+s.name, func(b *testing.B) {
				lib := start(b, s, b.TempDir())
				c := newCaller(b.Context(), handlers(lib))
				if err := c.visit(sc.prepare); err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := c.call(sc.path); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func TestEveryLibraryKeepsTheValuesThatItsHandlersSet(t *testing.T) {
	for _, s := range everySide() {
		t.Run(s.name, func(t *testing.T) {
			keepsValues(t, start(t, s, t.TempDir()), s.name != gorillaCookie.name) // 20 KB do not fit into a cookie
		})
	}
}

// keepsValues checks that a library keeps what its handlers set, for each
// visitor, and sets no cookie without need.
func keepsValues(t *testing.T, lib library, large bool) {
	t.Helper()
	h := handlers(lib)
	first, second := newCaller(t.Context(), h), newCaller(t.Context(), h)
	for _, step := range []struct {
		who      *caller
		path     string
		want     string
		mayStore bool // whether a cookie may be set
	}{
		{first, write, "1001", true},
		{first, read, "1001", false},
		{second, read, "0", false},
		{first, count, "1002", true},
		{first, untouched, "0", false},
		{second, write, "1002", true},
		{second, write, "1003", true},
		{first, read, "1002", false},
		{second, read, "1003", false},
		{first, fill, "0", true},
		{first, readPage, "1000", false},
		{first, fillHuge, "0", true},
		{first, readPage, "50000", false},
		{first, read, "1002", false},
	} {
		if !large && (step.path == fill || step.path == fillHuge || step.path == readPage) {
			continue
		}
		visit(t, step.who, step.path)
		if got := string(step.who.w.body); got != step.want {
			t.Errorf("%s answered %s, want %s", step.path, got, step.want)
		}
		if set := step.who.w.header["Set-Cookie"]; set != nil && !step.mayStore {
			t.Errorf("%s set a cookie", step.path)
		}
	}
	if len(first.jar) == 0 {
		t.Error("no cookie was set")
	}
}

func TestTheBareHandlerKeepsNothing(t *testing.T) {
	c := newCaller(t.Context(), handlers(none{}))
	for _, path := range []string{write, count, read, untouched, fill, readPage} {
		if err := c.visit(path); err != nil {
			t.Fatal(err)
		}
		if len(c.w.header) != 0 {
			t.Errorf("%s set %v", path, c.w.header)
		}
	}
}

func TestSmallSessionsLiveWhereTheTableSays(t *testing.T) {
	for _, tt := range []struct {
		inline bool
		path   string
		rows   int64
	}{
		{inline: true, path: write, rows: 0},
		{inline: true, path: fill, rows: 1},
		{inline: false, path: write, rows: 1},
	} {
		db := memory.New()
		lib, err := newOurs(db, tt.inline)
		if err != nil {
			t.Fatal(err)
		}
		visit(t, newCaller(t.Context(), handlers(lib)), tt.path)
		if n, err := db.Count(t.Context()); err != nil || n.Live != tt.rows {
			t.Errorf("inline %v, %s: %+v rows (%v), want %d", tt.inline, tt.path, n, err, tt.rows)
		}
	}
}

func TestWritesAreInTheDatabaseWhenTheyAreAnswered(t *testing.T) {
	const visitors = 5
	for _, s := range durableSides {
		dir := t.TempDir()
		h := handlers(start(t, s, dir))
		for range visitors {
			c := newCaller(t.Context(), h)
			visit(t, c, write)
			before := contents(t, dir)
			visit(t, c, write)
			if contents(t, dir) == before {
				t.Errorf("%s: a write was answered and another connection does not see it", s.name)
			}
		}
		if n := len(strings.Split(contents(t, dir), "\n")); n != visitors {
			t.Errorf("%s: %d rows, want %d", s.name, n, visitors)
		}
	}
}

// contents returns what another process reads from the database in dir, a line
// for each session.
func contents(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	if path := filepath.Join(dir, "scs.db"); exists(path) {
		db, err := sql.Open("sqlite", "file:"+path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		rows, err := db.QueryContext(t.Context(), `SELECT token || hex(data) FROM sessions ORDER BY token`)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, line)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return strings.Join(lines, "\n")
	}
	db, err := sqlite.Open(filepath.Join(dir, "sojourn.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	recs, _, err := db.Scan(t.Context(), "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range recs {
		lines = append(lines, rec.ID.String()+hex.EncodeToString(rec.Data))
	}
	return strings.Join(lines, "\n")
}

func TestSCSGetsADatabaseAsDurableAsOurs(t *testing.T) {
	db, err := openForSCS(filepath.Join(t.TempDir(), "scs.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for pragma, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "busy_timeout": "10000"} {
		var got string
		if err := db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", pragma, got, err, want)
		}
	}
}

func TestGorillasCookieIsEncrypted(t *testing.T) {
	c := newCaller(t.Context(), handlers(newGorillaCookie()))
	visit(t, c, write)
	signed, err := base64.URLEncoding.DecodeString(c.jar["session"])
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.SplitN(string(signed), "|", 3) // date, value, MAC
	value, err := base64.URLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(value), "visits") {
		t.Error("the name of a value can be read")
	}
}

func TestLoadOverHTTPIsCheckedAndKept(t *testing.T) {
	o := options{loadRounds: 1, loadTurn: 50 * time.Millisecond}
	results, err := runLoopback(t.Context(), t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if len(r.loads) != 1 || r.loads[0].perSecond <= 0 {
			t.Errorf("%s: %+v", r.name, r.loads)
		}
	}
	// A server that loses values is detected.
	addr, stop, err := serve(t.Context(), handlers(none{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	c, err := dial(t.Context(), addr, mixed)
	if err != nil {
		t.Fatal(err)
	}
	defer c.conn.Close()
	c.keeps = true
	for i := range 10 {
		if err = c.next(i); err != nil {
			return
		}
	}
	t.Error("ten requests to a server that keeps nothing were all as expected")
}

func TestDurableWritersAllSave(t *testing.T) {
	o := options{loadRounds: 1, loadTurn: 50 * time.Millisecond}
	results, err := runDurable(t.Context(), t.TempDir(), 16, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if l := r.loads[0]; l.perSecond <= 0 || l.p50 <= 0 || l.p99 < l.p50 {
			t.Errorf("%s: %+v", r.name, l)
		}
	}
}

// Allocations, unlike times, are the same on every machine, so the test detects
// a new one on a path of every request. (A write takes 22; the race detector
// empties pools.)
func TestASessionInTheCookieTakesFewAllocations(t *testing.T) {
	allocations := func(s side, path string) float64 {
		c := newCaller(t.Context(), handlers(start(t, s, t.TempDir())))
		visit(t, c, write)
		return testing.AllocsPerRun(1000, func() { visitOnly(t, c, path) })
	}
	for path, most := range map[string]float64{untouched: 2, read: 9, write: 24} {
		if n := allocations(oursInline, path) - allocations(bareSide, path); n > most {
			t.Errorf("%s: %v allocations more than the bare handler, at most %v", path, n, most)
		}
	}
}

func TestSubjectsAreMeasuredInTurns(t *testing.T) {
	var order []string
	subjects := each([]string{"A", "B", "C"}, func(name string) subject {
		calibrated := false
		return subject{name, func(int) error {
			if calibrated {
				order = append(order, name)
			}
			calibrated = true
			return nil
		}}
	})
	// Any first run is long enough for a turn of no time.
	costs, err := interleave(t.Context(), subjects, 3, 0)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(order, ""); got != "ABCBCACAB" {
		t.Errorf("order %s", got)
	}
	if len(costs) != 3 || len(costs[2]) != 3 {
		t.Errorf("costs of %d subjects", len(costs))
	}
}

func TestAFailureEndsTheMeasurement(t *testing.T) {
	broken := errors.New("broken")
	if _, err := interleave(t.Context(), []subject{{"A", func(int) error { return broken }}}, 1, 0); !errors.Is(err, broken) {
		t.Errorf("interleave: %v", err)
	}
	if _, err := crowd(t.Context(), [][]visitor{{visitorFunc(func(int) error { return broken })}}, 1, time.Second); !errors.Is(err, broken) {
		t.Errorf("crowd: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	fine := subject{"A", func(int) error { return nil }}
	if _, err := interleave(ended, []subject{fine}, 1, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("interleave after Ctrl-C: %v", err)
	}
}

type visitorFunc func(int) error

func (f visitorFunc) next(i int) error { return f(i) }

func TestMedianAndRatios(t *testing.T) {
	if got, want := spreadOf([]float64{3, 1, 2, 10}), (spread{2.5, 1, 10}); got != want {
		t.Errorf("spread %v, want %v", got, want)
	}
	if got, want := ratios([]float64{6, 8}, []float64{3, 2}), []float64{2, 4}; !slices.Equal(got, want) {
		t.Errorf("ratios %v, want %v", got, want)
	}
}
