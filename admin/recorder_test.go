package admin

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/sojourn-go/sojourn"
)

// noon is some time at the start of a minute.
var noon = time.Date(2030, 6, 1, 12, 0, 0, 0, time.UTC)

func TestRecorderCountsByMinute(t *testing.T) {
	r := NewRecorder()
	for _, e := range []struct {
		ago  time.Duration
		kind sojourn.EventKind
	}{
		{0, sojourn.EventLogin},
		{0, sojourn.EventLogin},
		{59 * time.Second, sojourn.EventLogin}, // the minute before
		{10 * time.Minute, sojourn.EventLogin},
		{10 * time.Minute, sojourn.EventLogout},
		{24*time.Hour - time.Minute, sojourn.EventLogin}, // the day's first minute
	} {
		r.Record(t.Context(), sojourn.Event{Kind: e.kind, Time: noon.Add(-e.ago)})
	}
	hour := r.series(sojourn.EventLogin, noon.Add(30*time.Second), 60, 1)
	if hour[59] != 2 || hour[58] != 1 || hour[49] != 1 || sum(hour) != 4 {
		t.Errorf("the last hour: %v", hour)
	}
	if day := r.series(sojourn.EventLogin, noon, 96, 15); day[95] != 4 || day[0] != 1 || sum(day) != 5 {
		t.Errorf("the last day: %v", day)
	}
	if out := r.series(sojourn.EventLogout, noon, 60, 1); sum(out) != 1 {
		t.Errorf("logouts: %v", out)
	}
	// A day later all of it is gone.
	if late := r.series(sojourn.EventLogin, noon.Add(24*time.Hour), 96, 15); sum(late) != 0 {
		t.Errorf("a day later: %v", late)
	}
}

func TestRecorderForgetsWhatIsADayOld(t *testing.T) {
	r := NewRecorder()
	login := func(at time.Time) {
		r.Record(t.Context(), sojourn.Event{Kind: sojourn.EventLogin, Time: at})
	}
	login(noon)
	login(noon.Add(24 * time.Hour)) // takes the same place
	login(noon)                     // a day late
	login(time.Time{})
	r.Record(t.Context(), sojourn.Event{Kind: 200, Time: noon}) // of a newer version
	if got := r.series(sojourn.EventLogin, noon.Add(24*time.Hour), 96, 15); sum(got) != 1 {
		t.Errorf("%v", got)
	}
}

func TestRecorderTakesAFixedAmountOfMemory(t *testing.T) {
	if size := unsafe.Sizeof(Recorder{}); size > 80<<10 {
		t.Errorf("a recorder takes %d bytes", size)
	}
}

func TestRecorderHearsManyAtOnce(t *testing.T) {
	r := NewRecorder()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 500 {
				r.Record(t.Context(), sojourn.Event{Kind: sojourn.EventLogin, Time: noon.Add(-time.Duration(i%60) * time.Minute)})
				if i%100 == 0 {
					draw(r, noon, spans()[0])
				}
			}
		})
	}
	wg.Wait()
	if got := sum(r.series(sojourn.EventLogin, noon, 60, 1)); got != 4000 {
		t.Errorf("%d of 4000 logins were counted", got)
	}
}

func TestChart(t *testing.T) {
	r := NewRecorder()
	for range 7 {
		r.Record(t.Context(), sojourn.Event{Kind: sojourn.EventLogin, Time: noon})
	}
	c := draw(r, noon, spans()[0])
	logins := c.Series[0]
	if logins.Total != 7 || c.Top != 10 || strings.Count(string(logins.Bars), "<rect") != 1 || !strings.Contains(string(logins.Bars), `x="591" y="30" width="7" height="70"><title>12:00: 7</title>`) {
		t.Errorf("%+v", c)
	}
	if len(c.Rows) != 1 || !c.Rows[0].From.Equal(noon) || c.Ticks[0] != "11:00" || c.Ticks[2] != "11:30" || c.Ticks[4] != "now" {
		t.Errorf("rows %v, ticks %v", c.Rows, c.Ticks)
	}
	for n, want := range map[int]int{0: 0, 1: 1, 3: 5, 5: 5, 6: 10, 10: 10, 11: 20, 21: 50, 51: 100, 101: 200, 4001: 5000} {
		if got := ceiling(n); got != want {
			t.Errorf("the scale for %d ends with %d, want %d", n, got, want)
		}
	}
	for _, s := range spans() {
		if s.bars*s.step > minutes {
			t.Errorf("%s is longer than a recorder looks back", s.Name)
		}
	}
}

