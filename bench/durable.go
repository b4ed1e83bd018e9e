package main

import (
	"context"
	"fmt"
)

var (
	writerCounts = []int{1, 16, 64, 256}
	durableSides = []side{oursSQLite, scsSQLite}
)

// runDurable lets n visitors write to their sessions as fast as the disk
// allows, through handlers in-process.
func runDurable(ctx context.Context, temp string, n int, o options) ([]loadResult, error) {
	var crowds [][]visitor
	for _, s := range durableSides {
		lib, err := s.start(temp)
		if err != nil {
			return nil, err
		}
		defer lib.close()
		h := handlers(lib)
		var visitors []visitor
		for range n {
			c := newCaller(ctx, h)
			if err := c.visit(write); err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			visitors = append(visitors, saver{c})
		}
		crowds = append(crowds, visitors)
	}
	loads, err := crowd(ctx, crowds, o.loadRounds, o.loadTurn)
	if err != nil {
		return nil, err
	}
	return loadResults(durableSides, loads), nil
}

// saver is a visitor whose every request changes the session.
type saver struct{ *caller }

func (s saver) next(int) error { return s.visit(write) }
