package draft

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
)

var noon = time.UnixMilli(1_700_000_000_000).UTC()

func clock() time.Time { return noon }

// rec is a record with these values, written "a=1 b=2".
func rec(values string) *record.Record {
	var r record.Record
	for pair := range strings.FieldsSeq(values) {
		name, value, _ := strings.Cut(pair, "=")
		r.Put(record.Field{Name: name, Value: []byte(value)})
	}
	r = r.Done()
	return &r
}

// text is the inverse of rec.
func text(r *record.Record) string {
	var pairs []string
	for _, f := range r.Fields() {
		pairs = append(pairs, f.Name+"="+string(f.Value))
	}
	return strings.Join(pairs, " ")
}

func start(r *record.Record) *Draft {
	d := &Draft{Now: clock}
	d.Start(r)
	return d
}

func slot(name string) Slot { return Slot{Name: name} }

func set(d *Draft, name, value string) bool { return d.Set(slot(name), []byte(value), false) }

func take(t *testing.T, d *Draft, name string) {
	t.Helper()
	raw, ok := d.Get(name)
	if !ok || !d.Take(name, raw) {
		t.Fatalf("%s cannot be taken", name)
	}
}

func update(t *testing.T, d *Draft, name string, f Update) {
	t.Helper()
	if _, _, err := d.Update(slot(name), f, false); err != nil {
		t.Fatal(err)
	}
}

// more makes one x more of a value.
func more(raw []byte, _ bool) ([]byte, error) { return append(raw[:len(raw):len(raw)], 'x'), nil }

// first removes the first letter, and the value with the last one.
func first(raw []byte, _ bool) ([]byte, error) {
	if len(raw) < 2 {
		return nil, nil
	}
	return raw[1:], nil
}

