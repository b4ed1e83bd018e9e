package outages

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// operation is a request's operation on one value of a session.
type operation struct {
	kind kind
	key  string // of one value; "" for what ends them all
	arg  string
	// delay is how long the request keeps the session that it has loaded before
	// it changes it.
	delay time.Duration
}

type kind string

const (
	incr   kind = "incr"   // +1, answers the sum
	extend kind = "extend" // adds arg to a list, answers its length
	set    kind = "set"    // a text
	pop    kind = "pop"    // takes a text out
	read   kind = "read"
	logout kind = "logout"
)

// outcome is the content of its answer.
type outcome struct {
	result result
	value  // of a read, incr, extend or pop
	found  bool
}

type result string

const (
	done    result = "done"
	refused result = "refused" // 409: it did not happen
	failed  result = "failed"  // 503: it did not happen
	unknown result = "unknown" // 503: it may have happened, or happen later
)

// value is a value of any of the kinds: a sum, a text, or a list as its length
// and the hash of what is in it.
type value struct {
	n    int
	text string
}

func (v value) plus(element string) value {
	h := fnv.New64a()
	fmt.Fprint(h, v.text, "\x00", element)
	return value{v.n + 1, fmt.Sprintf("%x", h.Sum64())}
}

// listOf reads a list from its JSON form.
func listOf(text string) (v value, err error) {
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return v, err
	}
	for _, element := range list {
		v = v.plus(element)
	}
	return v, nil
}

// state is one value of a session, as it should be.
type state struct {
	value
	ended bool
}

// session is the sequential model of one value of a session.
var session = porcupine.Model{
	Init: func() any { return state{} },
	Step: func(s, in, out any) (bool, any) {
		next, ok := step(s.(state), in.(operation), out.(outcome))
		return ok, next
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v → %+v", in, out) },
	DescribeState:     func(s any) string { return fmt.Sprintf("%+v", s) },
}

func step(s state, op operation, out outcome) (state, bool) {
	if out.result == refused {
		// If several requests take a value, one succeeds and the others are refused.
		return s, s.ended || op.kind == pop
	}
	known := out.result == done
	if s.ended {
		switch op.kind {
		case logout:
			return s, true
		case read, pop:
			return s, !known || !out.found
		default:
			return s, !known
		}
	}
	was := s
	switch op.kind {
	case logout:
		return state{ended: true}, true
	case incr:
		s.n++
		return s, !known || s.n == out.n
	case extend:
		s.value = s.plus(op.arg)
		return s, !known || s.n == out.n
	case set:
		s.text = op.arg
		return s, true
	case pop:
		s.text = ""
		return s, !known || out.found == (was.text != "") && out.text == was.text
	default:
		return s, !known || out.found == (s.value != value{}) && out.value == s.value
	}
}

// lagging reports whether a cache may have answered: only requests without
// changes use it.
func lagging(op operation, out outcome) bool {
	return out.result == done && (op.kind == read || op.kind == pop && !out.found)
}

// history is the operations on one session.
type history struct {
	name string
	// lag is how old a read may be.
	lag time.Duration

	mu       sync.Mutex
	ops      []porcupine.Operation
	nextUser int
}

// add records an operation and when it was sent and answered.
func (h *history) add(op operation, out outcome, sent, answered time.Duration) {
	switch {
	case out.result == failed, out.result == unknown && op.kind == read:
		return // nothing happened
	case out.result == unknown:
		answered = math.MaxInt64
	case lagging(op, out):
		sent -= h.lag
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nextUser++
	h.ops = append(h.ops, porcupine.Operation{ClientId: h.nextUser, Input: op, Output: out, Call: int64(sent), Return: int64(answered)})
}

// of returns the operations on one value. It suffices to check each value
// alone: linearizability is a local property (Herlihy and Wing 1990).
func (h *history) of(key string) []porcupine.Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	var ops []porcupine.Operation
	for _, op := range h.ops {
		if in := op.Input.(operation); in.key == key || in.key == "" {
			ops = append(ops, op)
		}
	}
	return ops
}

// count counts the operations of a kind with that result.
func (h *history) count(k kind, r result) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range h.ops {
		if op.Input.(operation).kind == k && op.Output.(outcome).result == r {
			n++
		}
	}
	return n
}

