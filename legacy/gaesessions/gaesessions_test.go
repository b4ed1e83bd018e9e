package gaesessions_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/gaesessions"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

var (
	ctx    = context.Background()
	key    = []byte("\x00\xffa key of the old application, 32 bytes or more")
	moment = time.Date(2014, 5, 13, 16, 53, 20, 0, time.UTC)
)

func format(t testing.TB, c gaesessions.Config) *gaesessions.Format {
	t.Helper()
	c.Key = key
	f, err := gaesessions.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func session(name string, v any) *legacy.Session {
	d := value.NewDict()
	d.Set(name, v)
	return &legacy.Session{Data: d}
}

func write(t testing.TB, f *gaesessions.Format, s *legacy.Session) []string {
	t.Helper()
	fields, err := f.Write(ctx, s, moment)
	if err != nil {
		t.Fatal(err)
	}
	return fields
}

func TestDataGoesWhereItFits(t *testing.T) {
	for _, c := range []struct {
		name              string
		size              int
		config            gaesessions.Config
		pieces            int
		cached, persisted int
	}{
		{"small", 10, gaesessions.Config{}, 1, 0, 0},
		{"three pieces", 7000, gaesessions.Config{}, 3, 0, 0},
		{"over the threshold", 8000, gaesessions.Config{}, 1, 1, 1},
		{"nothing in cookies", 10, gaesessions.Config{CookieOnlyThreshold: -1}, 1, 1, 1},
		{"no datastore", 8000, gaesessions.Config{NoDatastore: true}, 1, 1, 0},
		{"a higher threshold", 30_000, gaesessions.Config{CookieOnlyThreshold: 100_000}, 11, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			memcache, datastore := &legacytest.Memcache{}, &legacytest.Datastore{}
			c.config.Memcache, c.config.Datastore = memcache, datastore
			f := format(t, c.config)
			s := session("blob", strings.Repeat("x", c.size))
			fields := write(t, f, s)
			if len(fields) != c.pieces || memcache.Len() != c.cached || datastore.Len() != c.persisted {
				t.Errorf("%d cookies, %d in memcache, %d in the datastore", len(fields), memcache.Len(), datastore.Len())
			}
			for _, field := range fields {
				if len(field) > 4096 {
					t.Errorf("a field of %d bytes", len(field))
				}
			}
			got, err := f.Read(ctx, legacytest.Header(fields...), moment)
			if err != nil {
				t.Fatal(err)
			}
			if !value.Equal(got.Data, s.Data) || got.ID != s.ID || got.Detail.(*gaesessions.Detail).InCookies != (c.cached == 0) {
				t.Errorf("read %d values, %+v", got.Data.Len(), got.Detail)
			}
			if c.cached > 0 {
				item, _ := memcache.Get(ctx, s.ID)
				if item.Flags != 0 || !item.Expires.Equal(s.Expires) {
					t.Errorf("flags %d, expires %s", item.Flags, item.Expires)
				}
			}
			fields, err = f.End(ctx, got)
			if err != nil || len(fields) != c.pieces || memcache.Len()+datastore.Len() != 0 {
				t.Errorf("ending gives %d fields and leaves %d entries: %v", len(fields), memcache.Len()+datastore.Len(), err)
			}
		})
	}
}

func TestLeftOverPiecesAreRemovedAndHarmless(t *testing.T) {
	f := format(t, gaesessions.Config{})
	long := legacytest.Header(write(t, f, session("blob", strings.Repeat("x", 7000)))...)
	s, err := f.Read(ctx, long, moment)
	if err != nil {
		t.Fatal(err)
	}
	s.Data.Set("blob", "xyz")
	fields := write(t, f, s)
	if len(fields) != 3 || !strings.HasPrefix(fields[1], "DgU01=; ") || !strings.HasPrefix(fields[2], "DgU02=; ") {
		t.Errorf("got %q", fields)
	}
	// The browser lost the removal of the second piece. The first one's base64
	// is padded, so what follows it does not count.
	if !strings.Contains(fields[0], `="; expires`) && !strings.Contains(fields[0], `="; Expires`) {
		t.Fatalf("the payload is not padded: %s", fields[0])
	}
	header := http.Header{"Cookie": {legacytest.Header(fields[0]).Get("Cookie") + `; DgU01="QUJD"`}}
	if got, err := f.Read(ctx, header, moment); err != nil || got.Data.Get("blob") != "xyz" {
		t.Errorf("with a left-over piece: %v", err)
	}
}