// A request's changes are applied key by key to a session that has changed since.
func TestChangesAreDoneAgainToANewerRecord(t *testing.T) {
	for name, test := range map[string]struct {
		base, newer string
		do          func(*testing.T, *Draft)
		view        string // after it, on the base
		want        string // and on the newer record
		taken       bool   // or that fails, because a value was taken
	}{
		"nothing": {"a=1", "a=2 b=3", func(*testing.T, *Draft) {}, "a=1", "a=2 b=3", false},
		"a value is set, another by somebody else": {
			"a=1 b=1", "a=1 b=2 c=3", func(_ *testing.T, d *Draft) { set(d, "a", "9") }, "a=9 b=1", "a=9 b=2 c=3", false,
		},
		"the last writer wins, key by key": {"a=1", "a=2", func(_ *testing.T, d *Draft) { set(d, "a", "9") }, "a=9", "a=9", false},
		"a value is set that was removed":  {"a=1", "b=2", func(_ *testing.T, d *Draft) { set(d, "a", "9") }, "a=9", "a=9 b=2", false},
		"a value is removed":               {"a=1 b=1", "a=2 b=2", func(_ *testing.T, d *Draft) { d.Remove("a") }, "b=1", "b=2", false},
		"what was not there is not removed": {
			"b=1", "a=2 b=2", func(_ *testing.T, d *Draft) { d.Remove("a") }, "b=1", "a=2 b=2", false,
		},
		"set, then removed": {"", "a=2", func(_ *testing.T, d *Draft) { set(d, "a", "1"); d.Remove("a") }, "", "", false},
		"removed, then set": {"a=1", "", func(_ *testing.T, d *Draft) { d.Remove("a"); set(d, "a", "2") }, "a=2", "a=2", false},
		"an update":         {"a=1", "a=2", func(t *testing.T, d *Draft) { update(t, d, "a", more) }, "a=1x", "a=2x", false},
		"an update of what is gone": {
			"a=1", "", func(t *testing.T, d *Draft) { update(t, d, "a", more) }, "a=1x", "a=x", false,
		},
		"updates, in order": {
			"a=1", "a=22", func(t *testing.T, d *Draft) { update(t, d, "a", more); update(t, d, "a", first) }, "a=x", "a=2x", false,
		},
		"an update of what was set": {
			"a=1", "a=2", func(t *testing.T, d *Draft) { set(d, "a", "5"); update(t, d, "a", more) }, "a=5x", "a=5x", false,
		},
		"a value that is set in place of an update": {
			"a=1", "a=2", func(t *testing.T, d *Draft) { update(t, d, "a", more); set(d, "a", "5") }, "a=5", "a=5", false,
		},
		"an update that removes":               {"a=1", "a=2", func(t *testing.T, d *Draft) { update(t, d, "a", first) }, "", "", false},
		"an update that removes here only":     {"a=1", "a=23", func(t *testing.T, d *Draft) { update(t, d, "a", first) }, "", "a=3", false},
		"an update that removes there only":    {"a=12", "a=3", func(t *testing.T, d *Draft) { update(t, d, "a", first) }, "a=2", "", false},
		"an update after one that removes":     {"a=1", "a=23", func(t *testing.T, d *Draft) { update(t, d, "a", first); update(t, d, "a", more) }, "a=x", "a=3x", false},
		"an update of what was removed":        {"a=1", "a=2", func(t *testing.T, d *Draft) { d.Remove("a"); update(t, d, "a", more) }, "a=x", "a=x", false},
		"an update that removes what was set":  {"a=1", "a=2", func(t *testing.T, d *Draft) { set(d, "a", "5"); update(t, d, "a", first) }, "", "", false},
		"an update that removes nothing":       {"", "a=2", func(t *testing.T, d *Draft) { update(t, d, "a", first) }, "", "a=2", false},
		"a value is taken":                     {"a=1 b=1", "a=1 b=2", func(t *testing.T, d *Draft) { take(t, d, "a") }, "b=1", "b=2", false},
		"a taken value is gone":                {"a=1", "b=1", func(t *testing.T, d *Draft) { take(t, d, "a") }, "", "", true},
		"a taken value is another":             {"a=1", "a=2", func(t *testing.T, d *Draft) { take(t, d, "a") }, "", "", true},
		"taken, then set":                      {"a=1", "a=1 b=2", func(t *testing.T, d *Draft) { take(t, d, "a"); set(d, "a", "9") }, "a=9", "a=9 b=2", false},
		"taken, then set, but it is gone":      {"a=1", "", func(t *testing.T, d *Draft) { take(t, d, "a"); set(d, "a", "9") }, "a=9", "", true},
		"taken, set and taken again":           {"a=1", "a=1", func(t *testing.T, d *Draft) { take(t, d, "a"); set(d, "a", "9"); take(t, d, "a") }, "", "", false},
		"the first of two takes counts":        {"a=1", "a=9", func(t *testing.T, d *Draft) { take(t, d, "a"); set(d, "a", "9"); take(t, d, "a") }, "", "", true},
		"taken, then updated":                  {"a=1", "a=1", func(t *testing.T, d *Draft) { take(t, d, "a"); update(t, d, "a", more) }, "a=x", "a=x", false},
		"taken, then updated, but it is gone":  {"a=1", "a=2", func(t *testing.T, d *Draft) { take(t, d, "a"); update(t, d, "a", more) }, "a=x", "", true},
		"what was set is nobody else's":        {"a=1", "a=2", func(t *testing.T, d *Draft) { set(d, "a", "9"); take(t, d, "a") }, "", "", false},
		"what an update made is taken":         {"a=1", "a=1", func(t *testing.T, d *Draft) { update(t, d, "a", more); take(t, d, "a") }, "", "", false},
		"what an update made of another":       {"a=1", "a=2", func(t *testing.T, d *Draft) { update(t, d, "a", more); take(t, d, "a") }, "", "", true},
		"what updates made of another":         {"a=1", "a=1x", func(t *testing.T, d *Draft) { update(t, d, "a", more); update(t, d, "a", more); take(t, d, "a") }, "", "", true},
		"what an update made of nothing":       {"", "a=2", func(t *testing.T, d *Draft) { update(t, d, "a", more); take(t, d, "a") }, "", "", false},
		"all is removed":                       {"a=1 b=1", "a=2 c=3", func(_ *testing.T, d *Draft) { d.Clear() }, "", "", false},
		"all is removed, then a value is set":  {"a=1 b=1", "b=2 c=3", func(_ *testing.T, d *Draft) { d.Clear(); set(d, "a", "9") }, "a=9", "a=9", false},
		"all is removed, then one updated":     {"a=1", "a=2", func(t *testing.T, d *Draft) { d.Clear(); update(t, d, "a", more) }, "a=x", "a=x", false},
		"a value is set, then all is removed":  {"a=1", "a=2 b=2", func(_ *testing.T, d *Draft) { set(d, "c", "9"); d.Clear() }, "", "", false},
		"nothing was there to be removed":      {"", "a=2", func(_ *testing.T, d *Draft) { d.Clear() }, "", "a=2", false},
		"removed one by one, then all":         {"a=1", "a=2 b=2", func(_ *testing.T, d *Draft) { d.Remove("a"); d.Clear() }, "", "", false},
		"taken, then all is removed":           {"a=1 b=1", "a=1 c=1", func(t *testing.T, d *Draft) { take(t, d, "a"); d.Clear() }, "", "", false},
		"taken, all removed, but it is gone":   {"a=1 b=1", "b=1", func(t *testing.T, d *Draft) { take(t, d, "a"); d.Clear() }, "", "", true},
		"taken, all removed, and set":          {"a=1", "a=2", func(t *testing.T, d *Draft) { take(t, d, "a"); d.Clear(); set(d, "a", "9") }, "a=9", "", true},
		"set after all was removed, and taken": {"a=1", "a=2", func(t *testing.T, d *Draft) { d.Clear(); set(d, "a", "9"); take(t, d, "a") }, "", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			base := rec(test.base)
			d := start(base)
			test.do(t, d)
			if got := text(d.View()); got != test.view {
				t.Errorf("the request sees %q, want %q", got, test.view)
			}
			if out, err := d.Apply(base, noon); err != nil || text(&out) != test.view {
				t.Errorf("on what it was made on: %q, %v; want %q", text(&out), err, test.view)
			}
			newer := rec(test.newer)
			out, err := d.Apply(newer, noon)
			if errors.Is(err, fault.Taken) != test.taken || !test.taken && (err != nil || text(&out) != test.want) {
				t.Errorf("on %q: %q, %v; want %q", test.newer, text(&out), err, test.want)
			}
			if text(base) != test.base || text(newer) != test.newer {
				t.Errorf("the records are now %q and %q", text(base), text(newer))
			}
			// The same with Rebase.
			if err := d.Rebase(newer); errors.Is(err, fault.Taken) != test.taken {
				t.Errorf("rebase: %v", err)
			} else if err == nil && text(d.View()) != test.want {
				t.Errorf("rebased, the request sees %q, want %q", text(d.View()), test.want)
			}
			if test.taken && text(d.View()) != test.view {
				t.Errorf("a rebase that failed shows %q, want %q", text(d.View()), test.view)
			}
		})
	}
}

