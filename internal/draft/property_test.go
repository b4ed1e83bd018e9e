package draft

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
)

var seed = flag.Uint64("draft.seed", 0, "run the property test with this seed only")

// Operations through a Draft give the same result as on a map of values, and
// the changes can be applied to another map.
func TestADraftIsAListOfOperationsOnAMap(t *testing.T) {
	seeds := []uint64{*seed}
	if *seed == 0 {
		seeds = nil
		for range 200 {
			seeds = append(seeds, rand.Uint64())
		}
	}
	for _, s := range seeds {
		p := property{t: t, r: rand.New(rand.NewPCG(s, 0))}
		if p.run(); t.Failed() {
			t.Fatalf("run it again with -draft.seed=%d\n%s", s, strings.Join(p.said, "\n"))
		}
	}
}

type property struct {
	t    *testing.T
	r    *rand.Rand
	said []string

	d     *Draft
	model plain
	done  []func(*plain)    // operations that changed something
	own   map[string]bool   // names whose values are this request's own
	first map[string]string // the values that the request began with
	taken map[string]string // of those, what it has taken
}

// plain is the model of a session.
type plain struct {
	values map[string]record.Field
	flags  map[string]record.Flags // that a name keeps
}

func (p *plain) set(k Slot, value string) {
	p.flags[k.Name] |= k.Flags
	f := record.Field{Name: k.Name, Flags: p.flags[k.Name], Value: []byte(value)}
	if k.TTL > 0 {
		f.Expiry = noon.Add(k.TTL).UnixMilli()
	}
	p.values[k.Name] = f
}

func (p *plain) text() string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(p.values)) {
		lines = append(lines, line(p.values[name]))
	}
	return strings.Join(lines, " ")
}

func line(f record.Field) string {
	return fmt.Sprintf("%s=%s/%b/%d", f.Name, f.Value, f.Flags, f.Expiry)
}

func textOf(r *record.Record) string {
	var lines []string
	for _, f := range r.Fields() {
		lines = append(lines, line(f))
	}
	return strings.Join(lines, " ")
}

func modelOf(r *record.Record) plain {
	m := plain{map[string]record.Field{}, map[string]record.Flags{}}
	for _, f := range r.Fields() {
		m.values[f.Name], m.flags[f.Name] = f, f.Flags
	}
	return m
}

// again applies the request's operations to r. Values keep their flags from the
// request.
func (p *property) again(r *record.Record, flags map[string]record.Flags) (out plain, taken bool) {
	out = modelOf(r)
	for name, value := range p.taken {
		if f, ok := out.values[name]; !ok || string(f.Value) != value {
			return out, true
		}
	}
	for name, f := range flags {
		out.flags[name] |= f
	}
	for _, do := range p.done {
		do(&out)
	}
	return out, false
}

// names is small, so that operations hit the same names, or above the
// thresholds for an index of changes and for edits of a record.
func (p *property) names() int { return [...]int{3, 3, 3, 3, 3, 3, 3, 30, 30, 100}[p.r.IntN(10)] }

func (p *property) record(names int) *record.Record {
	var r record.Record
	for i := range names {
		if p.r.IntN(2) == 0 {
			r.Put(record.Field{Name: fmt.Sprint("n", i), Value: []byte(p.value()), Flags: record.Flags(p.r.IntN(4))})
		}
	}
	r = r.Done()
	return &r
}

func (p *property) value() string { return strings.Repeat("v", p.r.IntN(3)) }

func (p *property) begin(r *record.Record) {
	p.first = map[string]string{}
	for name, f := range modelOf(r).values {
		p.first[name] = string(f.Value)
	}
}

func (p *property) run() {
	names := p.names()
	base := p.record(names)
	before := textOf(base)
	p.d, p.model = start(base), modelOf(base)
	p.own, p.taken = map[string]bool{}, map[string]string{}
	p.begin(base)
	kept := maps.Clone(p.model.flags)
	p.operate(names, kept)
	p.same("on the record it was made on", base, p.model, false)

	other := p.record(names)
	want, taken := p.again(other, p.keptBy(kept))
	p.same("on another record", other, want, taken)
	if err := p.d.Rebase(other); (err != nil) != taken {
		p.t.Errorf("rebase: %v", err)
	}
	if taken || p.t.Failed() {
		return
	}
	p.model, kept = want, maps.Clone(want.flags)
	p.begin(other)
	p.said = append(p.said, "rebased to "+textOf(other))
	p.operate(names, kept)
	p.same("on the record it was rebased to", other, p.model, false)
	third := p.record(names)
	want, taken = p.again(third, p.keptBy(kept))
	p.same("on a third record", third, want, taken)
	if textOf(base) != before {
		p.t.Errorf("the base has become %s", textOf(base))
	}
}

