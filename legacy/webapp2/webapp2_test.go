package webapp2_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
)

var (
	ctx    = context.Background()
	secret = []byte("a secret of the old application")
	moment = time.Date(2014, 5, 13, 16, 53, 20, 500_000_000, time.UTC)
)

func format(t testing.TB, c webapp2.Config) *webapp2.Format {
	t.Helper()
	if c.Secret == nil {
		c.Secret = secret
	}
	f, err := webapp2.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func session(pairs ...any) *legacy.Session {
	d := value.NewDict()
	for i := 0; i < len(pairs); i += 2 {
		d.Set(pairs[i].(string), pairs[i+1])
	}
	return &legacy.Session{Data: d}
}

// write returns the header of the next request.
func write(t testing.TB, f *webapp2.Format, s *legacy.Session, now time.Time) http.Header {
	t.Helper()
	fields, err := f.Write(ctx, s, now)
	if err != nil {
		t.Fatal(err)
	}
	return legacytest.Header(fields...)
}

func TestEachBackEndKeepsASession(t *testing.T) {
	for _, c := range []struct {
		name             string
		backend          webapp2.Backend
		cached, entities int
	}{
		{"secure cookie", webapp2.SecureCookie, 0, 0},
		{"memcache", webapp2.Memcache, 1, 0},
		{"datastore", webapp2.Datastore, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			memcache, datastore := &legacytest.Memcache{}, &legacytest.Datastore{}
			f := format(t, webapp2.Config{Backend: c.backend, Memcache: memcache, Datastore: datastore, App: "s~app"})
			s := session("user", "ada", "n", 1)
			header := write(t, f, s, moment)
			if memcache.Len() != c.cached || datastore.Len() != c.entities {
				t.Errorf("%d in memcache, %d in the datastore", memcache.Len(), datastore.Len())
			}
			got, err := f.Read(ctx, header, moment)
			if err != nil {
				t.Fatal(err)
			}
			if got.Data.Get("user") != "ada" || got.ID != s.ID || string(got.Credential) != string(s.Credential) {
				t.Errorf("read %s", value.MarshalTagged(got.Data))
			}
			if !got.Issued.Equal(moment.Truncate(time.Second)) || !got.Expires.IsZero() {
				t.Errorf("issued %s, expires %s", got.Issued, got.Expires)
			}
			id := got.ID
			got.Data.Set("n", 2)
			header = write(t, f, got, moment)
			if got.ID != id {
				t.Error("the identifier changed")
			}
			fields, err := f.End(ctx, got)
			if err != nil || len(fields) != 1 || !strings.Contains(fields[0], "Expires=Thu, 01 Jan 1970") {
				t.Errorf("ending gives %q, %v", fields, err)
			}
			if memcache.Len() != 0 || datastore.Len() != 0 {
				t.Error("something is left")
			}
			if _, err := f.Read(ctx, header, moment); c.backend != webapp2.SecureCookie && !errors.Is(err, reason.NotFound) {
				t.Errorf("after the end: %v", err)
			}
		})
	}
}

func TestTheDatastoreBackEndRemovesNdbsOwnCopy(t *testing.T) {
	memcache, datastore := &legacytest.Memcache{}, &legacytest.Datastore{}
	f := format(t, webapp2.Config{Backend: webapp2.Datastore, Memcache: memcache, Datastore: datastore, App: "s~legacy-app"})
	s := session("a", 1)
	s.ID = "wSdoflOqmwfqFesxAq1XVi"
	copyKey := "NDB9:agxzfmxlZ2FjeS1hcHByIwsSB1Nlc3Npb24iFndTZG9mbE9xbXdmcUZlc3hBcTFYVmkM"
	for _, change := range []func() error{
		func() error { _, err := f.Write(ctx, s, moment); return err },
		func() error { _, err := f.End(ctx, s); return err },
	} {
		_ = memcache.Set(ctx, copyKey, appengine.Item{Value: []byte("stale")})
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if _, err := memcache.Get(ctx, copyKey); !errors.Is(err, legacy.ErrNoEntry) {
			t.Error("ndb's copy is still there")
		}
	}
}

func TestTheDatastoreBackEndIsNotWrittenWithoutApp(t *testing.T) {
	memcache, datastore := &legacytest.Memcache{}, &legacytest.Datastore{}
	f := format(t, webapp2.Config{Backend: webapp2.Datastore, Memcache: memcache, Datastore: datastore})
	if _, err := f.Write(ctx, session("a", 1), moment); err == nil {
		t.Error("written")
	}
	if memcache.Len()+datastore.Len() != 0 {
		t.Error("something was stored")
	}
}