func TestWhatChangesNothingIsNotNoted(t *testing.T) {
	same := func(raw []byte, _ bool) ([]byte, error) { return raw, nil }
	for name, test := range map[string]struct {
		do   func(*Draft) bool
		want bool
	}{
		"the same value":              {func(d *Draft) bool { return set(d, "a", "1") }, false},
		"another":                     {func(d *Draft) bool { return set(d, "a", "2") }, true},
		"the same value, once more":   {func(d *Draft) bool { set(d, "a", "2"); return set(d, "a", "2") }, true}, // a newer record may have had another in between
		"where changes may start new": {func(d *Draft) bool { return d.Set(slot("a"), []byte("1"), true) }, true},
		"a further flag":              {func(d *Draft) bool { return d.Set(Slot{Name: "a", Flags: record.ServerSide}, []byte("1"), false) }, true},
		"a time to live":              {func(d *Draft) bool { return d.Set(Slot{Name: "a", TTL: time.Hour}, []byte("1"), false) }, true},
		"a value that has one":        {func(d *Draft) bool { return set(d, "ttl", "1") }, true},
		"an empty value of nothing":   {func(d *Draft) bool { return d.Set(slot("b"), nil, false) }, true},
		"removing nothing":            {func(d *Draft) bool { return d.Remove("b") }, false},
		"taking nothing":              {func(d *Draft) bool { return d.Take("b", nil) }, false},
		"taking what is not there":    {func(d *Draft) bool { return d.Take("a", []byte("2")) }, false},
		"taking what is over":         {func(d *Draft) bool { return d.Take("over", []byte("1")) }, false},
		"an update to the same": {func(d *Draft) bool {
			_, changed, _ := d.Update(slot("a"), same, false)
			return changed
		}, false},
		"an update of nothing to nothing": {func(d *Draft) bool {
			_, changed, _ := d.Update(slot("b"), same, false)
			return changed
		}, false},
		"an update that fails": {func(d *Draft) bool {
			_, changed, err := d.Update(slot("a"), func([]byte, bool) ([]byte, error) { return []byte("2"), errors.New("no") }, false)
			return changed || err == nil
		}, false},
	} {
		r := rec("a=1")
		r.Put(record.Field{Name: "over", Value: []byte("1"), Expiry: noon.UnixMilli() - 1})
		r.Put(record.Field{Name: "ttl", Value: []byte("1"), Expiry: noon.UnixMilli() + 1000})
		done := r.Done()
		d := start(&done)
		if got := test.do(d); got != test.want || d.Empty() == test.want || d.ChangesValues() != test.want {
			t.Errorf("%s: changed = %v, empty = %v", name, got, d.Empty())
		}
	}
	if d := start(rec("")); d.Clear() || !d.Empty() {
		t.Error("nothing was removed, which is a change")
	}
}

