package cookies

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

const (
	refName   = "__Host-session"
	stateName = "__Host-session-state"
)

var noon = time.UnixMilli(1_700_000_000_000).UTC()

var newKeys = sync.OnceValue(func() (keys [3]seal.Key) { // they take a while to derive
	for i := range keys {
		key, err := seal.NewKey([seal.SecretSize]byte{byte(i)}, seal.Active, noon.Add(time.Duration(i)*time.Hour))
		if err != nil {
			panic(err)
		}
		keys[i] = key
	}
	return keys
})

// ring is a ring of these keys. The last one seals.
func ring(keys ...int) func() *seal.Ring {
	var all []seal.Key
	for _, k := range keys {
		all = append(all, newKeys()[k])
	}
	r, err := seal.NewRing(all, [seal.SecretSize]byte{})
	if err != nil {
		panic(err)
	}
	return func() *seal.Ring { return r }
}

func newCookies(change ...func(*Options)) *Cookies {
	o := Options{
		Name: "session", Now: Attributes{Prefix: "__Host-", Path: "/"}, Ring: ring(0), Bound: wire.Bind("session"), Mended: func() {},
		Limits: &rules.Limits{InlineLimit: 4000, MaxSize: 1 << 16, Idle: time.Hour, Lifetime: 24 * time.Hour},
	}
	for _, f := range change {
		f(&o)
	}
	return New(o)
}

func cookieOnly(o *Options) {
	o.Limits.Mode, o.Limits.InlineLimit = rules.CookieOnly, 4*wire.MaxCookie
}

// reference names session n, in a generation.
func reference(n byte, generation uint64) *wire.Reference {
	return &wire.Reference{Identifier: identifier(n), Generation: generation, Expires: noon.Add(time.Hour).UnixMilli()}
}

func identifier(n byte) []byte { return bytes.Repeat([]byte{n}, record.IdentifierSize) }

// rec is a record with these values, written "a=1 b=2".
func rec(values string) record.Record {
	var r record.Record
	for pair := range strings.FieldsSeq(values) {
		name, value, _ := strings.Cut(pair, "=")
		r.Put(record.Field{Name: name, Value: []byte(value)})
	}
	return r.Done()
}

func text(r *record.Record) string {
	var pairs []string
	for _, f := range r.Fields() {
		pairs = append(pairs, f.Name+"="+string(f.Value))
	}
	return strings.Join(pairs, " ")
}

// browser keeps cookies as browsers do: by name and attributes, in the order in
// which they were first set.
type browser struct{ cookies []kept }

type kept struct{ name, value, attrs string }

// see keeps a response's cookies, and returns their names, with a minus sign
// for those that expire.
func (b *browser) see(t *testing.T, j *Jar) (set []string) {
	t.Helper()
	h := http.Header{}
	j.Flush(h)
	if j.Pending() {
		t.Error("something is pending after a flush")
	}
	for _, line := range h["Set-Cookie"] {
		name, rest, _ := strings.Cut(line, "=")
		value, attrs, _ := strings.Cut(rest, "; ")
		expires := strings.HasPrefix(attrs, "Max-Age=0; ")
		if strings.HasPrefix(attrs, "Max-Age=") {
			_, attrs, _ = strings.Cut(attrs, "; ")
		}
		i := slices.IndexFunc(b.cookies, func(k kept) bool { return k.name == name && k.attrs == attrs })
		switch {
		case expires && i >= 0:
			b.cookies = slices.Delete(b.cookies, i, i+1)
		case expires:
		case i >= 0:
			b.cookies[i].value = value
		default:
			b.cookies = append(b.cookies, kept{name, value, attrs})
		}
		if expires {
			name = "-" + name
		}
		set = append(set, name)
	}
	return set
}

func (b *browser) header() http.Header {
	var pairs []string
	for _, k := range b.cookies {
		pairs = append(pairs, k.name+"="+k.value)
	}
	if pairs == nil {
		return http.Header{}
	}
	return http.Header{"Cookie": {strings.Join(pairs, "; ")}}
}

func (b *browser) read(c *Cookies) *Arrival {
	a := c.Read(b.header(), noon)
	return &a
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantSet(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: set %q, want %q", what, got, want)
	}
}

func wantRejected(t *testing.T, what string, a *Arrival, want ...error) {
	t.Helper()
	if len(a.Rejected) != len(want) {
		t.Errorf("%s: rejected %v, want %v", what, a.Rejected, want)
		return
	}
	for i, r := range a.Rejected {
		if !errors.Is(r.Err, want[i]) {
			t.Errorf("%s: rejected %v, want %v", what, r, want[i])
		}
	}
}

