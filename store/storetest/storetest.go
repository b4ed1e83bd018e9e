// Package storetest is the conformance suite for stores. Every engine must pass
// it.
//
// A new engine's test needs a few lines:
//
//	func TestStore(t *testing.T) {
//		storetest.Run(t, func(t *testing.T) store.Store {
//			s, err := redis.Open(address(t), redis.Prefix(t.Name()))
//			if err != nil {
//				t.Fatal(err)
//			}
//			t.Cleanup(func() { s.Close() })
//			return s
//		})
//	}
//
// Each subtest checks one behavior of the contract and is named after it. Its
// failure message says what was expected and why. Start with the group Save (go
// test -run 'TestStore/Save'): the others build on it.
//
// The suite uses the real clock and never waits for time to pass: old records
// are stored with times in the past. An engine's clock may differ from this
// process's by a few minutes.
package storetest

import (
	"testing"

	"github.com/sojourn-go/sojourn/store"
)

// Run checks that the stores returned by open satisfy the contract of
// [store.Store], and of each optional interface that they implement.
//
// open is called once per subtest and must return a store without any records.
// It reports failures through t and closes the store with t.Cleanup.
//
// The test with many records makes 100,000 of them: 10,000 under the race detector,
// and 2,000 with -short; see also [Records].
func Run(t *testing.T, open func(t *testing.T) store.Store, options ...Option) {
	t.Helper()
	set := set(options)
	groups := []group{
		{"Save", saveTests},
		{"Resend", resendTests},
		{"Parallel", parallelTests},
		{"End", endTests},
		{"Context", contextTests},
		{"Size", sizeTests},
		{"Model", modelTests},
	}
	able := open(t)
	if _, ok := able.(store.Toucher); ok {
		groups = append(groups, group{"Touch", touchTests})
	}
	if _, ok := able.(store.Sweeper); ok {
		groups = append(groups, group{"Sweep", sweepTests})
	}
	if _, ok := able.(store.UserIndex); ok {
		groups = append(groups, group{"ByUser", userTests})
	}
	if _, ok := able.(store.UserLimiter); ok {
		groups = append(groups, group{"SaveLimited", limitTests})
	}
	if _, ok := able.(store.EndFeed); ok {
		groups = append(groups, group{"Ends", feedTests})
	}
	if _, ok := able.(store.Scanner); ok {
		groups = append(groups, group{"Scan", scanTests})
	}
	if _, ok := able.(store.Counter); ok {
		groups = append(groups, group{"Count", countTests})
	}
	if _, ok := able.(store.FloorLoader); ok {
		groups = append(groups, group{"LoadFrom", floorTests})
	}
	if set.copy != nil {
		groups = append(groups, group{"Copied", copiedTests})
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			for _, s := range g.scenarios {
				t.Run(s.name, func(t *testing.T) {
					s.run(&harness{T: t, store: open(t), settings: set})
				})
			}
		})
	}
}

// An Option is an option of Run and RunCache.
type Option func(*settings)

// Records limits the test with many records to n of them.
func Records(n int) Option {
	return func(s *settings) { s.records = min(s.records, n) }
}

// Emulated makes the tests smaller, for an engine whose emulator answers one
// call after the other: 100 records, 12 parallel writers, 3 random histories,
// and a fifth of other large numbers. The calls of n contending writers grow
// with the square of n.
func Emulated(s *settings) {
	s.records, s.writers, s.histories, s.part = min(s.records, 100), 12, 3, 5
}

// Small makes the tests as small as they can be: 20 records, 4 parallel
// writers, one random history. It is for an engine that also passes the suite
// in a faster environment.
func Small(s *settings) {
	s.records, s.writers, s.histories, s.part, s.owned = min(s.records, 20), 4, 1, 5, 30
}

// set returns the settings: the defaults, changed by the options.
func set(options []Option) settings {
	s := settings{records: manyRecords, writers: 64, histories: 20, part: 1, owned: 200}
	if testing.Short() {
		s.records = 2_000
	}
	for _, o := range options {
		o(&s)
	}
	return s
}

type settings struct {
	records   int                                                  // in the test with many records
	writers   int                                                  // in parallel; and rounds of what two or three do
	histories int                                                  // random ones
	owned     int                                                  // sessions of one user
	part      int                                                  // some divides by it
	copy      func(t *testing.T, s store.Store, from, to store.ID) // nil = none
}

type group struct {
	name      string
	scenarios []scenario
}

// A scenario checks one behavior on a store of its own.
type scenario struct {
	name string
	run  func(h *harness)
}
