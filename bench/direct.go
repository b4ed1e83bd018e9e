package main

import (
	"context"
	"fmt"
	"os"

	"github.com/alexedwards/scs/v2/memstore"
	"github.com/sojourn-go/sojourn/store/memory"
)

// side is a library in one setting.
type side struct {
	name string
	open func(dir string) (library, error)
	// against names our corresponding side; "" for ours and the bare handler.
	against string
}

// start opens the library in a new folder under temp.
func (s side) start(temp string) (library, error) {
	dir, err := os.MkdirTemp(temp, "")
	if err != nil {
		return nil, err
	}
	lib, err := s.open(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return lib, nil
}

const bare = "bare handler"

var (
	bareSide = side{bare, func(string) (library, error) { return none{}, nil }, ""}

	oursInline = side{"Sojourn, in the cookie", func(string) (library, error) { return newOurs(memory.New(), true) }, ""}
	oursMemory = side{"Sojourn, in memory", func(string) (library, error) { return newOurs(memory.New(), false) }, ""}

	scsMemory     = side{"scs, in memory", func(string) (library, error) { return newSCS(memstore.NewWithCleanupInterval(0)), nil }, oursMemory.name}
	gorillaCookie = side{"gorilla, encrypted cookie", func(string) (library, error) { return newGorillaCookie(), nil }, oursInline.name}
	gorillaFiles  = side{"gorilla, encrypted files", func(dir string) (library, error) { return newGorillaFiles(dir), nil }, oursSQLite.name}
)

// scenario is one kind of request, answered by handlers that differ only in the
// library.
type scenario struct {
	title   string
	prepare string // the visitor's earlier request
	path    string
	sides   []side // the first is the bare handler
}

func directScenarios() []scenario {
	return []scenario{
		{
			"a request that does not use the session", write, untouched,
			[]side{bareSide, oursInline, against(scsMemory, oursInline)},
		},
		{
			"read one value", write, read,
			[]side{bareSide, oursInline, gorillaCookie, oursMemory, scsMemory},
		},
		{
			"write one value", write, write,
			[]side{bareSide, oursInline, gorillaCookie, oursMemory, scsMemory},
		},
		{
			"read one of 20 values, 20 KB", fill, readPage,
			[]side{bareSide, oursMemory, scsMemory, oursSQLite, scsSQLite, gorillaFiles},
		},
	}
}

func against(s, other side) side {
	s.against = other.name
	return s
}

// result is the result of one side of a scenario.
type result struct {
	side
	costs []cost // by round
}

// run measures the scenario with one visitor, in-process.
func (sc scenario) run(ctx context.Context, temp string, o options) ([]result, error) {
	var subjects []subject
	for _, s := range sc.sides {
		lib, err := s.start(temp)
		if err != nil {
			return nil, err
		}
		defer lib.close()
		c := newCaller(ctx, handlers(lib))
		if err := c.visit(sc.prepare); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		subjects = append(subjects, subject{s.name, func(n int) error {
			for range n {
				if err := c.call(sc.path); err != nil {
					return err
				}
			}
			return nil
		}})
	}
	costs, err := interleave(ctx, subjects, o.rounds, o.turn)
	if err != nil {
		return nil, err
	}
	var results []result
	for i, s := range sc.sides {
		results = append(results, result{s, costs[i]})
	}
	return results, nil
}