func TestValuesThatAreOverAreNotThere(t *testing.T) {
	r := rec("a=1")
	r.Put(record.Field{Name: "last", Value: []byte("1"), Expiry: noon.UnixMilli()})
	r.Put(record.Field{Name: "over", Value: []byte("1"), Expiry: noon.UnixMilli() - 1})
	done := r.Done()
	d := start(&done)
	for name, want := range map[string]bool{"a": true, "last": true, "over": false, "never": false} {
		if _, ok := d.Get(name); ok != want {
			t.Errorf("%s: %v", name, ok)
		}
	}
	update(t, d, "over", more) // begins with nothing
	out, err := d.Apply(rec("b=1"), noon)
	if err != nil || text(&out) != "b=1 over=x" || text(d.View()) != "a=1 last=1 over=x" {
		t.Errorf("%q, %v; the request sees %q", text(&out), err, text(d.View()))
	}
	if out, err := start(&done).Apply(&done, noon.Add(1*time.Millisecond)); err != nil || text(&out) != "a=1" {
		t.Errorf("a millisecond later: %q, %v", text(&out), err)
	}
}

func TestATakenValueMustNotHaveExpired(t *testing.T) {
	r := rec("")
	r.Put(record.Field{Name: "a", Value: []byte("1"), Expiry: noon.UnixMilli()})
	done := r.Done()
	d := start(&done)
	take(t, d, "a")
	newer := done.Clone()
	newer.Put(record.Field{Name: "b"})
	if _, err := d.Apply(&newer, noon); err != nil {
		t.Errorf("at its last moment: %v", err)
	}
	if _, err := d.Apply(&newer, noon.Add(time.Millisecond)); !errors.Is(err, fault.Taken) {
		t.Errorf("a moment later: %v", err)
	}
}

func TestATimeToLiveBeginsWithEachSet(t *testing.T) {
	now := noon
	d := &Draft{Now: func() time.Time { return now }}
	d.Start(rec(""))
	k := Slot{Name: "a", TTL: time.Minute}
	expiry := func(r *record.Record) time.Duration {
		f, ok := r.Find("a")
		if !ok {
			t.Fatal("it is not there")
		}
		return record.Time(f.Expiry).Sub(noon)
	}
	d.Set(k, []byte("1"), false)
	if got := expiry(d.View()); got != time.Minute {
		t.Errorf("it lives until %v", got)
	}
	now = now.Add(time.Second)
	d.Set(k, []byte("1"), false)
	if got := expiry(d.View()); got != 61*time.Second {
		t.Errorf("set again, until %v", got)
	}
	out, err := d.Apply(rec("b=1"), now.Add(time.Second))
	if err != nil || expiry(&out) != 62*time.Second {
		t.Errorf("in a newer record until %v, %v", expiry(&out), err)
	}
	set(d, "a", "2") // without its Key
	if f, _ := d.View().Find("a"); f.Expiry != 0 {
		t.Error("a name without a time to live has one")
	}
}

