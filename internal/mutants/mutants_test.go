package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// Running the mutants takes minutes (make mutants). This test checks with every
// change that they apply, and that no row is without one.
func TestEveryRowThatNamesTestsHasAMutantThatApplies(t *testing.T) {
	t.Chdir("../..")
	rows, err := readRows("docs/run/security.md")
	if err != nil {
		t.Fatal(err)
	}
	mutants, err := readMutants("internal/mutants/mutants.txt")
	if err != nil {
		t.Fatal(err)
	}
	where, err := findTests()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if len(r.tests) > 0 && !slices.ContainsFunc(mutants, func(m mutant) bool { return m.row == r.name }) {
			t.Errorf("no mutant breaks row %s", r.name)
		}
		for _, name := range r.tests {
			if where[name] == "" {
				t.Errorf("row %s names %s, which does not exist", r.name, name)
			}
		}
	}
	for _, m := range mutants {
		text, err := os.ReadFile(m.file)
		if err != nil {
			t.Error(err)
			continue
		}
		if n := strings.Count(string(text), m.old); n != 1 || m.old == m.new {
			t.Errorf("%s, %s: %s has the text to change %d times", m.row, m.what, m.file, n)
		}
		if !slices.ContainsFunc(rows, func(r row) bool { return r.name == m.row }) {
			t.Errorf("%s is no row", m.row)
		}
	}
}

func TestResultsCountATestThatNeverEnded(t *testing.T) {
	red, ran := results([]byte(`{"Action":"run","Test":"TestA"}
{"Action":"run","Test":"TestA/sub"}
{"Action":"pass","Test":"TestA"}
{"Action":"run","Test":"TestB"}
panic: no JSON
{"Action":"run","Test":"TestC"}
{"Action":"fail","Test":"TestC"}
`))
	slices.Sort(red)
	if ran != 3 || !slices.Equal(red, []string{"TestB", "TestC"}) {
		t.Errorf("%d ran, %v failed", ran, red)
	}
}
