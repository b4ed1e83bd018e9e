package admin

import (
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn"
)

// span is a stretch of time that charts can show.
type span struct {
	Name, Label string
	bars, step  int // how many bars, of how many minutes each
}

// coarser is the same stretch with half as many bars, for small charts.
func (s span) coarser() span {
	s.bars, s.step = s.bars/2, s.step*2
	return s
}

// spans are the choices; the first one is shown unless another is asked for.
func spans() []span {
	return []span{
		{"1h", "Hour", 60, 1},
		{"6h", "6 hours", 72, 5},
		{"24h", "24 hours", 96, 15},
	}
}

// chart is a series of bars. Its labels are HTML around the drawing, so that
// they keep their size when the drawing is stretched to the page.
type chart struct {
	Title string
	Total int
	Top   int // what the full height stands for
	Bars  template.HTML
	Width int
	Ticks []tick
	Rows  []chartRow // the same as a table, without empty stretches
	Alarm bool
}

type tick struct {
	Time  time.Time
	Label string
}

type chartRow struct {
	From  time.Time
	Count int
}

// Bars are drawn in a box of barPitch units each by chartHeight units.
const (
	chartHeight = 100
	barPitch    = 10
	barWidth    = 7
)

// draw draws the events of a kind.
func draw(r *Recorder, kind sojourn.EventKind, title string, now time.Time, s span) chart {
	counts := r.series(kind, now, s.bars, s.step)
	c := chart{Title: title, Width: s.bars * barPitch}
	highest := 0
	for _, n := range counts {
		c.Total += n
		highest = max(highest, n)
	}
	c.Top = ceiling(highest)
	end := time.Unix((lastMinute(now, s.step)+1)*60, 0).UTC()
	start := end.Add(-time.Duration(s.bars*s.step) * time.Minute)
	var bars strings.Builder
	for i, n := range counts {
		if n == 0 {
			continue
		}
		from := start.Add(time.Duration(i*s.step) * time.Minute)
		h := max(3, n*chartHeight/c.Top)
		fmt.Fprintf(&bars, `<rect class="bar" x="%d" y="%d" width="%d" height="%d"><title>%s: %d</title></rect>`,
			i*barPitch+1, chartHeight-h, barWidth, h, from.Format("15:04"), n)
		c.Rows = append(c.Rows, chartRow{from, n})
	}
	c.Bars = template.HTML(bars.String()) // made of numbers
	for i := range 5 {
		at := start.Add(time.Duration(i*s.bars*s.step/4) * time.Minute)
		c.Ticks = append(c.Ticks, tick{at, at.Format("15:04")})
	}
	return c
}

// ceiling returns the least of 4, 10, 20, 50, 100, … that is not below n: what
// a scale can end with.
func ceiling(n int) int {
	if n <= 4 {
		return 4
	}
	for top := 10; ; top *= 10 {
		for _, factor := range []int{1, 2, 5} {
			if top*factor >= n {
				return top * factor
			}
		}
	}
}