// A name that is set without its Key stays server-side, in the request's view
// and in the record to which the changes are applied.
func TestANameThatIsSetWithoutAKeyKeepsItsFlags(t *testing.T) {
	const both = record.ServerSide | record.Volatile
	secret, volatile := Slot{Name: "a", Flags: record.ServerSide}, Slot{Name: "a", Flags: record.Volatile}
	flagged := func(f record.Flags) *record.Record {
		r := rec("b=1")
		r.Put(record.Field{Name: "a", Flags: f, Value: []byte("1")})
		done := r.Done()
		return &done
	}
	put := func(d *Draft, k Slot, value string) { d.Set(k, []byte(value), false) }
	for name, test := range map[string]struct {
		base, newer *record.Record
		do          func(*Draft)
		view, want  record.Flags
	}{
		"a name":                      {flagged(record.ServerSide), flagged(record.ServerSide), func(d *Draft) { put(d, slot("a"), "2") }, record.ServerSide, record.ServerSide},
		"a name, of other flags":      {flagged(0), flagged(both), func(d *Draft) { put(d, slot("a"), "2") }, 0, both},
		"a Key adds to them":          {flagged(record.ServerSide), flagged(0), func(d *Draft) { put(d, volatile, "2") }, both, both},
		"an update by name":           {flagged(both), flagged(both), func(d *Draft) { _, _, _ = d.Update(slot("a"), more, false) }, both, both},
		"a Key, then a name":          {rec(""), rec("b=2"), func(d *Draft) { put(d, secret, "1"); put(d, slot("a"), "2") }, record.ServerSide, record.ServerSide},
		"a Key, then an update":       {rec(""), rec("b=2"), func(d *Draft) { put(d, secret, "1"); _, _, _ = d.Update(slot("a"), more, false) }, record.ServerSide, record.ServerSide},
		"an update, then a name":      {rec(""), rec("b=2"), func(d *Draft) { _, _, _ = d.Update(secret, more, false); put(d, slot("a"), "2") }, record.ServerSide, record.ServerSide},
		"removed, then a name":        {flagged(record.ServerSide), flagged(record.ServerSide), func(d *Draft) { d.Remove("a"); put(d, slot("a"), "2") }, record.ServerSide, record.ServerSide},
		"taken, then a name":          {flagged(record.ServerSide), flagged(record.ServerSide), func(d *Draft) { d.Take("a", []byte("1")); put(d, slot("a"), "2") }, record.ServerSide, record.ServerSide},
		"a Key, removed, then a name": {rec(""), rec("b=2"), func(d *Draft) { put(d, secret, "1"); d.Remove("a"); put(d, slot("a"), "2") }, record.ServerSide, record.ServerSide},
		"all removed, then a name":    {flagged(both), flagged(both), func(d *Draft) { d.Clear(); put(d, slot("a"), "2") }, 0, 0},
		"all removed after a Key":     {flagged(0), flagged(0), func(d *Draft) { put(d, secret, "2"); d.Clear(); put(d, slot("a"), "2") }, 0, 0},
		"taken, all removed":          {flagged(both), flagged(both), func(d *Draft) { d.Take("a", []byte("1")); d.Clear(); put(d, slot("a"), "2") }, 0, 0},
	} {
		d := start(test.base)
		test.do(d)
		if f, _ := d.View().Find("a"); f.Flags != test.view {
			t.Errorf("%s: the request sees flags %b, want %b", name, f.Flags, test.view)
		}
		out, err := d.Apply(test.newer, noon)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if f, _ := out.Find("a"); f.Flags != test.want {
			t.Errorf("%s: a newer record has flags %b, want %b", name, f.Flags, test.want)
		}
	}
}

