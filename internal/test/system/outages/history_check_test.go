package outages

import (
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// at records an operation on one value from one second to another.
type at struct {
	op         operation
	out        outcome
	sent, back int
}

// The checker itself must accept valid histories and reject invalid ones.
func TestTheCheckerTellsRightFromWrong(t *testing.T) {
	add := func(n, sent, back int) at {
		return at{operation{kind: incr, key: "counter"}, outcome{result: done, value: value{n: n}}, sent, back}
	}
	lost := func(sent, back int) at {
		return at{operation{kind: incr, key: "counter"}, outcome{result: unknown}, sent, back}
	}
	see := func(n, sent, back int) at {
		return at{operation{kind: read, key: "counter"}, outcome{result: done, value: value{n: n}, found: n > 0}, sent, back}
	}
	end := func(r result, sent, back int) at {
		return at{operation{kind: logout}, outcome{result: r}, sent, back}
	}
	no := func(sent, back int) at {
		return at{operation{kind: incr, key: "counter"}, outcome{result: refused}, sent, back}
	}
	for _, tt := range []struct {
		name string
		lag  int
		ops  []at
		want bool
	}{
		{"one after the other", 0, []at{add(1, 0, 1), add(2, 2, 3), see(2, 4, 5)}, true},
		{"a lost update", 0, []at{add(1, 0, 1), add(1, 2, 3)}, false},
		{"a number handed out twice at the same time", 0, []at{add(1, 0, 3), add(1, 1, 2)}, false},
		{"parallel, in either order", 0, []at{add(2, 0, 3), add(1, 1, 2), see(2, 4, 5)}, true},
		{"an acknowledged write is lost", 0, []at{add(1, 0, 1), add(2, 2, 3), see(1, 4, 5)}, false},
		{"what failed may have happened", 0, []at{add(1, 0, 1), lost(2, 3), see(2, 4, 5)}, true},
		{"or not", 0, []at{add(1, 0, 1), lost(2, 3), see(1, 4, 5)}, true},
		{"or later", 0, []at{add(1, 0, 1), lost(2, 3), see(1, 4, 5), see(2, 6, 7)}, true},
		{"but not twice", 0, []at{add(1, 0, 1), lost(2, 3), see(3, 4, 5)}, false},
		{"and it does not go away again", 0, []at{add(1, 0, 1), lost(2, 3), see(2, 4, 5), see(1, 6, 7)}, false},
		{"a read as old as caches may be", 3, []at{add(1, 0, 1), add(2, 2, 3), see(1, 5, 6)}, true},
		{"an older one", 1, []at{add(1, 0, 1), add(2, 2, 3), see(1, 5, 6)}, false},
		{"a write from an old copy, however old", 9, []at{add(1, 0, 1), add(1, 2, 3)}, false},
		{"an end", 0, []at{add(1, 0, 1), end(done, 2, 3), no(4, 5), see(0, 6, 7)}, true},
		{"a write after the end", 0, []at{add(1, 0, 1), end(done, 2, 3), add(2, 4, 5)}, false},
		{"a read after the end", 0, []at{add(1, 0, 1), end(done, 2, 3), see(1, 4, 5)}, false},
		{"a read after the end from a cache that was not told", 3, []at{add(1, 0, 1), end(done, 2, 3), see(1, 5, 6)}, true},
		{"a session that comes back", 0, []at{add(1, 0, 1), end(unknown, 2, 3), no(4, 5), see(1, 6, 7)}, false},
		{"a refusal without an end", 0, []at{add(1, 0, 1), no(2, 3)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &history{lag: time.Duration(tt.lag) * time.Second}
			for _, o := range tt.ops {
				h.add(o.op, o.out, time.Duration(o.sent)*time.Second, time.Duration(o.back)*time.Second)
			}
			got := porcupine.CheckOperations(session, h.of("counter"))
			if got != tt.want {
				t.Errorf("linearizable: %v, want %v", got, tt.want)
			}
		})
	}
}

func TestTheCheckerKnowsListsAndTickets(t *testing.T) {
	list, err := listOf(`["a","b"]`)
	if err != nil {
		t.Fatal(err)
	}
	swapped, err := listOf(`["b","a"]`)
	if err != nil {
		t.Fatal(err)
	}
	say := func(out outcome) outcome { out.result = done; return out }
	var (
		addA = at{operation{kind: extend, key: "list", arg: "a"}, say(outcome{value: value{n: 1}}), 0, 1}
		addB = at{operation{kind: extend, key: "list", arg: "b"}, say(outcome{value: value{n: 2}}), 2, 3}
		all  = func(v value) at {
			return at{operation{kind: read, key: "list", arg: ""}, say(outcome{value: v, found: true}), 4, 5}
		}
		put  = at{operation{kind: set, key: "ticket", arg: "x"}, say(outcome{}), 0, 1}
		take = func(found bool, sent int) at {
			out := outcome{found: found}
			if found {
				out.text = "x"
			}
			return at{operation{kind: pop, key: "ticket", arg: ""}, say(out), sent, sent + 1}
		}
	)
	for _, tt := range []struct {
		name, key string
		ops       []at
		want      bool
	}{
		{"a list in its order", "list", []at{addA, addB, all(list)}, true},
		{"a list in another one", "list", []at{addA, addB, all(swapped)}, false},
		{"a ticket is taken once", "ticket", []at{put, take(true, 2), take(false, 4)}, true},
		{"a ticket is taken twice", "ticket", []at{put, take(true, 2), take(true, 4)}, false},
		{"a ticket that vanished", "ticket", []at{put, take(false, 2)}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := &history{}
			for _, o := range tt.ops {
				h.add(o.op, o.out, time.Duration(o.sent)*time.Second, time.Duration(o.back)*time.Second)
			}
			if got := porcupine.CheckOperations(session, h.of(tt.key)); got != tt.want {
				t.Errorf("linearizable: %v, want %v", got, tt.want)
			}
		})
	}
}