// keptBy is the part of kept for names that the draft has changed.
func (p *property) keptBy(kept map[string]record.Flags) map[string]record.Flags {
	out := map[string]record.Flags{}
	for i := range p.d.keys {
		out[p.d.keys[i].Name] = kept[p.d.keys[i].Name]
	}
	return out
}

func (p *property) same(where string, r *record.Record, want plain, taken bool) {
	p.t.Helper()
	got, err := p.d.Apply(r, noon)
	switch {
	case taken != errors.Is(err, fault.Taken) || err != nil && !taken:
		p.t.Errorf("%s: %v, want ErrTaken = %v", where, err, taken)
	case !taken && textOf(&got) != want.text():
		p.t.Errorf("%s:\n got %s\nwant %s", where, textOf(&got), want.text())
	}
}

func (p *property) operate(names int, kept map[string]record.Flags) {
	for range p.r.IntN(3 * min(names, 40)) {
		k := Slot{Name: fmt.Sprint("n", p.r.IntN(names))}
		if p.r.IntN(3) == 0 {
			k.Flags = record.Flags(p.r.IntN(4))
		}
		if p.r.IntN(5) == 0 {
			k.TTL = time.Minute
		}
		p.step(k, kept)
		if got := textOf(p.d.View()); got != p.model.text() {
			p.t.Errorf("the request sees\n%s, want\n%s", got, p.model.text())
		}
		if p.t.Failed() {
			return
		}
	}
}

func (p *property) note(changed bool, what string, do func(*plain)) {
	p.said = append(p.said, fmt.Sprint(what, " ", changed))
	if changed {
		do(&p.model)
		p.done = append(p.done, do)
	}
}

func (p *property) step(k Slot, kept map[string]record.Flags) {
	have, ok := p.model.values[k.Name]
	if raw, there := p.d.Get(k.Name); there != ok || !bytes.Equal(raw, have.Value) {
		p.t.Errorf("Get(%s) = %q, %v", k.Name, raw, there)
	}
	switch p.r.IntN(12) {
	case 0, 1, 2, 3:
		value := p.value()
		changed := p.d.Set(k, []byte(value), p.r.IntN(4) == 0)
		if !changed && (!ok || string(have.Value) != value || k.TTL > 0 || have.Flags&k.Flags != k.Flags) {
			p.t.Errorf("Set(%s) changes nothing", k.Name)
		}
		p.note(changed, fmt.Sprint("set ", k, value), func(m *plain) { m.set(k, value) })
		p.own[k.Name] = p.own[k.Name] || changed
	case 4, 5:
		if p.d.Remove(k.Name) != ok {
			p.t.Errorf("Remove(%s) = %v", k.Name, !ok)
		}
		p.note(ok, "remove "+k.Name, func(m *plain) { delete(m.values, k.Name) })
		p.own[k.Name] = p.own[k.Name] || ok
	case 6, 7:
		if p.d.Take(k.Name, have.Value) != ok {
			p.t.Errorf("Take(%s) = %v", k.Name, !ok)
		}
		p.note(ok, "take "+k.Name, func(m *plain) { delete(m.values, k.Name) })
		if first, was := p.first[k.Name]; ok && !p.own[k.Name] && was {
			p.taken[k.Name] = first
		}
		p.own[k.Name] = p.own[k.Name] || ok
	case 8, 9, 10:
		f := [...]Update{more, more, first, func(raw []byte, _ bool) ([]byte, error) { return raw, nil }}[p.r.IntN(4)]
		next, changed, err := p.d.Update(k, f, p.r.IntN(4) == 0)
		if want, _ := f(have.Value, ok); err != nil || !bytes.Equal(next, want) || (next == nil) != (want == nil) {
			p.t.Errorf("Update(%s) = %q, %v", k.Name, next, err)
		}
		p.note(changed, fmt.Sprint("update ", k), func(m *plain) {
			f0, ok := m.values[k.Name]
			if value, _ := f(f0.Value, ok); value != nil {
				m.set(k, string(value))
			} else {
				m.flags[k.Name] |= k.Flags
				delete(m.values, k.Name)
			}
		})
	case 11:
		if p.r.IntN(3) > 0 {
			return
		}
		changed := p.d.Clear()
		p.note(changed, "clear", func(m *plain) { clear(m.values); clear(m.flags) })
		if changed {
			clear(kept)
			for i := range 150 {
				p.own[fmt.Sprint("n", i)] = true
			}
		}
	}
}
