package main

import (
	"os"
	"slices"
	"testing"
)

// everySide is every library in every setting that the table has.
func everySide() []side {
	var all []side
	add := func(sides []side) {
		for _, s := range sides {
			if s.name != bare && !slices.ContainsFunc(all, func(o side) bool { return o.name == s.name }) {
				all = append(all, s)
			}
		}
	}
	for _, sc := range directScenarios() {
		add(sc.sides)
	}
	add(loopbackSides)
	add(durableSides)
	return all
}

func start(tb testing.TB, s side, dir string) library {
	tb.Helper()
	lib, err := s.open(dir)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := lib.close(); err != nil {
			tb.Error(err)
		}
	})
	return lib
}

func visit(t *testing.T, c *caller, path string) {
	t.Helper()
	if err := c.visit(path); err != nil {
		t.Fatal(err)
	}
}

// visitOnly is visit without keeping the cookies.
func visitOnly(t *testing.T, c *caller, path string) {
	t.Helper()
	if err := c.call(path); err != nil {
		t.Fatal(err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