func TestChartsShareAxisAndScaleAndEndNow(t *testing.T) {
	r := NewRecorder()
	now := noon.Add(7*time.Minute + 20*time.Second) // in the middle of a step of 15 minutes
	for range 3 {
		r.Record(t.Context(), sojourn.Event{Kind: sojourn.EventLogin, Time: now})
	}
	r.Record(t.Context(), sojourn.Event{Kind: sojourn.EventLogout, Time: now})
	for _, s := range spans() {
		c := draw(r, now, s)
		last := fmt.Sprintf(`x="%d"`, (s.bars-1)*barPitch+1)
		for i, height := range []string{`height="60"`, `height="20"`} {
			if bars := string(c.Series[i].Bars); !strings.Contains(bars, last) || !strings.Contains(bars, height) {
				t.Errorf("%s: %s are %s", s.Name, c.Series[i].Title, bars)
			}
		}
		length := time.Duration(s.bars*s.step) * time.Minute
		if got, want := c.Ticks[0], now.Add(-length).Format("15:04"); got != want {
			t.Errorf("%s begins at %s, want %s", s.Name, got, want)
		}
		if from := c.Rows[0].From; from.After(now) || !from.Add(time.Duration(s.step)*time.Minute).Equal(noon.Add(8*time.Minute)) {
			t.Errorf("%s: the last bar begins at %v", s.Name, from)
		}
	}
}

func TestEmptyChartsHaveNoScale(t *testing.T) {
	if c := draw(NewRecorder(), noon, spans()[0]); c.Top != 0 || len(c.Rows) != 0 || len(c.Series) != len(chartKinds()) {
		t.Errorf("%+v", c)
	}
}

func sum(counts []int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}

func TestAgentsByName(t *testing.T) {
	for header, want := range map[string][2]string{
		"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36":                                          {"Chrome 131 on Linux", "computer"},
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 Edg/131.0.0.0":                  {"Edge 131 on Windows", "computer"},
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Safari/605.1.15":                          {"Safari 18 on macOS", "computer"},
		"Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/131.0.6778.73 Mobile/15E148 Safari/604.1": {"Chrome 131 on iOS 18", "phone"},
		"Mozilla/5.0 (iPad; CPU OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1":                 {"Safari 18 on iPadOS 18", "tablet"},
		"Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Mobile Safari/537.36":                                {"Chrome 131 on Android", "phone"},
		"Mozilla/5.0 (Linux; Android 14; SM-S921B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/27.0 Chrome/125.0.0.0 Mobile Safari/537.36":     {"Samsung Browser 27 on Android", "phone"},
		"Mozilla/5.0 (Android 14; Mobile; rv:133.0) Gecko/133.0 Firefox/133.0":                                                                           {"Firefox 133 on Android", "phone"},
		"Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0":                                                                 {"Firefox 133 on Linux", "computer"},
		"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36":                                 {"Chrome 131 on ChromeOS", "computer"},
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36 OPR/116.0.0.0":                  {"Opera 116 on Windows", "computer"},
		"curl/8.5.0":                   {"curl 8", "program"},
		"":                             {"Unknown device", "program"},
		"<script>alert(1)</script>":    {"Unknown device", "program"},
		strings.Repeat("x", 600):       {"Unknown device", "program"},
		"\xff\xfe\x00":                 {"Unknown device", "program"},
		"((((((((((((((((((((((((((((": {"Unknown device", "program"},
	} {
		if got := parseAgent(header); got.Name() != want[0] || got.Icon != want[1] {
			t.Errorf("%.60q is %q (%s), want %q (%s)", header, got.Name(), got.Icon, want[0], want[1])
		}
	}
}

func TestTimesForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-30 * time.Second: "within a minute", -90 * time.Second: "in 1 minute",
		0: "just now", 59 * time.Second: "just now", time.Minute: "1 minute ago", 90 * time.Minute: "1 hour ago",
		47 * time.Hour: "47 hours ago", 49 * time.Hour: "2 days ago", 400 * 24 * time.Hour: "400 days ago",
	} {
		if got := ago(noon, noon.Add(-d)); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
	if ago(noon, time.Time{}) != "unknown" || moment(time.Time{}) != "unknown" {
		t.Error("a time that is not known")
	}
	for n, want := range map[string]string{"0": "0", "999": "999", "1000": "1\u202f000", "1234567": "1\u202f234\u202f567", "-1000": "-1\u202f000"} {
		if got := group(n); got != want {
			t.Errorf("%s: %q, want %q", n, got, want)
		}
	}
}