func TestTheDatastoreCountsWhenMemcacheHasNothingOrAFalseValue(t *testing.T) {
	for _, cached := range []string{"", "\x80\x02N.", "\x80\x02}.", "\x80\x02K\x00.", "\x80\x02X\x00\x00\x00\x00.", "\x80\x02].", "\x80\x02\x89."} {
		memcache, datastore := &legacytest.Memcache{}, &legacytest.Datastore{}
		f := format(t, webapp2.Config{Backend: webapp2.Datastore, Memcache: memcache, Datastore: datastore, App: "s~app"})
		s := session("where", "datastore")
		header := write(t, f, s, moment)
		_ = memcache.Delete(ctx, s.ID)
		if cached != "" {
			_ = memcache.Set(ctx, s.ID, appengine.Item{Value: []byte(cached), Flags: appengine.FlagPickle})
		}
		got, err := f.Read(ctx, header, moment)
		if err != nil || got.Data.Get("where") != "datastore" {
			t.Errorf("memcache holds %q: %v", cached, err)
		}
	}
}

func TestMaxAgeCountsFromTheLastChange(t *testing.T) {
	f := format(t, webapp2.Config{MaxAge: time.Hour})
	header := write(t, f, session("a", 1), moment)
	last := moment.Truncate(time.Second).Add(time.Hour)
	got, err := f.Read(ctx, header, last.Add(999*time.Millisecond))
	if err != nil || !got.Expires.Equal(last) {
		t.Errorf("in the last second: %v", err)
	}
	if _, err := f.Read(ctx, header, last.Add(time.Second)); !errors.Is(err, reason.Expired) {
		t.Errorf("after it: %v", err)
	}
}

func TestAnyOfSeveralCookiesThatVerifiesIsTaken(t *testing.T) {
	f := format(t, webapp2.Config{})
	good := write(t, f, session("a", 1), moment).Get("Cookie")
	for _, header := range []string{good + "; session=x|1|y", "session=x|1|y; " + good, "session=; " + good} {
		if _, err := f.Read(ctx, http.Header{"Cookie": {header}}, moment); err != nil {
			t.Errorf("%v", err)
		}
	}
	// The reason is that of the last one, which is the one Python reads.
	_, err := f.Read(ctx, http.Header{"Cookie": {"session=a|1|b; session=nothing"}}, moment)
	if !errors.Is(err, reason.Malformed) {
		t.Errorf("got %v", err)
	}
}

func TestACookieForAnotherNameIsNotValid(t *testing.T) {
	a, b := format(t, webapp2.Config{Name: "a"}), format(t, webapp2.Config{Name: "b"})
	header := write(t, a, session("x", 1), moment)
	renamed := strings.Replace(header.Get("Cookie"), "a=", "b=", 1)
	if _, err := b.Read(ctx, http.Header{"Cookie": {renamed}}, moment); !errors.Is(err, reason.BadSignature) {
		t.Errorf("got %v", err)
	}
}