func TestUpdatesRunAgainOnlyForAnotherRecord(t *testing.T) {
	calls, seen := 0, []string{}
	count := func(raw []byte, ok bool) ([]byte, error) {
		calls++
		seen = append(seen, fmt.Sprintf("%s %v", raw, ok))
		return more(raw, ok)
	}
	base := rec("a=1")
	d := start(base)
	update(t, d, "a", count)
	for range 3 {
		if out, err := d.Apply(base, noon); err != nil || text(&out) != "a=1x" {
			t.Errorf("%q, %v", text(&out), err)
		}
	}
	if calls != 1 {
		t.Errorf("it ran %d times for the record that it has seen", calls)
	}
	newer := rec("a=2")
	for range 2 {
		if out, err := d.Apply(newer, noon); err != nil || text(&out) != "a=2x" {
			t.Errorf("%q, %v", text(&out), err)
		}
	}
	if err := d.Rebase(newer); err != nil || calls != 4 {
		t.Errorf("%v, %d calls, want 4", err, calls)
	}
	if _, err := d.Apply(newer, noon); err != nil || calls != 4 {
		t.Errorf("rebased: %v, %d calls, want 4", err, calls)
	}
	update(t, d, "a", count)
	if _, err := d.Apply(newer, noon); err != nil || calls != 5 {
		t.Errorf("rebased and updated: %v, %d calls, want 5", err, calls)
	}
	if want := "[1 true 2 true 2 true 2 true 2x true]"; fmt.Sprint(seen) != want {
		t.Errorf("it was given %q, want %q", seen, want)
	}
}

// The header is that of the record, even if the values are already known.
func TestApplyTakesTheRecordsHeader(t *testing.T) {
	base := rec("a=1")
	d := start(base)
	set(d, "a", "2")
	touched := *base
	touched.Header = record.Header{Generation: 7, User: "ada"}
	out, err := d.Apply(&touched, noon)
	if err != nil || out.Header.Generation != 7 || out.Header.User != "ada" || text(&out) != "a=2" {
		t.Errorf("%+v, %q, %v", out.Header, text(&out), err)
	}
}

func TestAnUpdateThatFailsElsewhereFailsTheChanges(t *testing.T) {
	no := errors.New("no")
	d := start(rec("a=1"))
	set(d, "b", "1")
	update(t, d, "a", func(raw []byte, _ bool) ([]byte, error) {
		if string(raw) == "1" {
			return []byte("2"), nil
		}
		return nil, no
	})
	if _, err := d.Apply(rec("a=9"), noon); !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
	if err := d.Rebase(rec("a=9")); !errors.Is(err, no) || text(d.View()) != "a=2 b=1" {
		t.Errorf("got %v, and the request sees %q", err, text(d.View()))
	}
}

func TestUpdatesAreCalledThroughRun(t *testing.T) {
	d := start(rec("a=1"))
	runs := 0
	d.Run = func(f Update, raw []byte, ok bool) ([]byte, error) {
		runs++
		return f(raw, ok)
	}
	update(t, d, "a", more)
	if _, err := d.Apply(rec("a=2"), noon); err != nil || runs != 2 {
		t.Errorf("%v, %d runs, want 2", err, runs)
	}
	d.Start(rec("a=3")) // keeps it
	update(t, d, "a", more)
	taken := d.Taken()
	if runs != 3 || taken.Run == nil || taken.Now == nil {
		t.Errorf("%d runs, want 3", runs)
	}
}

func TestARebasedDraftTakesWhatItSees(t *testing.T) {
	d := start(rec("a=1"))
	update(t, d, "a", more)
	if err := d.Rebase(rec("a=2")); err != nil {
		t.Fatal(err)
	}
	take(t, d, "a") // 2x, made of 2
	if _, err := d.Apply(rec("a=2 b=1"), noon); err != nil {
		t.Errorf("nobody has taken it: %v", err)
	}
	if _, err := d.Apply(rec("a=1"), noon); !errors.Is(err, fault.Taken) {
		t.Errorf("it is another: %v", err)
	}
}