// put sets a session's cookie in a browser.
func (b *browser) put(t *testing.T, c *Cookies, values string, id byte, before *Inline, now time.Time) *Inline {
	t.Helper()
	r := rec(values)
	if before != nil {
		r.Header = before.Rec.Header
	}
	in, err := c.Seal(r, identifier(id), wire.Mark{}, true, false, now)
	must(t, err)
	j := b.read(c).Jar
	j.SetInline(&in, time.Hour)
	b.see(t, &j)
	return &in
}

// refer sets a reference in a browser, replacing any other.
func (b *browser) refer(t *testing.T, c *Cookies, ref *wire.Reference) {
	t.Helper()
	j := Jar{c: c}
	must(t, j.SetReference(ref, time.Hour))
	b.see(t, &j)
}

func TestACookiesAttributes(t *testing.T) {
	for want, a := range map[string]Attributes{
		"__Host-session=%s; Max-Age=3600; Path=/; HttpOnly; Secure; SameSite=Lax":                                    {Prefix: "__Host-", Path: "/"},
		"session=%s; Max-Age=3600; Path=/; HttpOnly; SameSite=Strict":                                                {Path: "/", Insecure: true, SameSite: http.SameSiteStrictMode},
		"__Secure-session=%s; Max-Age=3600; Path=/a; Domain=x.example; HttpOnly; Secure; SameSite=None; Partitioned": {Prefix: "__Secure-", Path: "/a", Domain: "x.example", SameSite: http.SameSiteNoneMode, Partitioned: true},
	} {
		c := newCookies(func(o *Options) { o.Now = a })
		for age, wantAge := range map[time.Duration]string{time.Hour: "; Max-Age=3600", 0: "", -1: "; Max-Age=0", time.Second: "; Max-Age=1"} {
			want := strings.Replace(strings.Replace(want, "%s", "v", 1), "; Max-Age=3600", wantAge, 1)
			if got := c.own.line(c.ReferenceName(), "v", age); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	}
}

func TestAReferenceComesBack(t *testing.T) {
	c := newCookies()
	var b browser
	j := b.read(c).Jar
	if j.Brought {
		t.Error("an empty browser brought something")
	}
	must(t, j.SetReference(reference(1, 7), time.Hour))
	must(t, j.SetFloor(wire.Floor{ID: store.ID{1}, Version: 9, Volatile: true}, time.Hour))
	if !j.SetsReference() || !j.Pending() || !j.Has(reference(1, 7)) {
		t.Error("the jar does not know what it has set")
	}
	wantSet(t, "at first", b.see(t, &j), refName, stateName)

	a := b.read(c)
	wantRejected(t, "ours", a)
	if len(a.References) != 1 || a.References[0].Generation != 7 || !bytes.Equal(a.References[0].Identifier, identifier(1)) || !a.Jar.Brought || a.HasInline {
		t.Fatalf("%+v", a)
	}
	if f := a.Floor(store.ID{1}); f.Version != 9 || !f.Volatile || a.Floor(store.ID{2}) != (wire.Floor{}) || a.Jar.Floor() != f {
		t.Errorf("the floor is %+v", f)
	}
	j = a.Jar
	j.Choose(&a.References[0])
	if !j.Has(reference(1, 7)) || j.Has(reference(1, 8)) || j.Has(reference(2, 7)) || j.Generation() != 7 || j.Outdated(reference(1, 7)) || !j.Outdated(reference(1, 8)) {
		t.Error("the jar does not know what the browser has")
	}
	if later := reference(1, 7); j.Has(later) {
		if later.Expires++; j.Has(later) || !j.Outdated(later) {
			t.Error("a reference of another end is the same")
		}
	}
}

func TestTheJarSetsOnlyWhatChanges(t *testing.T) {
	c := newCookies()
	var b browser
	b.refer(t, c, reference(1, 1))
	f := wire.Floor{ID: store.ID{1}, Version: 3}
	for i, step := range []struct {
		floor wire.Floor
		want  []string
	}{
		{f, []string{stateName}},
		{f, nil},
		{wire.Floor{ID: store.ID{1}, Version: 4}, []string{stateName}},
		{wire.Floor{ID: store.ID{1}, Version: 4, Volatile: true}, []string{stateName}},
		{wire.Floor{ID: store.ID{2}, Version: 4, Volatile: true}, []string{stateName}},
		{wire.Floor{ID: store.ID{2}, Version: 4, Volatile: true}, nil},
	} {
		j := b.read(c).Jar
		must(t, j.SetFloor(step.floor, time.Hour))
		wantSet(t, fmt.Sprint("step ", i), b.see(t, &j), step.want...)
	}
	// Sealed with an old key it is set again.
	c2 := newCookies(func(o *Options) { o.Ring = ring(0, 1) })
	a := b.read(c2)
	a.Jar.Choose(&a.References[0])
	if !a.Jar.StateStale() || !a.Jar.Outdated(reference(1, 1)) || a.Jar.Has(reference(1, 1)) {
		t.Error("cookies of an old key are not to be set anew")
	}
	must(t, a.Jar.SetFloor(wire.Floor{ID: store.ID{2}, Version: 4, Volatile: true}, time.Hour))
	must(t, a.Jar.SetReference(reference(1, 1), time.Hour))
	wantSet(t, "an old key", b.see(t, &a.Jar), stateName, refName)
	if a = b.read(c2); a.Jar.StateStale() || a.References[0].stale {
		t.Error("they are stale still")
	}
}

func TestWhatIsSetTwiceIsSetOnce(t *testing.T) {
	c := newCookies()
	j := Jar{c: c}
	must(t, j.SetReference(reference(1, 1), time.Hour))
	must(t, j.SetFloor(wire.Floor{Version: 1}, time.Hour))
	must(t, j.SetReference(reference(1, 2), time.Hour))
	h := http.Header{"Set-Cookie": {"other=1; Path=/"}}
	j.Flush(h)
	must(t, j.SetFloor(wire.Floor{Version: 2}, time.Hour))
	j.Flush(h) // a second one, as of a response that has not started
	var names []string
	for _, line := range h["Set-Cookie"] {
		name, _, _ := strings.Cut(line, "=")
		names = append(names, name)
	}
	wantSet(t, "in all", names, "other", refName, stateName)
	must(t, j.SetFloor(wire.Floor{Version: 3}, time.Hour))
	if j.Drop(); j.Pending() {
		t.Error("what was dropped is pending")
	}
}

func TestForgetExpiresOnlyWhatTheBrowserHas(t *testing.T) {
	c := newCookies()
	for name, test := range map[string]struct {
		do   func(*browser)
		want []string
	}{
		"nothing":                  {func(*browser) {}, nil},
		"a reference":              {func(b *browser) { b.refer(t, c, reference(1, 1)) }, []string{"-" + refName}},
		"a session":                {func(b *browser) { b.put(t, c, "a=1", 1, nil, noon) }, []string{"-" + stateName}},
		"both":                     {func(b *browser) { b.put(t, c, "a=1", 1, nil, noon); b.refer(t, c, reference(1, 1)) }, []string{"-" + refName, "-" + stateName}},
		"a session that is over":   {func(b *browser) { b.put(t, c, "a=1", 1, nil, noon.Add(-2*time.Hour)) }, []string{"-" + stateName}},
		"junk of the state's name": {func(b *browser) { b.cookies = []kept{{stateName, "junk", ""}} }, []string{"-" + stateName}},
		"a foreign reference, which may be another replica's": {func(b *browser) { b.cookies = []kept{{refName, "junk", ""}} }, nil},
	} {
		var b browser
		test.do(&b)
		j := b.read(c).Jar
		j.Forget()
		wantSet(t, name, b.see(t, &j), test.want...)
		again := j
		again.Forget()
		wantSet(t, name+", again", b.see(t, &again))
	}
}

func TestSeveralReferences(t *testing.T) {
	c := newCookies()
	ends := func(n byte, generation uint64, after time.Duration /* in ms */) *wire.Reference {
		r := reference(n, generation)
		r.Expires = noon.Add(after * time.Millisecond).UnixMilli()
		return r
	}
	value := func(r *wire.Reference) string {
		v, err := c.seal(seal.Reference, r.Append(nil))
		must(t, err)
		return v
	}
	for name, test := range map[string]struct {
		refs []*wire.Reference
		want string // session.generation, in order
		over int
	}{
		"two sessions":                        {[]*wire.Reference{ends(1, 1, 1), ends(2, 1, 9)}, "1.1 2.1", 0},
		"one session, the older first":        {[]*wire.Reference{ends(1, 1, 1), ends(1, 2, 9)}, "1.2", 0},
		"one session, the newer first":        {[]*wire.Reference{ends(1, 2, 1), ends(1, 1, 9)}, "1.2", 0},
		"three: the last to end comes second": {[]*wire.Reference{ends(1, 1, 1), ends(2, 1, 2), ends(3, 1, 9)}, "1.1 3.1 2.1", 0},
		"at its last moment":                  {[]*wire.Reference{ends(1, 1, 0), ends(2, 1, -1)}, "1.1", 1},
		"five: four are looked at":            {[]*wire.Reference{ends(1, 1, 1), ends(2, 1, 1), ends(3, 1, 1), ends(4, 1, 1), ends(5, 1, 1)}, "1.1 2.1 3.1 4.1", 0},
	} {
		var pairs []string
		for _, r := range test.refs {
			pairs = append(pairs, refName+"="+value(r))
		}
		a := c.Read(http.Header{"Cookie": {strings.Join(pairs, "; ")}}, noon)
		var got []string
		for _, r := range a.References {
			got = append(got, fmt.Sprint(r.Identifier[0], ".", r.Generation))
		}
		if s := strings.Join(got, " "); s != test.want || len(a.Rejected) != test.over {
			t.Errorf("%s: %q, want %q; rejected %v", name, s, test.want, a.Rejected)
		}
	}
}

func TestCookiesThatAreNotOurs(t *testing.T) {
	c := newCookies()
	other := newCookies(func(o *Options) { o.Bound = wire.Bind("other") })
	strange := newCookies(func(o *Options) { o.Ring = ring(1) })
	sealed := func(c *Cookies, p seal.Purpose, plain []byte) string {
		v, err := c.seal(p, plain)
		must(t, err)
		return v
	}
	ref := reference(1, 1).Append(nil)
	good := sealed(c, seal.Reference, ref)
	late := reference(1, 1)
	late.Expires = noon.Add(-time.Millisecond).UnixMilli()
	for name, test := range map[string]struct {
		value string
		err   error
	}{
		"ours":             {good, nil},
		"quoted":           {`"` + good + `"`, nil},
		"empty":            {"", nil},
		"junk":             {"junk", seal.ErrOpen},
		"long junk":        {strings.Repeat("A", 100), seal.ErrUnknownKey},
		"no base64":        {"a b+c/", seal.ErrOpen},
		"a byte changed":   {good[:len(good)-9] + string(good[len(good)-9]^1) + good[len(good)-8:], seal.ErrOpen},
		"a line end in it": {good[:9] + "\r\n" + good[9:], seal.ErrOpen},
		"a byte more":      {good + "A", seal.ErrOpen},
		"much too long":    {strings.Repeat("A", 5*wire.MaxCookie), seal.ErrOpen},
		"another's":        {sealed(other, seal.Reference, ref), seal.ErrOpen},
		"of another kind":  {sealed(c, seal.State, ref), seal.ErrOpen},
		"a foreign key":    {sealed(strange, seal.Reference, ref), seal.ErrUnknownKey},
		"sealed nonsense":  {sealed(c, seal.Reference, ref[:20]), wire.ErrFormat},
		"more than it has": {sealed(c, seal.Reference, append(slices.Clone(ref), 1)), wire.ErrFormat},
		"over":             {sealed(c, seal.Reference, late.Append(nil)), fault.Expired},
	} {
		a := c.Read(http.Header{"Cookie": {"x=1; " + refName + "=" + test.value}}, noon)
		if test.err == nil {
			wantRejected(t, name, &a)
			if (len(a.References) == 1) != (test.value != "") {
				t.Errorf("%s: %d references", name, len(a.References))
			}
		} else {
			wantRejected(t, name, &a, test.err)
		}
		if foreign := errors.Is(test.err, seal.ErrUnknownKey); (len(a.Foreign) == 1) != foreign || !a.Jar.Brought {
			t.Errorf("%s: foreign %d, brought %v", name, len(a.Foreign), a.Jar.Brought)
		}
	}
	if a := newCookies(cookieOnly).Read(http.Header{"Cookie": {refName + "=" + good}}, noon); len(a.References) != 0 {
		t.Error("a manager without a store reads a reference")
	}
}

func TestAStateThatIsNotOurs(t *testing.T) {
	c := newCookies()
	for name, test := range map[string]struct {
		plain []byte
		err   error
	}{
		"nothing":            {nil, wire.ErrFormat},
		"an unknown kind":    {[]byte{9, 1}, wire.ErrFormat},
		"a floor cut off":    {[]byte{wire.StateFloor, 1}, wire.ErrFormat},
		"a mark cut off":     {[]byte{wire.StateRefused, 1}, wire.ErrFormat},
		"no record":          {[]byte{wire.StateInline, 77}, record.ErrFormat},
		"without identifier": {func() []byte { r := rec("a=1"); return r.Append([]byte{wire.StateInline}) }(), wire.ErrFormat},
		"the counter is zero": {func() []byte {
			r := rec("a=1")
			r.Header.Identifier = identifier(1)
			return r.Append([]byte{wire.StateInline})
		}(), wire.ErrFormat},
		"a floor after a mark": {append(wire.MarkOf([]string{"a"}).Append(nil), wire.StateFloor), wire.ErrFormat},
	} {
		value, err := c.seal(seal.State, test.plain)
		must(t, err)
		a := c.Read(http.Header{"Cookie": {stateName + "=" + value}}, noon)
		wantRejected(t, name, &a, test.err)
		if a.HasInline || len(a.floors) != 0 {
			t.Errorf("%s: it is something", name)
		}
	}
}

// A browser brings the cookies of former attributes beside the new ones.
func TestCookiesOfFormerAttributesExpireOnlyIfSeveralCame(t *testing.T) {
	former := Attributes{Prefix: "__Secure-", Path: "/", Domain: "x.example"}
	sameName := Attributes{Prefix: "__Host-", Path: "/", Partitioned: true}
	c := newCookies(func(o *Options) { o.Former = []Attributes{former, sameName} })
	old := newCookies(func(o *Options) { o.Now = former })
	older := newCookies(func(o *Options) { o.Now = sameName })

	var b browser
	b.refer(t, old, reference(1, 1))
	a := b.read(c)
	if len(a.References) != 1 || !a.References[0].stale || a.Jar.several {
		t.Fatalf("%+v", a)
	}
	a.Jar.Choose(&a.References[0])
	if a.Jar.Has(reference(1, 1)) || !a.Jar.Outdated(reference(1, 1)) {
		t.Error("a cookie of a former name is good enough")
	}
	must(t, a.Jar.SetReference(reference(1, 1), time.Hour))
	wantSet(t, "one alone", b.see(t, &a.Jar), refName)
	a = b.read(c) // has both
	a.Jar.Choose(&a.References[0])
	must(t, a.Jar.SetReference(reference(1, 2), time.Hour))
	wantSet(t, "both", b.see(t, &a.Jar), refName, "-__Secure-session", "-"+refName)
	if len(b.cookies) != 1 {
		t.Errorf("the browser has %d cookies", len(b.cookies))
	}

	// The same name with other attributes: which cookie is which is unknown.
	b = browser{}
	b.refer(t, older, reference(1, 1))
	b.refer(t, c, reference(2, 1))
	a = b.read(c)
	if len(a.References) != 2 || a.References[0].stale {
		t.Fatalf("%+v", a)
	}
	a.Jar.Choose(&a.References[0])
	must(t, a.Jar.SetReference(reference(2, 2), time.Hour))
	wantSet(t, "one name", b.see(t, &a.Jar), refName, "-__Secure-session", "-"+refName)
	if a = b.read(c); len(a.References) != 1 || a.References[0].Generation != 2 {
		t.Errorf("afterwards: %+v", a.References)
	}

	// One that opens, and one that does not: nothing of others' expires.
	b = browser{}
	b.refer(t, c, reference(1, 1))
	b.cookies = append(b.cookies, kept{"__Secure-session", "anothers", "; Path=/"})
	a = b.read(c)
	a.Jar.Choose(&a.References[0])
	must(t, a.Jar.SetReference(reference(1, 2), time.Hour))
	wantSet(t, "another's", b.see(t, &a.Jar), refName)
}

func TestWhatTheBrowserHasLearnedOfARefusal(t *testing.T) {
	c := newCookies()
	var b browser
	b.refer(t, c, reference(1, 1))
	credential := b.cookies[0].value
	in := b.put(t, c, "a=1", 5, nil, noon)

	a := b.read(c)
	if a.Jar.Refused() || a.Jar.Knows(credential) || !a.Jar.Refuse(credential) || !a.Jar.Refused() {
		t.Fatal("it is refused at first")
	}
	a.Jar.TellRefused(&in.Rec, time.Minute)
	wantSet(t, "told", b.see(t, &a.Jar), stateName)

	a = b.read(c)
	wantRejected(t, "told", a)
	if !a.HasInline || text(&a.Inline.Rec) != "a=1" {
		t.Errorf("the session in the cookie is lost: %+v", a.Inline)
	}
	unknowing := a.Jar
	if !unknowing.Refuse("another") || unknowing.Known() != (wire.Mark{}) {
		t.Error("the browser knows of another one")
	}
	if a.Jar.Refuse(credential) || a.Jar.Refused() || a.Jar.Known() != wire.MarkOf([]string{credential}) {
		t.Error("it is refused although the browser knows")
	}
	if a.Jar.Refuse("another") {
		t.Error("a cookie has room for one mark, and the first one is enough")
	}
	if a.Jar.Knows(credential) {
		t.Error("it is known twice")
	}
	// The next cookie keeps the mark.
	next, err := c.Seal(a.Inline.Rec.Clone(), identifier(5), a.Jar.Known(), true, false, noon)
	must(t, err)
	a.Jar.SetInline(&next, time.Hour)
	b.see(t, &a.Jar)
	if j := b.read(c).Jar; !j.Knows(credential) {
		t.Error("it is forgotten")
	}
	// Without a session the mark is alone.
	j := Jar{c: c}
	j.Refuse("a", "b")
	j.TellRefused(nil, time.Minute)
	b = browser{}
	b.see(t, &j)
	a = b.read(c)
	wantRejected(t, "a mark alone", a)
	if a.HasInline || a.Jar.Knows("a") || a.Jar.Knows("b", "a") || !a.Jar.Knows("a", "b") {
		t.Error("it names others")
	}
}

func TestASessionInACookie(t *testing.T) {
	c := newCookies()
	var b browser
	in := b.put(t, c, "a=1 b=2", 1, nil, noon)
	h := &in.Rec.Header
	if h.Counter != 1 || h.Seen != noon.UnixMilli() || h.Created != noon.UnixMilli() || h.Expires != noon.Add(24*time.Hour).UnixMilli() || !bytes.Equal(h.Identifier, identifier(1)) {
		t.Errorf("%+v", h)
	}
	a := b.read(c)
	wantRejected(t, "ours", a)
	if got := a.Inline; text(&got.Rec) != "a=1 b=2" || got.Size != in.Size || got.Size != len(b.cookies[0].name)+len(b.cookies[0].value) || got.Mended {
		t.Errorf("%+v", got)
	}
	// A change is stamped with the counter; a refresh changes neither.
	r := a.Inline.Rec.Clone()
	r.Put(record.Field{Name: "b", Value: []byte("3")})
	changed, err := c.Seal(r, identifier(1), wire.Mark{}, true, false, noon.Add(time.Minute))
	must(t, err)
	stamps := func(in *Inline) (s string) {
		for _, f := range in.Rec.Fields() {
			s += fmt.Sprint(f.Name, f.Stamp, " ")
		}
		return s + fmt.Sprint(in.Rec.Header.Counter, " ", in.Rec.Header.Seen-noon.UnixMilli())
	}
	if got := stamps(&changed); got != "a1 b2 2 60000" {
		t.Errorf("changed: %s", got)
	}
	for quiet, want := range map[bool]string{false: "a1 b2 2 120000", true: "a1 b2 2 60000"} {
		refreshed, err := c.Seal(changed.Rec.Clone(), identifier(1), wire.Mark{}, false, quiet, noon.Add(2*time.Minute))
		must(t, err)
		if got := stamps(&refreshed); got != want {
			t.Errorf("refreshed, quiet = %v: %s", quiet, got)
		}
	}
	// Fields for stored sessions only are dropped.
	full := rec("a=1")
	full.Header = record.Header{Generation: 1, Presented: 1, Rotated: 1, OlderUntil: 1, Suspected: 1, PromotedAt: 1, Promoted: 1, InlineUntil: 1, UserAgent: "x", IP: "::1", Persist: record.PersistAlways}
	plain, err := c.Seal(full, identifier(1), wire.Mark{}, true, false, noon)
	must(t, err)
	h = &plain.Rec.Header
	if h.Generation != 0 || h.Presented != 0 || h.Rotated != 0 || h.OlderUntil != 0 || h.Suspected != 0 || h.PromotedAt != 0 || h.Promoted != 0 || h.InlineUntil != 0 || h.UserAgent != "" || h.IP != "" || h.Persist != record.PersistAlways {
		t.Errorf("kept %+v", h)
	}
}

func TestWhenASessionInACookieIsOver(t *testing.T) {
	for name, test := range map[string]struct {
		sealed time.Duration // before noon
		limits func(*rules.Limits)
		want   bool
	}{
		"now":                      {0, nil, false},
		"idle, at the last moment": {time.Hour, nil, false},
		"idle":                     {time.Hour + time.Millisecond, nil, true},
		"its lifetime":             {25 * time.Hour, func(l *rules.Limits) { l.Idle = -1 }, true},
		"configured shorter since": {30 * time.Minute, func(l *rules.Limits) { l.Lifetime = time.Minute }, true},
		"configured longer since":  {25 * time.Hour, func(l *rules.Limits) { l.Idle, l.Lifetime = -1, 900*time.Hour }, true},
	} {
		c := newCookies()
		var b browser
		b.put(t, c, "a=1", 1, nil, noon.Add(-test.sealed))
		if test.limits != nil {
			test.limits(c.Limits)
		}
		a := b.read(c)
		if (!a.HasInline) != test.want {
			t.Errorf("%s: %+v", name, a)
		}
		if test.want {
			wantRejected(t, name, a, fault.Expired)
		}
	}
}

func TestATimeInTheFutureIsMendedInACookie(t *testing.T) {
	mended := 0
	c := newCookies(func(o *Options) { o.Mended = func() { mended++ } })
	var b browser
	b.put(t, c, "a=1", 1, nil, noon.Add(300*24*time.Hour))
	a := b.read(c)
	if !a.HasInline || !a.Inline.Mended || mended != 1 || a.Inline.Rec.Header.Expires != noon.Add(24*time.Hour).UnixMilli() {
		t.Errorf("%+v", a.Inline)
	}
}

func TestALoginInACookieIsNotTakenWhereLoginsAreStored(t *testing.T) {
	only := newCookies(cookieOnly)
	r := rec("a=1")
	r.Header.User = "ada"
	in, err := only.Seal(r, identifier(1), wire.Mark{}, true, false, noon)
	must(t, err)
	var b browser
	j := Jar{c: only}
	j.SetInline(&in, time.Hour)
	b.see(t, &j)
	if a := b.read(only); !a.HasInline || a.Inline.Rec.Header.User != "ada" {
		t.Errorf("it is not taken at all: %+v", a)
	}
	a := b.read(newCookies())
	if wantRejected(t, "a login", a, errInlineLogin); a.HasInline {
		t.Error("it is taken")
	}
}

func TestTheNewestOfSeveralSessionsInCookies(t *testing.T) {
	c := newCookies()
	line := func(id byte, counter uint64, seen time.Duration) string {
		r := rec(fmt.Sprintf("n=%d.%d", id, counter))
		r.Header.Counter, r.Header.Created = counter-1, noon.Add(-time.Hour).UnixMilli()
		in, err := c.Seal(r, identifier(id), wire.Mark{}, true, false, noon.Add(seen))
		must(t, err)
		return stateName + "=" + in.value
	}
	for name, test := range map[string]struct {
		lines []string
		want  string
	}{
		"one session, the older first":      {[]string{line(1, 2, 0), line(1, 3, 0)}, "n=1.3"},
		"one session, the newer first":      {[]string{line(1, 3, 0), line(1, 2, 0)}, "n=1.3"},
		"the counter counts, not the clock": {[]string{line(1, 3, -9*time.Minute), line(1, 2, 0)}, "n=1.3"},
		"two, used at about the same time":  {[]string{line(1, 2, -rules.Skew), line(2, 9, 0)}, "n=1.2"},
		"two, the second surely later":      {[]string{line(1, 9, -rules.Skew-1*time.Millisecond), line(2, 2, 0)}, "n=2.2"},
	} {
		a := c.Read(http.Header{"Cookie": test.lines}, noon)
		if got := text(&a.Inline.Rec); got != test.want || !a.Jar.several {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func TestASessionThatIsTooLargeForItsCookie(t *testing.T) {
	for name, test := range map[string]struct {
		limits func(*rules.Limits)
		size   int
		ok     bool
	}{
		"small":          {func(*rules.Limits) {}, 100, true},
		"for the cookie": {func(l *rules.Limits) { l.InlineLimit = 500 }, 500, false},
		"for a session":  {func(l *rules.Limits) { l.MaxSize = 400 }, 500, false},
		"within both":    {func(l *rules.Limits) { l.MaxSize, l.InlineLimit = 700, 900 }, 500, true},
	} {
		c := newCookies()
		test.limits(c.Limits)
		_, err := c.Seal(rec("a="+strings.Repeat("x", test.size)), identifier(1), wire.Mark{}, true, false, noon)
		if (err == nil) != test.ok || err != nil && !errors.Is(err, fault.TooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A mark is not counted, because it is temporary.
	c := newCookies()
	in, err := c.Seal(rec("a=1"), identifier(1), wire.Mark{}, true, false, noon)
	must(t, err)
	c.Limits.InlineLimit = in.Size
	marked, err := c.Seal(rec("a=1"), identifier(1), wire.MarkOf([]string{"x"}), true, false, noon)
	if err != nil || marked.Size != in.Size {
		t.Errorf("with a mark: %v", err)
	}
}

func TestNumberedCookies(t *testing.T) {
	c := newCookies(cookieOnly)
	var b browser
	large := func(kib int) string { return "a=" + strings.Repeat("x", kib<<10) }
	names := func() (all []string) {
		for _, k := range b.cookies {
			all = append(all, k.name)
			if len(k.name)+len(k.value) > wire.MaxCookie {
				t.Errorf("%s has %d bytes", k.name, len(k.value))
			}
		}
		return all
	}
	var last *Inline
	for _, step := range []struct {
		kib     int
		cookies []string
	}{
		{9, []string{stateName, stateName + "-1", stateName + "-2", stateName + "-3"}},
		{5, []string{stateName, stateName + "-1"}},
		{1, []string{stateName}},
		{8, []string{stateName, stateName + "-1", stateName + "-2"}},
	} {
		last = b.put(t, c, large(step.kib), 1, last, noon)
		if got := names(); !slices.Equal(got, step.cookies) {
			t.Errorf("%d KiB: %q, want %q", step.kib, got, step.cookies)
		}
		a := b.read(c)
		wantRejected(t, fmt.Sprint(step.kib), a)
		total := 0
		for _, k := range b.cookies {
			total += len(k.name) + len(k.value)
		}
		if text(&a.Inline.Rec) != large(step.kib) || a.Inline.Size != total {
			t.Errorf("%d KiB: %d bytes of %d, counted %d", step.kib, len(text(&a.Inline.Rec)), len(large(step.kib)), a.Inline.Size)
		}
	}
	// A part that is missing, or an older one's.
	lost := browser{slices.Delete(slices.Clone(b.cookies), 1, 2)}
	a := lost.read(c)
	if wantRejected(t, "a part is lacking", a, wire.ErrFormat); a.HasInline {
		t.Error("it is read all the same")
	}
	a.Jar.Forget()
	wantSet(t, "a part is lacking", lost.see(t, &a.Jar), "-"+stateName, "-"+stateName+"-1", "-"+stateName+"-2")
	first := b.cookies[1].value
	b.put(t, c, large(8), 1, last, noon)
	mixed := browser{slices.Clone(b.cookies)}
	mixed.cookies[1].value = first
	if a := mixed.read(c); a.HasInline {
		t.Error("parts of two states are read as one")
	}
	// Several of a number: those that belong together are found.
	both := browser{append([]kept{{b.cookies[1].name, first, "; Path=/old"}}, b.cookies...)}
	if a := both.read(c); !a.HasInline || text(&a.Inline.Rec) != large(8) {
		t.Errorf("rejected %v", a.Rejected)
	}
	// Forget expires them all.
	j := b.read(c).Jar
	j.Forget()
	wantSet(t, "forget", b.see(t, &j), "-"+stateName, "-"+stateName+"-1", "-"+stateName+"-2")
	if _, err := c.Seal(rec(large(16)), identifier(1), wire.Mark{}, true, false, noon); !errors.Is(err, fault.TooLarge) {
		t.Errorf("more than fits into all: %v", err)
	}
}

func TestWhichHeadersHaveTheSameCookies(t *testing.T) {
	c := newCookies(func(o *Options) { o.Former = []Attributes{{Prefix: "__Secure-", Path: "/"}} })
	h := func(lines ...string) http.Header { return http.Header{"Cookie": lines} }
	for name, test := range map[string]struct {
		a, b http.Header
		want bool
	}{
		"none":                 {http.Header{}, nil, true},
		"equal":                {h(refName + "=a; x=1"), h(refName + "=a; x=1"), true},
		"others changed":       {h(refName + "=a; x=1"), h("y=2", refName+"=a"), true},
		"the reference":        {h(refName + "=a"), h(refName + "=b"), false},
		"the state":            {h(refName + "=a"), h(refName + "=a; " + stateName + "=x"), false},
		"a numbered one":       {h(stateName + "-1=a"), h(stateName + "-1=b"), false},
		"a former one":         {h("__Secure-session=a"), h("__Secure-session=b"), false},
		"gone":                 {h(refName + "=a"), h("x=1"), false},
		"another order":        {h(refName + "=a; " + refName + "=b"), h(refName + "=b; " + refName + "=a"), false},
		"a name that is alike": {h(refName + "2=a"), h(refName + "2=b"), true},
	} {
		if got := c.Same(test.a, test.b); got != test.want || c.Same(test.b, test.a) != got {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestForeignCookiesNeverTakeTheManagersNames(t *testing.T) {
	c := newCookies()
	j := Jar{c: c}
	j.SetForeign([]string{"old=1; Path=/", refName + "=evil; Path=/", stateName + "=evil", stateName + "-2=evil; Path=/", "old=2; Path=/"})
	h := http.Header{}
	j.Flush(h)
	if !slices.Equal(h["Set-Cookie"], []string{"old=2; Path=/"}) {
		t.Errorf("got %q", h["Set-Cookie"])
	}
}
