package draft

import (
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
)

func ms(d time.Duration) int64 { return noon.Add(d).UnixMilli() }

func TestACredentialIsReplacedOnceAndOneAtATime(t *testing.T) {
	const grace = time.Minute
	for name, test := range map[string]struct {
		before record.Header
		do     func(*Draft)
		after  record.Header
	}{
		"the first credential":       {record.Header{}, func(d *Draft) { d.Rotate(0, grace) }, record.Header{Generation: 1, Rotated: ms(0)}},
		"a first one that was used":  {record.Header{Presented: ms(-5)}, func(d *Draft) { d.Rotate(0, grace) }, record.Header{Generation: 1, Rotated: ms(0), OlderUntil: ms(grace - 5)}},
		"a later one":                {record.Header{Generation: 3, Presented: ms(-5), OlderUntil: ms(-1)}, func(d *Draft) { d.Rotate(3, grace) }, record.Header{Generation: 4, Rotated: ms(0), OlderUntil: ms(grace - 5)}},
		"one that was not used yet":  {record.Header{Generation: 3, Rotated: ms(-9)}, func(d *Draft) { d.Rotate(3, grace) }, record.Header{Generation: 3, Rotated: ms(-9)}},
		"somebody was faster":        {record.Header{Generation: 4, Presented: ms(-5)}, func(d *Draft) { d.Rotate(3, grace) }, record.Header{Generation: 4, Presented: ms(-5)}},
		"the store has lost one":     {record.Header{Generation: 2, Presented: ms(-5)}, func(d *Draft) { d.Rotate(3, grace) }, record.Header{Generation: 2, Presented: ms(-5)}},
		"it came back":               {record.Header{Generation: 3}, func(d *Draft) { d.Presented(3) }, record.Header{Generation: 3, Presented: ms(0)}},
		"it came back before":        {record.Header{Generation: 3, Presented: ms(-5)}, func(d *Draft) { d.Presented(3) }, record.Header{Generation: 3, Presented: ms(-5)}},
		"another one came back":      {record.Header{Generation: 4}, func(d *Draft) { d.Presented(3) }, record.Header{Generation: 4}},
		"it came back, and replaced": {record.Header{Generation: 3}, func(d *Draft) { d.Presented(3); d.Rotate(3, grace) }, record.Header{Generation: 4, Rotated: ms(0), OlderUntil: ms(grace)}},
		"the chores are dropped":     {record.Header{Generation: 3}, func(d *Draft) { d.Presented(3); d.Rotate(3, grace); d.DropChores() }, record.Header{Generation: 3}},
	} {
		d := start(rec("a=1"))
		test.do(d)
		for what, r := range map[string]*record.Record{"the same values": rec("a=1"), "others": rec("b=1")} {
			r.Header = test.before
			out, err := d.Apply(r, noon)
			if err != nil || !same(&out.Header, &test.after) {
				t.Errorf("%s, %s: %+v, %v; want %+v", name, what, out.Header, err, test.after)
			}
			// Applying it to its own result changes nothing.
			again, err := d.Apply(&out, noon.Add(time.Second))
			if err != nil || !same(&again.Header, &test.after) {
				t.Errorf("%s, again: %+v, %v; want %+v", name, again.Header, err, test.after)
			}
		}
	}
}

func same(a, b *record.Header) bool {
	x, y := record.Record{Header: *a}, record.Record{Header: *b}
	return string(x.Append(nil)) == string(y.Append(nil))
}

func TestSettingsOfTheHeaderAreDoneAgain(t *testing.T) {
	base := rec("")
	base.Header = record.Header{Idle: 5, Lifetime: 6, Persist: record.PersistAlways, User: "ada"}
	d := start(base)
	if d.SetExpiry(5, 6) || d.SetPersist(record.PersistAlways) || !d.Empty() || d.ChangesHeader() {
		t.Error("what is so already is a change")
	}
	if !d.SetExpiry(7, -1) || !d.SetPersist(record.PersistBrowser) || d.Empty() || d.ChangesValues() || !d.NeedsCookie() {
		t.Error("it is no change")
	}
	d.SetLegacy("there")
	for what, h := range map[string]*record.Header{"view": &d.View().Header, "newer": func() *record.Header {
		newer := rec("a=1")
		newer.Header = record.Header{Idle: 1, Lifetime: 1, User: "ada", Generation: 2}
		out, err := d.Apply(newer, noon)
		if err != nil || out.Header.Generation != 2 {
			t.Errorf("%+v, %v", out.Header, err)
		}
		return &out.Header
	}()} {
		if h.Idle != 7 || h.Lifetime != -1 || h.Persist != record.PersistBrowser || h.Legacy != "there" || h.User != "ada" {
			t.Errorf("%s: %+v", what, h)
		}
	}
	if base.Header.Idle != 5 || base.Header.Legacy != "" {
		t.Errorf("the base is now %+v", base.Header)
	}
	// Setting the original value again is still a change: a newer record may have another.
	if !d.SetExpiry(5, 6) {
		t.Error("a second change is none")
	}
}

