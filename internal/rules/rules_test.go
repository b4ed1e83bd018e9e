package rules

import (
	"errors"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/store"
)

const (
	ms   = time.Millisecond
	hour = time.Hour
	day  = 24 * time.Hour
)

// noon is the time of all decisions here, in whole milliseconds, as headers have it.
var noon = time.UnixMilli(1_700_000_000_000).UTC()

func at(d time.Duration) int64 { return noon.Add(d).UnixMilli() }

func TestWhereASessionLives(t *testing.T) {
	value := record.Field{Name: "a"}
	secret := record.Field{Name: "b", Flags: record.ServerSide}
	volatile := record.Field{Name: "c", Flags: record.Volatile}
	lastMoment := record.Field{Name: "d", Expiry: at(0)}
	over := record.Field{Name: "e", Expiry: at(-ms)}
	overSecret := record.Field{Name: "f", Flags: record.ServerSide, Expiry: at(-ms)}
	for name, test := range map[string]struct {
		before             Where
		user               string
		fields             []record.Field
		auto, stored, only Where // in each mode
		onlyErr            error
	}{
		"nothing":                            {auto: Nowhere, stored: Nowhere, only: Nowhere},
		"a value":                            {fields: []record.Field{value}, auto: Inline, stored: Stored, only: Inline},
		"a volatile value":                   {fields: []record.Field{volatile}, auto: Inline, stored: Stored, only: Inline},
		"a server-side value":                {fields: []record.Field{value, secret}, auto: Stored, stored: Stored, only: Nowhere, onlyErr: fault.NoStore},
		"a user":                             {user: "ada", auto: Stored, stored: Stored, only: Inline},
		"a user and a value":                 {user: "ada", fields: []record.Field{value}, auto: Stored, stored: Stored, only: Inline},
		"a user and a server-side value":     {user: "ada", fields: []record.Field{secret}, auto: Stored, stored: Stored, only: Nowhere, onlyErr: fault.NoStore},
		"a value that is over":               {fields: []record.Field{over}, auto: Nowhere, stored: Nowhere, only: Nowhere},
		"a value at its last moment":         {fields: []record.Field{lastMoment}, auto: Inline, stored: Stored, only: Inline},
		"a server-side value that is over":   {fields: []record.Field{overSecret}, auto: Nowhere, stored: Nowhere, only: Nowhere},
		"beside a value that goes on":        {fields: []record.Field{value, overSecret}, auto: Inline, stored: Stored, only: Inline},
		"nothing is left in a cookie":        {before: Inline, auto: Nowhere, stored: Nowhere, only: Nowhere},
		"a cookie becomes too small for it":  {before: Inline, fields: []record.Field{secret}, auto: Stored, stored: Stored, only: Nowhere, onlyErr: fault.NoStore},
		"never out of the store, empty":      {before: Stored, auto: Stored, stored: Stored, only: Stored},
		"never out of the store, with value": {before: Stored, fields: []record.Field{value}, auto: Stored, stored: Stored, only: Stored},
	} {
		r := record.Record{Header: record.Header{User: test.user}}
		for _, f := range test.fields {
			r.Put(f)
		}
		for mode, want := range []Where{Auto: test.auto, StoredOnly: test.stored, CookieOnly: test.only} {
			wantErr := error(nil)
			if Mode(mode) == CookieOnly {
				wantErr = test.onlyErr
			}
			l := Limits{Mode: Mode(mode)}
			if got, err := l.Place(test.before, &r, noon); got != want || !errors.Is(err, wantErr) || wantErr == nil && err != nil {
				t.Errorf("%s in mode %d: %d, %v; want %d, %v", name, mode, got, err, want, wantErr)
			}
		}
	}
}

func TestWhenASessionIsOver(t *testing.T) {
	l := Limits{Idle: 2 * hour, Lifetime: 10 * day}
	for name, test := range map[string]struct {
		limits   Limits
		header   record.Header
		lifetime time.Duration // after Created
		idle     time.Duration
	}{
		"as configured":              {l, record.Header{}, 10 * day, 2 * hour},
		"its own":                    {l, record.Header{Lifetime: 1000, Idle: 500}, time.Second, 500 * ms},
		"its own, longer":            {l, record.Header{Lifetime: (90 * day).Milliseconds(), Idle: (3 * hour).Milliseconds()}, 90 * day, 3 * hour},
		"none of its own":            {l, record.Header{Lifetime: -1, Idle: -1}, MaxAge, 0},
		"none configured":            {Limits{Idle: -1, Lifetime: day}, record.Header{}, day, 0},
		"its own where none is":      {Limits{Idle: -1, Lifetime: day}, record.Header{Idle: 1}, day, ms},
		"zero is configured as none": {Limits{Lifetime: day}, record.Header{}, day, 0},
	} {
		test.header.Created = at(0)
		if got := test.limits.LifetimeEnd(&test.header).Sub(noon); got != test.lifetime {
			t.Errorf("%s: lives for %v, want %v", name, got, test.lifetime)
		}
		if got := test.limits.IdleTimeout(&test.header); got != test.idle {
			t.Errorf("%s: idle for %v, want %v", name, got, test.idle)
		}
	}
}

