package memcachevars_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/memcachevars"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

var (
	ctx    = context.Background()
	moment = time.Date(2014, 5, 14, 18, 0, 0, 0, time.UTC)
)

const id = "ec563f49-cf1e-42f4-920a-765a9ac6b6af"

func format(t testing.TB, memcache appengine.Memcache, names ...string) *memcachevars.Format {
	t.Helper()
	f, err := memcachevars.New(memcachevars.Config{Names: names, Memcache: memcache})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func header(cookie string) http.Header { return http.Header{"Cookie": {cookie}} }

// counting counts what is written under each key.
type counting struct {
	*legacytest.Memcache
	sets, deletes []string
}

func (c *counting) Set(ctx context.Context, key string, item appengine.Item) error {
	c.sets = append(c.sets, key)
	return c.Memcache.Set(ctx, key, item)
}

func (c *counting) Delete(ctx context.Context, key string) error {
	c.deletes = append(c.deletes, key)
	return c.Memcache.Delete(ctx, key)
}

func TestOnlyWhatChangedIsWritten(t *testing.T) {
	memcache := &counting{Memcache: &legacytest.Memcache{}}
	f := format(t, memcache, "name", "list", "n", "old", "new")
	// As Python 2 stored them: text as bytes, a list with a pickle of its own.
	for name, item := range map[string]appengine.Item{
		"name": {Value: []byte("ada"), Flags: appengine.FlagBytes},
		"list": {Value: []byte("\x80\x02]q\x01(K\x01K\x02e."), Flags: appengine.FlagPickle},
		"n":    {Value: []byte("1"), Flags: appengine.FlagInt},
		"old":  {Value: []byte("1"), Flags: appengine.FlagBool},
	} {
		_ = memcache.Memcache.Set(ctx, id+"-"+name, item)
	}
	s, err := f.Read(ctx, header("gaesessid="+id), moment)
	if err != nil || s.Data.Len() != 4 || s.ID != id {
		t.Fatalf("%v, %v", s, err)
	}
	s.Data.Set("n", 2)
	s.Data.Set("new", 1.5)
	s.Data.Delete("old")
	fields, err := f.Write(ctx, s, moment)
	if err != nil || fields != nil {
		t.Errorf("%q, %v", fields, err)
	}
	if got := strings.Join(memcache.sets, " "); got != id+"-n "+id+"-new" {
		t.Errorf("set %s", got)
	}
	if got := strings.Join(memcache.deletes, " "); got != id+"-old" {
		t.Errorf("deleted %s", got)
	}
	item, _ := memcache.Get(ctx, id+"-n")
	if string(item.Value) != "2" || item.Flags != appengine.FlagInt || !item.Expires.Equal(moment.Add(24*time.Hour)) {
		t.Errorf("stored %+v", item)
	}
	// A value that was changed in place is detected, and a second Write starts
	// from the first one's state.
	memcache.sets = nil
	s.Data.Get("list").([]any)[0] = int64(7)
	if _, err := f.Write(ctx, s, moment); err != nil || strings.Join(memcache.sets, " ") != id+"-list" {
		t.Errorf("set %q, %v", memcache.sets, err)
	}
}

func TestANewSessionGetsAnIdentifierAndACookie(t *testing.T) {
	memcache := &legacytest.Memcache{}
	f := format(t, memcache, "a", "b")
	d := value.NewDict()
	d.Set("a", "x")
	d.Set("b", nil) // indistinguishable from absent
	s := &legacy.Session{Data: d}
	fields, err := f.Write(ctx, s, moment)
	if err != nil || len(fields) != 1 || !memcachevars.StandardID(s.ID) || memcache.Len() != 1 {
		t.Fatalf("%q, %q, %v", fields, s.ID, err)
	}
	got, err := f.Read(ctx, legacytest.Header(fields...), moment)
	if err != nil || got.Data.Get("a") != "x" {
		t.Errorf("read back: %v", err)
	}
	fields, err = f.End(ctx, got)
	if err != nil || len(fields) != 1 || memcache.Len() != 0 {
		t.Errorf("ending gives %q, %v", fields, err)
	}
	if _, err := f.Read(ctx, header("gaesessid="+s.ID), moment); !errors.Is(err, reason.NotFound) {
		t.Errorf("after the end: %v", err)
	}
}

func TestIdentifiersOfAnotherFormReachNothing(t *testing.T) {
	memcache := &legacytest.Memcache{Store: legacytest.Store{Err: errors.New("asked")}}
	f := format(t, memcache, "token")
	for cookie, want := range map[string]reason.Reason{
		id + "-b":                        reason.AmbiguousKey,
		"abcdefghijklmnopqrst-b":         reason.AmbiguousKey,
		"abcdefghijklmnopqrst-b-c":       reason.AmbiguousKey,
		id[:35]:                          reason.NotFound,
		id + "0":                         reason.NotFound,
		strings.Replace(id, "e", "x", 1): reason.NotFound,
		"short":                          reason.NotFound,
		"with space and more of it":      reason.NotFound,
		strings.Repeat("a", 129):         reason.NotFound,
	} {
		if _, err := f.Read(ctx, header("gaesessid="+cookie), moment); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %s", cookie, err, want)
		}
		s := &legacy.Session{ID: cookie, Data: value.NewDict()}
		if _, err := f.Write(ctx, s, moment); !errors.Is(err, reason.BadSID) {
			t.Errorf("writing %q: %v", cookie, err)
		}
		if _, err := f.End(ctx, s); err != nil {
			t.Errorf("ending %q: %v", cookie, err)
		}
	}
}

