package structure

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// load measures the package that applications import.
func load(t *testing.T) *Package {
	t.Helper()
	p, err := Load("github.com/sojourn-go/sojourn")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Declarations) < 300 || len(p.MethodFiles("Session")) == 0 {
		t.Fatalf("found %d declarations, and methods of Session in %v: this does not measure the package", len(p.Declarations), p.MethodFiles("Session"))
	}
	return p
}

func TestThePublicPackageIsNoKnot(t *testing.T) {
	const most = 1200
	knot, lines := load(t).Knot()
	t.Logf("%d declarations, %d lines", len(knot), lines)
	if lines > most {
		slices.SortFunc(knot, func(a, b *Declaration) int { return b.Lines - a.Lines })
		var largest []string
		for _, d := range knot[:20] {
			largest = append(largest, fmt.Sprintf("%s (%s, %d)", d.Name, d.File, d.Lines))
		}
		t.Errorf("%d lines of declarations all need each other; the largest are %s", lines, strings.Join(largest, ", "))
	}
}

func TestThePublicPackageHasFewFilesAndShortFunctions(t *testing.T) {
	const mostFiles, mostLines, longest = 20, 400, 80
	p := load(t)
	if len(p.Files) > mostFiles {
		t.Errorf("%d files, at most %d", len(p.Files), mostFiles)
	}
	for name, lines := range p.Files {
		if lines > mostLines+1 { // the end of the last line counts as a line
			t.Errorf("%s has %d lines, at most %d", name, lines-1, mostLines)
		}
	}
	for _, d := range p.Declarations {
		if d.Function && d.Lines > longest {
			t.Errorf("%s (%s) has %d lines, at most %d", d.Name, d.File, d.Lines, longest)
		}
	}
}

func TestMethodsAreWhereTheirNamesSay(t *testing.T) {
	p := load(t)
	for receiver, most := range map[string]int{"Session": 4, "Manager": 6} {
		if files := p.MethodFiles(receiver); len(files) > most {
			t.Errorf("the methods of %s are in %v, at most %d files", receiver, files, most)
		}
	}
}

// A package with a known knot: three functions that call each other in a cycle,
// and a type whose method calls back.
func TestKnotsAreFound(t *testing.T) {
	a, b, c := &Declaration{Name: "a", Lines: 3}, &Declaration{Name: "b", Lines: 4}, &Declaration{Name: "c", Lines: 5}
	user, leaf := &Declaration{Name: "user", Lines: 100}, &Declaration{Name: "leaf", Lines: 100}
	a.uses, b.uses, c.uses = []*Declaration{b}, []*Declaration{c, leaf}, []*Declaration{a}
	user.uses = []*Declaration{a}
	p := &Package{Declarations: []*Declaration{user, a, b, c, leaf}}
	if knot, lines := p.Knot(); len(knot) != 1 || lines != 100 {
		t.Errorf("the largest set is %d declarations of %d lines", len(knot), lines)
	}
	user.Lines, leaf.Lines = 1, 1
	if knot, lines := p.Knot(); len(knot) != 3 || lines != 12 {
		t.Errorf("the largest set is %d declarations of %d lines, want 3 of 12", len(knot), lines)
	}
}