func TestTheIdleDeadlineIsNeverAfterTheEnd(t *testing.T) {
	for name, test := range map[string]struct {
		idle, seen, expires, want time.Duration
	}{
		"before the end":        {hour, 0, 2 * hour, hour},
		"at the end":            {hour, 0, hour, hour},
		"after the end":         {hour, 0, hour - ms, hour - ms},
		"no idle timeout":       {-1, 0, day, day},
		"seen a while ago":      {hour, -30 * time.Minute, day, 30 * time.Minute},
		"over already":          {hour, -2 * hour, day, -hour},
		"the lifetime is over":  {hour, 0, -hour, -hour},
		"seen later than it is": {hour, 5 * time.Minute, day, 65 * time.Minute},
	} {
		l := Limits{Idle: test.idle}
		if got := l.IdleDeadline(&record.Header{}, noon.Add(test.seen), noon.Add(test.expires)); !got.Equal(noon.Add(test.want)) {
			t.Errorf("%s: in %v, want %v", name, got.Sub(noon), test.want)
		}
	}
}

func TestActivityIsNotedEveryTwentiethOfTheIdleTimeout(t *testing.T) {
	for name, test := range map[string]struct {
		idle, since time.Duration
		want        bool
	}{
		"just before":                    {hour, 3*time.Minute - 1, false},
		"then":                           {hour, 3 * time.Minute, true},
		"at most an hour, just before":   {30 * day, hour - 1, false},
		"at most an hour":                {30 * day, hour, true},
		"no idle timeout":                {-1, 300 * day, false},
		"seen in the future":             {hour, -hour, false},
		"a timeout too short to divide":  {10, 0, true},
		"the smallest that is not noted": {20, 0, false},
	} {
		l := Limits{Idle: test.idle}
		if got := l.TouchDue(&record.Header{}, noon.Add(-test.since), noon); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestHowLongABrowserIsAskedToKeepACookie(t *testing.T) {
	const second = time.Second
	for name, test := range map[string]struct {
		left    time.Duration
		browser bool // configured
		persist record.Persist
		want    time.Duration
	}{
		"a second longer":                    {left: hour, want: hour + second},
		"rounded up":                         {left: hour + 1, want: hour + 2*second},
		"rounded up from almost a second":    {left: hour + second - 1, want: hour + 2*second},
		"hardly anything left":               {left: 1, want: 2 * second},
		"nothing left":                       {left: 0, want: -1},
		"over":                               {left: -hour, want: -1},
		"400 days":                           {left: MaxAge, want: MaxAge},
		"400 days and more":                  {left: MaxAge + hour, want: MaxAge},
		"a second less":                      {left: MaxAge - second, want: MaxAge},
		"two seconds less":                   {left: MaxAge - 2*second, want: MaxAge - second},
		"until the browser closes":           {left: hour, browser: true, want: 0},
		"until the browser closes, and over": {left: -hour, browser: true, want: 0},
		"kept in spite of the configuration": {left: hour, browser: true, persist: record.PersistAlways, want: hour + second},
		"not kept in spite of it":            {left: hour, persist: record.PersistBrowser, want: 0},
	} {
		l := Limits{BrowserSession: test.browser}
		if got := l.CookieAge(&record.Header{Persist: test.persist}, noon.Add(test.left), noon); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestWhatACredentialIsWorth(t *testing.T) {
	l := Limits{Grace: 10 * time.Second}
	old := l.OldFor()
	if old != 10*time.Second+Skew {
		t.Errorf("a replaced credential is accepted for %v", old)
	}
	for name, test := range map[string]struct {
		generation uint64
		header     record.Header
		want       Credential
	}{
		"a new session's":                                {0, record.Header{}, Newest},
		"the newest":                                     {5, record.Header{Generation: 5, Presented: at(-day)}, Newest},
		"the newest, though one was reported":            {5, record.Header{Generation: 5, Suspected: 5}, Newest},
		"a newer one than the session has":               {6, record.Header{Generation: 5}, Ahead},
		"much newer":                                     {9, record.Header{Generation: 5, Suspected: 5}, Ahead},
		"before it, which was never used":                {4, record.Header{Generation: 5, Rotated: at(-300 * day)}, Previous},
		"before it, which was just used":                 {4, record.Header{Generation: 5, Presented: at(0)}, Previous},
		"before it, at the last moment":                  {4, record.Header{Generation: 5, Presented: at(-old)}, Previous},
		"before it, a moment too late":                   {4, record.Header{Generation: 5, Presented: at(-old - ms)}, Suspicious},
		"too late, and reported":                         {4, record.Header{Generation: 5, Presented: at(-old - ms), Suspected: 5}, Outdated},
		"too late, one of an older generation reported":  {4, record.Header{Generation: 5, Presented: at(-old - ms), Suspected: 4}, Suspicious},
		"two before it":                                  {3, record.Header{Generation: 5}, Suspicious},
		"two before it, reported":                        {3, record.Header{Generation: 5, Suspected: 5}, Outdated},
		"two before it, in a quick rotation":             {3, record.Header{Generation: 5, OlderUntil: at(0)}, Previous},
		"two before it, a moment too late":               {3, record.Header{Generation: 5, OlderUntil: at(-ms)}, Suspicious},
		"three before it, in a quick rotation":           {2, record.Header{Generation: 5, OlderUntil: at(0)}, Outdated},
		"three before it, a moment too late":             {2, record.Header{Generation: 5, OlderUntil: at(-ms)}, Suspicious},
		"the first of all, long ago":                     {0, record.Header{Generation: 5, Presented: at(0)}, Suspicious},
		"one before it, late, in a quick rotation":       {4, record.Header{Generation: 5, Presented: at(-old - ms), OlderUntil: at(hour)}, Suspicious},
		"the generations before the first do not matter": {1, record.Header{Generation: 1, OlderUntil: at(hour)}, Newest},
	} {
		got := l.Judge(test.generation, &test.header, noon)
		if got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
		if good := test.want == Newest || test.want == Previous || test.want == Ahead; got.Good() != good {
			t.Errorf("%s: good = %v", name, !good)
		}
	}
}

func TestWhenACredentialIsReplaced(t *testing.T) {
	l := Limits{Grace: 10 * time.Second, RotateEvery: hour}
	old := l.OldFor()
	for name, test := range map[string]struct {
		header record.Header
		want   bool
	}{
		"the first one, just before":     {record.Header{Created: at(-hour + ms)}, false},
		"the first one":                  {record.Header{Created: at(-hour)}, true},
		"its age counts, not another's":  {record.Header{Created: at(-day), Generation: 1, Rotated: at(-hour + ms), Presented: at(-hour + ms)}, false},
		"a later one":                    {record.Header{Created: at(-day), Generation: 1, Rotated: at(-hour), Presented: at(-hour)}, true},
		"one that never came back":       {record.Header{Created: at(-day), Generation: 1, Rotated: at(-day)}, false},
		"the one before it is good":      {record.Header{Created: at(-day), Generation: 1, Rotated: at(-day), Presented: at(-old + ms)}, false},
		"the one before it is worthless": {record.Header{Created: at(-day), Generation: 1, Rotated: at(-day), Presented: at(-old)}, true},
	} {
		if got := l.RotationDue(&test.header, noon); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
		never := l
		never.RotateEvery = 0
		if never.RotationDue(&test.header, noon) {
			t.Errorf("%s: replaced by a manager that never does so", name)
		}
	}
}

// At most two credentials are valid at any time, so when a credential is due
// for replacement, its predecessor is invalid.
func TestNoRotationLeavesThreeGoodCredentials(t *testing.T) {
	l := Limits{Grace: 10 * time.Second, RotateEvery: ms}
	h := record.Header{Generation: 3, Presented: at(0), Rotated: at(-hour)}
	due := 0
	for d := l.OldFor() - 2*ms; d <= l.OldFor()+2*ms; d += ms / 4 {
		now := noon.Add(d)
		if !l.RotationDue(&h, now) {
			continue
		}
		due++
		if l.Judge(2, &h, now.Add(1)).Good() {
			t.Errorf("the one after it is replaced after %v, and it is good", d)
		}
	}
	if due == 0 {
		t.Error("none is replaced")
	}
}

func TestACookieMayJoinItsStoredSessionForAWhile(t *testing.T) {
	l := Limits{Grace: 10 * time.Second}
	h := record.Header{Promoted: at(0)}
	for after, want := range map[time.Duration]bool{-hour: true, 0: true, l.OldFor(): true, l.OldFor() + 1: false, day: false} {
		if got := l.Joinable(&h, noon.Add(after)); got != want {
			t.Errorf("%v later: %v", after, got)
		}
	}
}

func TestTimesInTheFutureAreMended(t *testing.T) {
	l := Limits{Grace: 10 * time.Second}
	late, most := at(Skew+ms), at(Skew)
	older := at(l.OldFor() + Skew)
	for name, test := range map[string]struct {
		before, after record.Header
		seen, seenTo  int64
		mended        bool
	}{
		"nothing in it":       {seen: at(0), seenTo: at(0)},
		"never seen":          {seen: 0, seenTo: 0},
		"as far as clocks go": {before: record.Header{Created: most, Seen: most, Rotated: most, Presented: most, Promoted: most, AuthTime: most, OlderUntil: older}, seen: most, seenTo: most, after: record.Header{Created: most, Seen: most, Rotated: most, Presented: most, Promoted: most, AuthTime: most, OlderUntil: older}},
		"created":             {before: record.Header{Created: late}, after: record.Header{Created: at(0)}, mended: true},
		"seen, in a cookie":   {before: record.Header{Seen: late}, after: record.Header{Seen: at(0)}, mended: true},
		"seen":                {seen: late, seenTo: at(0), mended: true},
		"rotated":             {before: record.Header{Rotated: late}, after: record.Header{Rotated: at(0)}, mended: true},
		"presented":           {before: record.Header{Presented: late}, after: record.Header{Presented: at(0)}, mended: true},
		"promoted":            {before: record.Header{Promoted: late}, after: record.Header{Promoted: at(0)}, mended: true},
		"a login is not recent": {
			before: record.Header{AuthTime: late, Created: at(-day)}, after: record.Header{Created: at(-day)}, mended: true,
		},
		"older ones are good for too long": {before: record.Header{OlderUntil: older + 1}, after: record.Header{OlderUntil: older}, mended: true},
		"what may lie in the future": {
			before: record.Header{Expires: at(900 * day), InlineUntil: at(900 * day)}, after: record.Header{Expires: at(900 * day), InlineUntil: at(900 * day)},
		},
	} {
		h := test.before
		seen, mended := l.Mend(&h, record.Time(test.seen), noon)
		if mended != test.mended || record.Millis(seen) != test.seenTo || !equal(&h, &test.after) {
			t.Errorf("%s: %+v, seen %v, mended %v; want %+v", name, h, seen, mended, test.after)
		}
		if again, twice := l.Mend(&h, seen, noon); twice || !again.Equal(seen) {
			t.Errorf("%s: mended twice", name)
		}
	}
}

// equal compares the parts of headers that can be compared.
func equal(a, b *record.Header) bool {
	x, y := record.Record{Header: *a}, record.Record{Header: *b}
	return string(x.Append(nil)) == string(y.Append(nil))
}

func TestHowLongATombstoneIsKept(t *testing.T) {
	const least = store.MinTombstone
	for name, test := range map[string]struct{ inline, foreign, want time.Duration }{
		"at least for requests under way":    {want: least},
		"a cookie that goes before that":     {inline: least - ms, want: least},
		"a cookie may turn up":               {inline: day, want: day},
		"a foreign credential may":           {inline: hour, foreign: day, want: day},
		"a foreign credential before cookie": {inline: day, foreign: hour, want: day},
	} {
		h, foreign := record.Header{}, time.Time{}
		if test.inline > 0 {
			h.InlineUntil = at(test.inline)
		}
		if test.foreign > 0 {
			foreign = noon.Add(test.foreign)
		}
		if got := new(Limits).TombstoneUntil(&h, foreign, noon); !got.Equal(noon.Add(test.want)) {
			t.Errorf("%s: for %v, want %v", name, got.Sub(noon), test.want)
		}
	}
}

func TestACookieThatHoldsTheSessionMayBeRefreshedOnceMore(t *testing.T) {
	l := Limits{Idle: hour, Lifetime: day}
	for name, test := range map[string]struct{ created, want time.Duration }{
		"until it is idle": {0, hour + time.Minute},
		"until its end":    {-day + hour, hour},
	} {
		if got := l.InlineUntil(&record.Header{Created: at(test.created)}, noon); !got.Equal(noon.Add(test.want)) {
			t.Errorf("%s: for %v, want %v", name, got.Sub(noon), test.want)
		}
	}
}

func TestASettingNeverRoundsToTheConfiguredOne(t *testing.T) {
	for d, want := range map[time.Duration]int64{0: 0, 1: 1, ms: 1, ms + 1: 2, hour: 3_600_000, -1: -1, -hour: -1} {
		if got := Millis(d); got != want {
			t.Errorf("%v became %d ms, want %d", d, got, want)
		}
	}
}

func TestEarlierAndLater(t *testing.T) {
	a, b := noon, noon.Add(1)
	if Earlier(a, b) != a || Earlier(b, a) != a || Later(a, b) != b || Later(b, a) != b {
		t.Error("they are mixed up")
	}
	if !Later(time.Time{}, a).Equal(a) {
		t.Error("the zero time is late")
	}
}
