package structure

import (
"slices"
"testing"
)

func TestX(t *testing.T) {
	p, err := Load("github.com/sojourn-go/sojourn")
	if err != nil {
		t.Fatal(err)
	}
	knot, lines := p.Knot()
	t.Log(len(knot), lines)
	by := map[string]int{}
	for _, d := range knot {
		by[d.File] += d.Lines
	}
	t.Log(by)
	slices.SortFunc(knot, func(a, b *Declaration) int { return b.Lines - a.Lines })
	for _, d := range knot[:40] {
		t.Log(d.File, d.Name, d.Lines)
	}
	t.Log(p.MethodFiles("session"), p.MethodFiles("Session"), p.MethodFiles("Manager"))
	for _, d := range p.Declarations {
		if d.Function && d.Lines > 80 {
			t.Log(d.Name, d.Lines)
		}
	}
}
