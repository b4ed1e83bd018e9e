package admin

import (
	"context"
	"sync"
	"time"

	"github.com/sojourn-go/sojourn"
)

// minutes is how far back a Recorder counts.
const minutes = 24 * 60

// kinds is one more than the highest sojourn.EventKind.
const kinds = int(sojourn.EventAdopted) + 1

// Recorder counts the events of the last 24 hours, minute by minute, for the
// dashboard's charts. It takes a fixed 80 KB and keeps only numbers, until the
// process ends. It counts the events of its own process only: behind a load
// balancer, each replica's dashboard shows that replica's events.
//
// Set Config.Events to its method Record, or call it there:
//
//	Events: recorder.Record
type Recorder struct {
	mu   sync.Mutex
	ring [minutes]bucket // a minute is at its Unix time in minutes, modulo the length
}

type bucket struct {
	minute int64 // Unix time in minutes
	counts [kinds]uint32
}

// NewRecorder returns an empty Recorder.
func NewRecorder() *Recorder { return &Recorder{} }

// Record counts an event in the minute of its time.
func (r *Recorder) Record(_ context.Context, e sojourn.Event) {
	if int(e.Kind) >= kinds {
		return
	}
	minute := e.Time.Unix() / 60
	if minute < 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b := &r.ring[minute%minutes]
	if minute < b.minute {
		return // more than a day old
	}
	if minute > b.minute {
		*b = bucket{minute: minute}
	}
	b.counts[e.Kind]++
}

// series returns n sums of a kind over step minutes each, the newest last,
// which ends with the current minute.
func (r *Recorder) series(kind sojourn.EventKind, now time.Time, n, step int) []int {
	sums := make([]int, n)
	last := now.Unix() / 60
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.ring {
		b := &r.ring[i]
		age := last - b.minute
		if age < 0 || age >= int64(n*step) {
			continue
		}
		sums[n-1-int(age)/step] += int(b.counts[kind])
	}
	return sums
}