func TestTheIdentifierHoldsExpiryAndFlag(t *testing.T) {
	for _, c := range []struct {
		config  gaesessions.Config
		prefix  string
		expires time.Time
		secure  bool
	}{
		{gaesessions.Config{}, "1400604800_", moment.Add(7 * 24 * time.Hour), false},
		{gaesessions.Config{Lifetime: time.Hour, SSLOnly: true}, "1400003600S", moment.Add(time.Hour), true},
		{gaesessions.Config{Lifetime: -1}, "0000000000_", time.Time{}, false},
	} {
		f := format(t, c.config)
		s := session("a", 1)
		fields := write(t, f, s)
		if !strings.HasPrefix(s.ID, c.prefix) || len(s.ID) != 43 {
			t.Errorf("identifier %s, want %s…", s.ID, c.prefix)
		}
		if strings.Contains(fields[0], "; Secure") != c.secure || strings.Contains(fields[0], "Expires=") == c.expires.IsZero() {
			t.Errorf("field %s", fields[0])
		}
		got, err := f.Read(ctx, legacytest.Header(fields...), c.expires)
		if err != nil {
			t.Fatal(err)
		}
		if !got.Expires.Equal(c.expires) || got.Detail.(*gaesessions.Detail).SSLOnly != c.secure {
			t.Errorf("expires %s, %+v", got.Expires, got.Detail)
		}
		if c.expires.IsZero() {
			continue
		}
		if _, err := f.Read(ctx, legacytest.Header(fields...), c.expires.Add(time.Millisecond)); !errors.Is(err, reason.Expired) {
			t.Errorf("after the last second: %v", err)
		}
		// A change keeps the time of expiry.
		later := got.ID
		if _, err := f.Write(ctx, got, moment.Add(time.Minute)); err != nil || got.ID != later {
			t.Errorf("a change makes %s of %s: %v", got.ID, later, err)
		}
	}
}

func TestMemcacheIsNewerThanTheDatastore(t *testing.T) {
	memcache, datastore := &legacytest.Memcache{}, &legacytest.Datastore{}
	f := format(t, gaesessions.Config{Memcache: memcache, Datastore: datastore, CookieOnlyThreshold: -1})
	s := session("where", "datastore")
	header := legacytest.Header(write(t, f, s)...)
	quick := session("where", "memcache")
	quick.ID = s.ID
	onlyMemcache := format(t, gaesessions.Config{Memcache: memcache, CookieOnlyThreshold: -1})
	write(t, onlyMemcache, quick)
	for _, want := range []string{"memcache", "datastore"} {
		got, err := f.Read(ctx, header, moment)
		if err != nil || got.Data.Get("where") != want {
			t.Errorf("got %v, want %s", err, want)
		}
		_ = memcache.Delete(ctx, s.ID)
	}
}

func TestModelValuesTravelBesideTheOthers(t *testing.T) {
	f := format(t, gaesessions.Config{})
	s := session("n", int64(1))
	s.Data.Set("note", value.Object{Class: value.EntityProto, State: []byte{1, 2, 255}})
	got, err := f.Read(ctx, legacytest.Header(write(t, f, s)...), moment)
	if err != nil || !value.Equal(got.Data, s.Data) {
		t.Errorf("read %v", err)
	}
}

func TestOfTwoCookiesOfANameEitherMayBeTheGenuineOne(t *testing.T) {
	f := format(t, gaesessions.Config{})
	good := legacytest.Header(write(t, f, session("a", 1))...).Get("Cookie")
	for _, header := range []string{good + "; DgU00=planted", "DgU00=planted; " + good} {
		if _, err := f.Read(ctx, http.Header{"Cookie": {header}}, moment); err != nil {
			t.Errorf("%v", err)
		}
	}
}