func TestTheApplicationKnowsItsIdentifiers(t *testing.T) {
	memcache := &legacytest.Memcache{}
	f, err := memcachevars.New(memcachevars.Config{
		Names: []string{"a"}, Memcache: memcache, CookieName: "sid", Expiry: -1,
		ValidID: func(id string) bool { return len(id) == 4 },
	})
	if err != nil {
		t.Fatal(err)
	}
	d := value.NewDict()
	d.Set("a", 1)
	if _, err := f.Write(ctx, &legacy.Session{ID: "abcd", Data: d}, moment); err != nil {
		t.Fatal(err)
	}
	if item, _ := memcache.Get(ctx, "abcd-a"); !item.Expires.IsZero() {
		t.Errorf("expires %s", item.Expires)
	}
	if _, err := f.Read(ctx, header("sid=abcd"), moment); err != nil {
		t.Error(err)
	}
	if _, err := f.Read(ctx, header("sid=abcd-x"), moment); !errors.Is(err, reason.AmbiguousKey) {
		t.Errorf("got %v", err)
	}
}

func TestNothingIsStoredWhenOneVariableCannotBe(t *testing.T) {
	memcache := &legacytest.Memcache{}
	f := format(t, memcache, "a", "b")
	for name, c := range map[string]struct {
		key  any
		v    any
		want error
	}{
		"a channel":           {"b", make(chan int), value.ErrUnsupported},
		"a megabyte":          {"b", strings.Repeat("x", 1<<20), legacy.ErrTooLarge},
		"a name not declared": {"c", 1, value.ErrUnsupported},
		"a name that is none": {int64(5), 1, value.ErrUnsupported},
	} {
		d := value.NewDict()
		d.Set("a", 1)
		_ = d.SetKey(c.key, c.v)
		if _, err := f.Write(ctx, &legacy.Session{ID: id, Data: d}, moment); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if memcache.Len() != 0 {
		t.Error("something was stored")
	}
}

func TestAStoreThatDoesNotAnswerIsNoRefusal(t *testing.T) {
	memcache := &legacytest.Memcache{}
	memcache.Err = errors.New("down")
	f := format(t, memcache, "a")
	if _, err := f.Read(ctx, header("gaesessid="+id), moment); !errors.Is(err, memcache.Err) || reason.Of(err) != "" {
		t.Errorf("reading: %v", err)
	}
	d := value.NewDict()
	d.Set("a", 1)
	if _, err := f.Write(ctx, &legacy.Session{ID: id, Data: d}, moment); !errors.Is(err, memcache.Err) {
		t.Errorf("writing: %v", err)
	}
	if _, err := f.End(ctx, &legacy.Session{ID: id}); !errors.Is(err, memcache.Err) {
		t.Errorf("ending: %v", err)
	}
}

func TestMistakesInTheConfigurationAreReported(t *testing.T) {
	for _, c := range []memcachevars.Config{{Names: []string{"a"}}, {Memcache: &legacytest.Memcache{}}} {
		if _, err := memcachevars.New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestASessionKnownByItsIdentifierAloneIsReplacedAsAWhole(t *testing.T) {
	memcache := &legacytest.Memcache{}
	f, err := memcachevars.New(memcachevars.Config{Names: []string{"a", "b"}, Memcache: memcache})
	if err != nil {
		t.Fatal(err)
	}
	s := &legacy.Session{Data: value.NewDict()}
	s.Data.Set("a", int64(1))
	s.Data.Set("b", int64(2))
	if _, err := f.Write(context.Background(), s, time.Now()); err != nil {
		t.Fatal(err)
	}
	again := &legacy.Session{ID: s.ID, Data: value.NewDict()}
	again.Data.Set("b", int64(3))
	if _, err := f.Write(context.Background(), again, time.Now()); err != nil || memcache.Len() != 1 {
		t.Errorf("%d variables, %v", memcache.Len(), err)
	}
}

func TestBytesOfPython3StayBytes(t *testing.T) {
	const id = "0123456789abcdef"
	for _, python3 := range []bool{true, false} {
		var m legacytest.Memcache
		f, err := memcachevars.New(memcachevars.Config{Names: []string{"raw", "text", "n"}, Memcache: &m, Python3: python3})
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		_ = m.Set(ctx, id+"-raw", appengine.Item{Value: []byte("abc"), Flags: appengine.FlagBytes})
		_ = m.Set(ctx, id+"-text", appengine.Item{Value: []byte("abc"), Flags: appengine.FlagText})
		s, err := f.Read(ctx, http.Header{"Cookie": {"gaesessid=" + id}}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		want := any("abc")
		if python3 {
			want = []byte("abc")
		}
		if !value.Equal(s.Data.Get("raw"), want) || s.Data.Get("text") != "abc" {
			t.Errorf("Python 3 is %v: %s", python3, value.MarshalTagged(s.Data))
		}
		// Unchanged values are not stored again, and changed ones in their new type.
		s.Data.Set("n", []byte("xyz"))
		if _, err := f.Write(ctx, s, time.Now()); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]uint32{"raw": appengine.FlagBytes, "text": appengine.FlagText, "n": appengine.FlagBytes} {
			if item, err := m.Get(ctx, id+"-"+name); err != nil || item.Flags != want {
				t.Errorf("%s has flags %d, %v", name, item.Flags, err)
			}
		}
	}
}