func TestOnlyWhatABrowserSeesNeedsACookie(t *testing.T) {
	d := start(rec(""))
	if d.Presented(2); d.NeedsCookie() || !d.ChangesHeader() || d.Rotates() {
		t.Error("a note that the credential came back")
	}
	if d.Rotate(2, time.Minute); !d.NeedsCookie() || !d.Rotates() {
		t.Error("another credential")
	}
	if d.DropChores(); d.NeedsCookie() || !d.Empty() || d.Rotates() {
		t.Error("nothing")
	}
}

func TestTheHeaderOfALogin(t *testing.T) {
	before := record.Header{
		Created: 1, User: "eve", AuthTime: 2, Methods: "pwd", UserAgent: "old", IP: "::1", Generation: 4, Presented: 5, Rotated: 6,
		OlderUntil: 7, Suspected: 4, Idle: 8, Lifetime: 9, Persist: record.PersistAlways, PromotedAt: 10, Promoted: 11, InlineUntil: 12,
		Counter: 13, Seen: 14, Expires: 15, Identifier: make([]byte, record.IdentifierSize), Legacy: "there", Unknown: []byte{99, 1, 1},
	}
	l := Login{User: "ada", Methods: "otp", At: noon, Created: ms(1)}
	got := l.Header(&before, "new", "::2")
	want := record.Header{
		Created: ms(1), User: "ada", AuthTime: ms(0), Methods: "otp", UserAgent: "new", IP: "::2",
		Idle: 8, Lifetime: 9, Persist: record.PersistAlways, Unknown: before.Unknown,
	}
	if !same(&got, &want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	d := start(rec("a=1"))
	if d.ShowLogin(got); !d.Empty() || d.View().Header.User != "ada" {
		t.Error("the login shows, and is no change of the draft")
	}
}

// A stored session began as a copy of a cookie, whose counter was 5 then. Another
// request with that cookie, or with a later one, joins it.
func TestWhatACookieKnowsIsAddedToItsStoredSession(t *testing.T) {
	for name, test := range map[string]struct {
		stored, inline []record.Field
		want           string
	}{
		"the same":                      {[]record.Field{{Name: "a", Value: []byte("s"), Stamp: 3}}, []record.Field{{Name: "a", Value: []byte("i"), Stamp: 3}}, "a=s"},
		"a later change in the cookie":  {[]record.Field{{Name: "a", Value: []byte("s"), Stamp: 3}}, []record.Field{{Name: "a", Value: []byte("i"), Stamp: 6}}, "a=i"},
		"an earlier one":                {[]record.Field{{Name: "a", Value: []byte("s"), Stamp: 4}}, []record.Field{{Name: "a", Value: []byte("i"), Stamp: 3}}, "a=s"},
		"a change in the store":         {[]record.Field{{Name: "a", Value: []byte("s")}}, []record.Field{{Name: "a", Value: []byte("i"), Stamp: 900}}, "a=s"},
		"removed in the store since":    {nil, []record.Field{{Name: "a", Value: []byte("i"), Stamp: 5}}, ""},
		"new in the cookie":             {nil, []record.Field{{Name: "a", Value: []byte("i"), Stamp: 6}}, "a=i"},
		"new in the store":              {[]record.Field{{Name: "a", Value: []byte("s")}}, nil, "a=s"},
		"removed in the cookie: a copy": {[]record.Field{{Name: "a", Value: []byte("s"), Stamp: 3}}, nil, "a=s"},
		"each value for itself, in order": {
			[]record.Field{{Name: "a", Value: []byte("s"), Stamp: 3}, {Name: "c", Value: []byte("s")}},
			[]record.Field{{Name: "a", Value: []byte("i"), Stamp: 6}, {Name: "b", Value: []byte("i"), Stamp: 6}, {Name: "c", Value: []byte("i"), Stamp: 6}},
			"a=i b=i c=s",
		},
	} {
		var stored, inline record.Record
		stored.Header = record.Header{PromotedAt: 5, User: "ada"}
		inline.Header = record.Header{Counter: 7}
		for _, f := range test.stored {
			stored.Put(f)
		}
		for _, f := range test.inline {
			inline.Put(f)
		}
		before := text(&stored)
		out := MergeInline(&stored, &inline)
		if got := text(&out); got != test.want || out.Header.User != "ada" || out.Header.Counter != 0 {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
		if text(&stored) != before {
			t.Errorf("%s: the stored one is now %q", name, text(&stored))
		}
	}
}