var names = []string{"counter", "list", "text", "ticket"}

// check fails the test if the history cannot be explained.
func (h *history) check(t testing.TB) {
	t.Helper()
	for _, key := range names {
		ops := h.of(key)
		result, info := porcupine.CheckOperationsVerbose(session, ops, client.Patience)
		switch result {
		case porcupine.Ok:
			continue
		case porcupine.Unknown:
			t.Errorf("%s: nobody could find out whether the %d operations on %q are linearizable", h.name, len(ops), key)
		default:
			t.Errorf("%s: the %d operations on %q are not linearizable; %s\n%s", h.name, len(ops), key, picture(info), excerpt(ops))
		}
	}
}

// picture writes a visualization of the history.
func picture(info porcupine.LinearizationInfo) string {
	file, err := os.CreateTemp("", "history-*.html")
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if err := porcupine.Visualize(session, info, file); err != nil {
		return err.Error()
	}
	return "see " + file.Name()
}

// excerpt shows where the longest prefix that can be explained ends.
func excerpt(ops []porcupine.Operation) string {
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return int(a.Return/1000 - b.Return/1000) })
	bad := len(ops)
	for low, high := 0, len(ops); low < high; {
		bad = (low + high + 1) / 2
		if explained(ops, bad) {
			low = bad
		} else {
			high = bad - 1
		}
		bad = low
	}
	var text strings.Builder
	for i := max(0, bad-8); i < min(len(ops), bad+4); i++ {
		op := ops[i]
		fmt.Fprintf(&text, "%v to %v: %s\n", time.Duration(op.Call), time.Duration(op.Return), session.DescribeOperation(op.Input, op.Output))
	}
	return text.String()
}

// explained reports whether the first n answers can be explained, with the
// operations that were under way then left open.
func explained(ops []porcupine.Operation, n int) bool {
	var end int64
	if n > 0 {
		end = ops[n-1].Return
	}
	prefix := slices.Clone(ops[:n])
	for _, op := range ops[n:] {
		if op.Call <= end && op.Input.(operation).kind != read {
			op.Return, op.Output = math.MaxInt64, outcome{result: unknown}
			prefix = append(prefix, op)
		}
	}
	return porcupine.CheckOperationsTimeout(session, prefix, 10*time.Second) == porcupine.Ok
}

// outcomeOf reads an answer.
func outcomeOf(op operation, a client.Answer) (outcome, error) {
	switch a.Status {
	case http.StatusOK:
	case http.StatusConflict:
		return outcome{result: refused}, nil
	case http.StatusServiceUnavailable:
		// An end is more than one step.
		if op.kind == logout || a.Unknown {
			return outcome{result: unknown}, nil
		}
		return outcome{result: failed}, nil
	default:
		return outcome{}, fmt.Errorf("%v is answered with %d %s", op, a.Status, a.Body)
	}
	out := outcome{result: done, found: a.Found}
	switch op.kind {
	case incr:
		out.n = a.Number()
	case extend:
		out.n = a.Length
	case pop:
		out.text = a.Text()
	case read:
		if !a.Found {
			break
		}
		var err error
		switch op.key {
		case "counter":
			err = json.Unmarshal([]byte(a.Text()), &out.n)
		case "list":
			out.value, err = listOf(a.Text())
		default:
			out.text = a.Text()
		}
		if err != nil {
			return outcome{}, fmt.Errorf("%v is answered with %s: %w", op, a.Body, err)
		}
	}
	return out, nil
}

// send sends the operation as a request.
func (op operation) send(b *browser) (client.Answer, error) {
	query := fmt.Sprintf("?key=%s&value=%s&delay=%d", op.key, op.arg, op.delay.Milliseconds())
	switch op.kind {
	case read:
		return b.get("/get" + query)
	case incr:
		return b.post("/incr" + query)
	case extend:
		return b.post("/append" + query)
	case set:
		return b.post("/set-serverside" + query)
	case pop:
		return b.post("/pop" + query)
	default:
		return b.post("/logout")
	}
}