func TestWhatDoesNotFitIsNotWritten(t *testing.T) {
	memcache := &legacytest.Memcache{}
	inCookie := format(t, webapp2.Config{})
	inMemcache := format(t, webapp2.Config{Backend: webapp2.Memcache, Memcache: memcache})
	for _, c := range []struct {
		name string
		f    *webapp2.Format
		v    any
		want error
	}{
		{"a cookie too long for browsers", inCookie, strings.Repeat("x", 3100), legacy.ErrTooLarge},
		{"a date in JSON", inCookie, moment, value.ErrUnsupported},
		{"a megabyte", inMemcache, strings.Repeat("x", 1<<20), legacy.ErrTooLarge},
		{"a channel", inMemcache, make(chan int), value.ErrUnsupported},
	} {
		if _, err := c.f.Write(ctx, session("v", c.v), moment); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if memcache.Len() != 0 {
		t.Error("something was stored")
	}
	unlimited := format(t, webapp2.Config{CookieLimit: -1})
	if _, err := unlimited.Write(ctx, session("v", strings.Repeat("x", 3100)), moment); err != nil {
		t.Errorf("without a limit: %v", err)
	}
}

func TestTheCookieHasTheConfiguredAttributes(t *testing.T) {
	f := format(t, webapp2.Config{Cookie: cookies.Attributes{Path: "/app", MaxAge: 60, Secure: true, HTTPOnly: true}})
	fields, err := f.Write(ctx, session(), moment)
	if err != nil {
		t.Fatal(err)
	}
	if want := "; Expires=Tue, 13 May 2014 16:54:20 GMT; Max-Age=60; Path=/app; Secure; HttpOnly"; !strings.HasSuffix(fields[0], want) {
		t.Errorf("got %s", fields[0])
	}
}

func TestFlashesAreHandedOutOnceInEitherForm(t *testing.T) {
	for _, backend := range []webapp2.Backend{webapp2.SecureCookie, webapp2.Memcache} {
		f := format(t, webapp2.Config{Backend: backend, Memcache: &legacytest.Memcache{}})
		s := session()
		webapp2.AddFlash(s, "", webapp2.Flash{Value: "Saved"})
		webapp2.AddFlash(s, "", webapp2.Flash{Value: "Bad", Level: "error"})
		webapp2.AddFlash(s, "other", webapp2.Flash{Value: int64(5), Level: int64(1)})
		got, err := f.Read(ctx, write(t, f, s, moment), moment)
		if err != nil {
			t.Fatal(err)
		}
		flashes := webapp2.Flashes(got, "")
		if len(flashes) != 2 || flashes[0] != (webapp2.Flash{Value: "Saved"}) || flashes[1] != (webapp2.Flash{Value: "Bad", Level: "error"}) {
			t.Errorf("got %v", flashes)
		}
		if again := webapp2.Flashes(got, ""); again != nil {
			t.Errorf("again %v", again)
		}
		if other := webapp2.Flashes(got, "other"); len(other) != 1 || other[0].Level != int64(1) {
			t.Errorf("under another key %v", other)
		}
	}
}

func TestTheUserIsWhoWebapp2WouldBelieve(t *testing.T) {
	at := moment.Unix()
	ago := func(d time.Duration) int64 { return at - int64(d/time.Second) }
	tokens := &legacytest.Datastore{}
	put := func(name string, created time.Time) {
		_ = tokens.Put(ctx, "UserToken", name, appengine.Entity{{Name: "created", Value: created}})
	}
	put("42.auth.known", moment.Add(-2*24*time.Hour))
	put("42.auth.forgotten", moment.Add(-22*24*time.Hour))
	for _, c := range []struct {
		name  string
		user  any
		store appengine.Datastore
		want  string
	}{
		{"just looked up", []any{int64(42), int64(1), "t", ago(time.Hour), ago(59 * time.Minute)}, nil, "42"},
		{"text identifier", []any{"ada", int64(0), "t", ago(0), ago(0), "extra"}, nil, "ada"},
		{"looked up an hour ago", []any{int64(42), int64(1), "t", ago(time.Hour), ago(time.Hour)}, nil, ""},
		{"and the token exists", []any{int64(42), int64(1), "known", ago(2 * 24 * time.Hour), ago(time.Hour)}, tokens, "42"},
		{"and the token is gone", []any{int64(42), int64(1), "gone", ago(time.Hour), ago(time.Hour)}, tokens, ""},
		{"and the token is too old", []any{int64(42), int64(1), "forgotten", ago(time.Hour), ago(time.Hour)}, tokens, ""},
		{"the token is due for a new one", []any{int64(42), int64(1), "t", ago(25 * time.Hour), ago(0)}, nil, ""},
		{"the session says too old itself", []any{int64(42), int64(1), "known", ago(22 * 24 * time.Hour), ago(0)}, tokens, ""},
		{"too short", []any{int64(42), int64(1), "t", ago(0)}, nil, ""},
		{"no token", []any{int64(42), int64(1), "", ago(0), ago(0)}, nil, ""},
		{"times that are none", []any{int64(42), int64(1), "t", "x", nil}, nil, ""},
		{"not a list", "ada", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := format(t, webapp2.Config{Name: "auth", Auth: webapp2.Auth{Tokens: c.store}})
			got, err := f.Read(ctx, write(t, f, session("_user", c.user), moment), moment)
			if err != nil {
				t.Fatal(err)
			}
			if got.User != c.want {
				t.Errorf("user %q, want %q", got.User, c.want)
			}
		})
	}
}

func TestAStoreThatDoesNotAnswerIsNoRefusal(t *testing.T) {
	down := errors.New("down")
	memcache, datastore := &legacytest.Memcache{}, &legacytest.Datastore{}
	f := format(t, webapp2.Config{Name: "auth", Backend: webapp2.Datastore, Memcache: memcache, Datastore: datastore, App: "s~app", Auth: webapp2.Auth{Tokens: datastore}})
	s := session("_user", []any{int64(1), int64(0), "t", int64(0), int64(0)})
	header := write(t, f, s, moment)
	check := func(what string) {
		t.Helper()
		if _, err := f.Read(ctx, header, moment); !errors.Is(err, down) || reason.Of(err) != "" {
			t.Errorf("%s down: %v", what, err)
		}
	}
	memcache.Err = down
	check("memcache")
	memcache.Err = nil
	_ = memcache.Delete(ctx, s.ID)
	datastore.Err = down
	check("datastore")
	if _, err := f.Write(ctx, s, moment); !errors.Is(err, down) || memcache.Len() != 0 {
		t.Errorf("writing: %v, %d in memcache", err, memcache.Len())
	}
	if _, err := f.End(ctx, s); !errors.Is(err, down) {
		t.Errorf("ending: %v", err)
	}
}

func TestMistakesInTheConfigurationAreAllReported(t *testing.T) {
	_, err := webapp2.New(webapp2.Config{Backend: webapp2.Datastore, MaxAge: time.Millisecond})
	for _, want := range []string{"no Secret", "needs Memcache", "needs Datastore", "whole seconds"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if _, err := webapp2.New(webapp2.Config{Secret: secret, Backend: 7}); err == nil {
		t.Error("an unknown back end is accepted")
	}
}