func TestTakenRequiresWhatWasTakenAndNoMore(t *testing.T) {
	d := start(rec("a=1 b=1"))
	set(d, "c", "9")
	d.Remove("b")
	d.Rotate(0, time.Minute)
	none := d.Taken()
	if !none.Empty() || none.Takes() || d.Takes() {
		t.Error("nothing was taken, and something is required")
	}
	take(t, d, "a")
	set(d, "a", "2")
	taken := d.Taken()
	if !d.Takes() || !taken.Takes() || taken.ChangesHeader() {
		t.Error("something was taken")
	}
	if out, err := taken.Apply(rec("a=1 b=2"), noon); err != nil || text(&out) != "b=2" {
		t.Errorf("%q, %v", text(&out), err)
	}
	if _, err := taken.Apply(rec("b=2"), noon); !errors.Is(err, fault.Taken) {
		t.Errorf("it is gone: %v", err)
	}
	if d.Take("c", []byte("9")); len(d.Taken().keys) != 1 {
		t.Error("what the request set itself is required of others")
	}
}

func TestWhichChangesMayBeSentTwice(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(*testing.T, *Draft)
		want bool
	}{
		"none":        {func(*testing.T, *Draft) {}, true},
		"a set":       {func(_ *testing.T, d *Draft) { set(d, "a", "2") }, true},
		"a removal":   {func(_ *testing.T, d *Draft) { d.Remove("a") }, true},
		"a clear":     {func(_ *testing.T, d *Draft) { d.Clear() }, true},
		"a rotation":  {func(_ *testing.T, d *Draft) { d.Rotate(0, 0) }, true},
		"an update":   {func(t *testing.T, d *Draft) { update(t, d, "a", more) }, false},
		"a take":      {func(t *testing.T, d *Draft) { take(t, d, "a") }, false},
		"set upon it": {func(t *testing.T, d *Draft) { update(t, d, "a", more); set(d, "a", "2") }, true},
		"take, set":   {func(t *testing.T, d *Draft) { take(t, d, "a"); set(d, "a", "2") }, false},
	} {
		d := start(rec("a=1"))
		if test.do(t, d); d.Repeatable() != test.want {
			t.Errorf("%s: %v", name, d.Repeatable())
		}
	}
}

func TestStartForgetsEverything(t *testing.T) {
	d := start(rec("a=1"))
	set(d, "b", "1")
	d.Clear()
	d.Rotate(0, 0)
	d.SetPersist(record.PersistAlways)
	d.Start(rec("c=3"))
	if !d.Empty() || text(d.View()) != "c=3" || d.View().Header.Persist != 0 {
		t.Errorf("it is not empty, and the request sees %q", text(d.View()))
	}
}

func TestTheZeroDraftIsAnEmptySession(t *testing.T) {
	var d Draft
	if _, ok := d.Get("a"); ok || !d.Empty() || d.View().Len() != 0 {
		t.Error("it has something")
	}
	update(t, &d, "a", more)
	if out, err := d.Apply(rec("b=1"), noon); err != nil || text(&out) != "a=x b=1" {
		t.Errorf("%q, %v", text(&out), err)
	}
}

// More changes than are searched one by one.
func TestManyChangesAreEachFound(t *testing.T) {
	d := start(rec("kept=1 n5=1"))
	take(t, d, "n5")
	for round := range 3 {
		for i := range 3 * manyChanges {
			set(d, fmt.Sprint("n", i), fmt.Sprint(round))
		}
	}
	if len(d.keys) != 3*manyChanges {
		t.Errorf("%d changes of %d keys", len(d.keys), 3*manyChanges)
	}
	d.Clear()
	for i := range 2 * manyChanges {
		update(t, d, fmt.Sprint("n", i), more)
	}
	out, err := d.Apply(rec("n5=1 other=1"), noon)
	if err != nil || out.Len() != 2*manyChanges {
		t.Errorf("%d values, %v", out.Len(), err)
	}
	for _, f := range out.Fields() {
		if string(f.Value) != "x" {
			t.Errorf("%s is %q", f.Name, f.Value)
		}
	}
	if _, err := d.Apply(rec("other=1"), noon); !errors.Is(err, fault.Taken) {
		t.Errorf("what was taken before is not required: %v", err)
	}
}
