package admin

import (
	"fmt"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn"
)

// span is a stretch of time that charts can show.
type span struct {
	Name, Label string
	bars, step  int // how many bars, of how many minutes each
}

// spans are the choices; the first one is the default.
func spans() []span {
	return []span{
		{"1h", "Last hour", 60, 1},
		{"6h", "Last 6 hours", 72, 5},
		{"24h", "Last 24 hours", 96, 15},
	}
}

// charts are series of bars, one above the other. They share the time axis,
// which ends now, and the scale, so that bars can be compared.
type charts struct {
	Series []series
	Top    int // the value of the full height; 0 = no events
	Step   string
	Width  int
	Ticks  []string
	Rows   []chartRow // the same as a table, without empty rows
}

type series struct {
	Title string
	Total int
	Bars  template.HTML
	Alarm bool
}

type chartRow struct {
	From   time.Time
	Counts []int
}

// chartKind is the kind of event that a series counts.
type chartKind struct {
	kind  sojourn.EventKind
	title string
	alarm bool
}

func chartKinds() []chartKind {
	return []chartKind{
		{sojourn.EventLogin, "Logins", false},
		{sojourn.EventLogout, "Logouts", false},
		{sojourn.EventRevoked, "Revocations", false},
		{sojourn.EventExpired, "Expired", false},
		{sojourn.EventTheftSuspected, "Suspected thefts", true},
	}
}

// Bars are drawn in a box of barPitch units each by chartHeight units.
const (
	chartHeight = 100
	barPitch    = 10
	barWidth    = 7
)

// draw draws the events of every kind. The last bar includes the current minute.
func draw(r *Recorder, now time.Time, s span) charts {
	c := charts{Width: s.bars * barPitch, Step: plural(s.step, "minute")}
	kinds := chartKinds()
	counts := make([][]int, len(kinds))
	highest := 0
	for i, k := range kinds {
		counts[i] = r.series(k.kind, now, s.bars, s.step)
		highest = max(highest, slices.Max(counts[i]))
	}
	c.Top = ceiling(highest)
	length := time.Duration(s.bars*s.step) * time.Minute
	start := now.UTC().Truncate(time.Minute).Add(time.Minute - length)
	for i, k := range kinds {
		drawn := series{Title: k.title}
		var bars strings.Builder
		for j, n := range counts[i] {
			if n == 0 {
				continue
			}
			drawn.Total += n
			from := start.Add(time.Duration(j*s.step) * time.Minute)
			h := max(4, n*chartHeight/c.Top)
			fmt.Fprintf(&bars, `<rect class="bar" x="%d" y="%d" width="%d" height="%d"><title>%s: %d</title></rect>`,
				j*barPitch+1, chartHeight-h, barWidth, h, from.Format("15:04"), n)
		}
		drawn.Bars = template.HTML(bars.String()) // made of numbers
		drawn.Alarm = k.alarm && drawn.Total > 0
		c.Series = append(c.Series, drawn)
	}
	for j := range s.bars {
		row := chartRow{From: start.Add(time.Duration(j*s.step) * time.Minute)}
		some := false
		for i := range kinds {
			row.Counts = append(row.Counts, counts[i][j])
			some = some || counts[i][j] > 0
		}
		if some {
			c.Rows = append(c.Rows, row)
		}
	}
	for i := range 4 {
		c.Ticks = append(c.Ticks, now.UTC().Add(-length+time.Duration(i)*length/4).Format("15:04"))
	}
	c.Ticks = append(c.Ticks, "now")
	return c
}

// ceiling returns the top of the scale: the least of 0, 1, 2, 5, 10, 20, … that
// is not below n.
func ceiling(n int) int {
	if n == 0 {
		return 0
	}
	for top := 1; ; top *= 10 {
		for _, factor := range []int{1, 2, 5} {
			if top*factor >= n {
				return top * factor
			}
		}
	}
}
