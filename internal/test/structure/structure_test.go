package structure

import "testing"

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
	t.Log(p.MethodFiles("session"), p.MethodFiles("Session"), p.MethodFiles("Manager"))
	for _, d := range p.Declarations {
		if d.Function && d.Lines > 80 {
			t.Log(d.Name, d.Lines)
		}
	}
}