func TestWhatDoesNotFitIsNotWritten(t *testing.T) {
	memcache := &legacytest.Memcache{}
	f := format(t, gaesessions.Config{Memcache: memcache})
	bare := format(t, gaesessions.Config{})
	for _, c := range []struct {
		name string
		f    *gaesessions.Format
		v    any
		want error
	}{
		{"over a megabyte", f, strings.Repeat("x", 1<<20), legacy.ErrTooLarge},
		{"over the threshold without stores", bare, strings.Repeat("x", 8000), legacy.ErrTooLarge},
		{"a channel", f, make(chan int), value.ErrUnsupported},
	} {
		if _, err := c.f.Write(ctx, session("v", c.v), moment); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	bad := session("a", 1)
	bad.ID = "not an identifier"
	if _, err := f.Write(ctx, bad, moment); !errors.Is(err, reason.BadSID) {
		t.Errorf("a bad identifier: %v", err)
	}
	if memcache.Len() != 0 {
		t.Error("something was stored")
	}
}

func TestAStoreThatDoesNotAnswerIsNoRefusal(t *testing.T) {
	down := errors.New("down")
	memcache, datastore := &legacytest.Memcache{}, &legacytest.Datastore{}
	f := format(t, gaesessions.Config{Memcache: memcache, Datastore: datastore, CookieOnlyThreshold: -1})
	s := session("a", 1)
	header := legacytest.Header(write(t, f, s)...)
	memcache.Err = down
	if _, err := f.Read(ctx, header, moment); !errors.Is(err, down) || reason.Of(err) != "" {
		t.Errorf("memcache down: %v", err)
	}
	memcache.Err = nil
	_ = memcache.Delete(ctx, s.ID)
	datastore.Err = down
	if _, err := f.Read(ctx, header, moment); !errors.Is(err, down) || reason.Of(err) != "" {
		t.Errorf("datastore down: %v", err)
	}
	if _, err := f.Write(ctx, s, moment); !errors.Is(err, down) || memcache.Len() != 0 {
		t.Errorf("writing: %v", err)
	}
	if _, err := f.End(ctx, s); !errors.Is(err, down) {
		t.Errorf("ending: %v", err)
	}
}

func TestAShortKeyIsRefused(t *testing.T) {
	if _, err := gaesessions.New(gaesessions.Config{Key: make([]byte, 31)}); err == nil {
		t.Error("31 bytes are accepted")
	}
}

// names is a datastore of nothing but names.
type names struct {
	all []string
	err error
}

func (n *names) NamesBetween(_ context.Context, kind, from, to string, limit int) ([]string, error) {
	var out []string
	slices.Sort(n.all)
	for _, name := range n.all {
		if kind == gaesessions.Kind && name >= from && name < to && len(out) < limit {
			out = append(out, name)
		}
	}
	return out, n.err
}

func (n *names) DeleteNames(_ context.Context, _ string, names []string) error {
	n.all = slices.DeleteFunc(n.all, func(s string) bool { return slices.Contains(names, s) })
	return n.err
}

func TestCleanUpSparesWhatTheOldOneTakesWrongly(t *testing.T) {
	raw, err := os.ReadFile("../testdata/gae_sessions.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cleanup []struct {
			Now            int64
			Before, After_ []string
			Deleted        []string
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil || len(file.Cleanup) != 1 {
		t.Fatal(err)
	}
	recorded := file.Cleanup[0]
	store := &names{all: slices.Clone(recorded.Before)}
	n, err := gaesessions.Cleanup(ctx, store, time.Unix(recorded.Now, 0))
	if err != nil {
		t.Fatal(err)
	}
	var wrongly int
	for _, name := range recorded.Deleted {
		never, thisSecond := strings.HasPrefix(name, "0000000000"), strings.HasPrefix(name, "1400000777")
		if gone := !slices.Contains(store.all, name); gone == (never || thisSecond) {
			t.Errorf("%s is gone: %v", name, gone)
		}
		if never || thisSecond {
			wrongly++
		}
	}
	if n != len(recorded.Deleted)-wrongly || wrongly != 2 {
		t.Errorf("%d removed, %d spared", n, wrongly)
	}
	if n, err := gaesessions.Cleanup(ctx, store, time.Unix(recorded.Now, 0)); n != 0 || err != nil {
		t.Errorf("again %d, %v", n, err)
	}
}

func TestCleanUpReportsWhatFails(t *testing.T) {
	down := errors.New("down")
	if _, err := gaesessions.Cleanup(ctx, &names{err: down}, moment); !errors.Is(err, down) {
		t.Errorf("got %v", err)
	}
}
