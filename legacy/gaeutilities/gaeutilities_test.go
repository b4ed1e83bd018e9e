package gaeutilities_test

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
	"github.com/sojourn-go/sojourn/legacy/gaeutilities"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

var (
	ctx    = context.Background()
	moment = time.Date(2014, 5, 14, 15, 6, 40, 0, time.UTC)
	key    = appengine.Key{App: "s~app", Path: []appengine.Element{{Kind: gaeutilities.Kind, ID: 77}}}
)

func token(hex string) string { return key.Encode() + "_" + strings.Repeat(hex, 32) }

// datastore holds one session.
type datastore struct {
	session appengine.Entity
	values  []appengine.Entity
	err     error
}

func (d *datastore) Session(_ context.Context, k appengine.Key) (appengine.Entity, error) {
	if d.err != nil {
		return nil, d.err
	}
	if d.session == nil || k.Encode() != key.Encode() {
		return nil, legacy.ErrNoEntry
	}
	return d.session, nil
}

func (d *datastore) Values(context.Context, appengine.Key) ([]appengine.Entity, error) {
	return d.values, d.err
}

func (d *datastore) Delete(_ context.Context, k appengine.Key) error {
	if d.err == nil && k.Encode() == key.Encode() {
		d.session, d.values = nil, nil
	}
	return d.err
}

// stored is a session with three tokens and a value.
func stored() *datastore {
	return &datastore{
		session: appengine.Entity{
			{Name: "sid", Value: []any{token("a"), token("b"), token("c")}},
			{Name: "last_activity", Value: moment},
			{Name: "deleted", Value: false},
		},
		values: []appengine.Entity{
			{{Name: "keyname", Value: "user"}, {Name: "content", Value: []byte("Vada\np0\n.")}, {Name: "deleted", Value: false}},
			{{Name: "keyname", Value: "gone"}, {Name: "content", Value: []byte("I1\n.")}, {Name: "deleted", Value: true}},
			{{Name: "keyname", Value: "note"}, {Name: "content", Value: nil}, {Name: "model", Value: key}},
		},
	}
}

func sessions(t testing.TB, c gaeutilities.Config) *gaeutilities.Sessions {
	t.Helper()
	f, err := gaeutilities.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func header(s string) http.Header { return http.Header{"Cookie": {s}} }

func TestEachOfTheThreeTokensOpensTheSession(t *testing.T) {
	f := sessions(t, gaeutilities.Config{Datastore: stored()})
	for _, hex := range []string{"a", "b", "c"} {
		s, err := f.Read(ctx, header("gaeutilities_session="+token(hex)), moment)
		if err != nil {
			t.Fatal(err)
		}
		if s.Data.Len() != 2 || s.Data.Get("user") != "ada" || s.ID != token("c") || string(s.Credential) != key.Encode() {
			t.Errorf("token %s: %s", hex, value.MarshalTagged(s.Data))
		}
		if got := s.Data.Get("note"); !value.Equal(got, value.Object{Class: value.EntityProto}) {
			t.Errorf("a model is %#v", got)
		}
	}
}

func TestATokenThatIsNotInTheListNeverOpensIt(t *testing.T) {
	for name, c := range map[string]struct {
		cookie string
		change func(*datastore)
		want   reason.Reason
	}{
		"a made-up one":        {token("d"), nil, reason.BadToken},
		"the key alone":        {key.Encode(), nil, reason.BadToken},
		"the key and nothing":  {key.Encode() + "_", nil, reason.BadToken},
		"no key":               {"x_" + strings.Repeat("a", 32), nil, reason.BadToken},
		"another kind":         {appengine.Key{App: "s~app", Path: []appengine.Element{{Kind: "User", ID: 77}}}.Encode() + "_aa", nil, reason.BadToken},
		"a child":              {appengine.Key{App: "s~app", Path: append(key.Path, key.Path...)}.Encode() + "_aa", nil, reason.BadToken},
		"an empty list":        {token("a"), func(d *datastore) { d.session[0].Value = nil }, reason.BadToken},
		"a session that ended": {token("a"), func(d *datastore) { d.session[2].Value = true }, reason.NotFound},
		"an unknown session":   {token("a"), func(d *datastore) { d.session = nil }, reason.NotFound},
		"no last activity":     {token("a"), func(d *datastore) { d.session[1].Value = nil }, reason.Decode},
		"a hostile value":      {token("a"), func(d *datastore) { d.values[0][1].Value = []byte("cos\nsystem\n.") }, reason.HostilePickle},
	} {
		d := stored()
		if c.change != nil {
			c.change(d)
		}
		f := sessions(t, gaeutilities.Config{Datastore: d})
		if _, err := f.Read(ctx, header("gaeutilities_session="+c.cookie), moment); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestExpiryCountsWholeDays(t *testing.T) {
	f := sessions(t, gaeutilities.Config{Datastore: stored(), ExpireTime: time.Hour})
	for _, c := range []struct {
		age  time.Duration
		want error
		due  bool
	}{
		{5 * time.Second, nil, false},
		{5*time.Second + time.Millisecond, nil, true},
		{time.Hour + 999*time.Millisecond, nil, true},
		{time.Hour + time.Second, reason.Expired, true},
		{24*time.Hour + time.Minute, reason.Expired, true},
	} {
		s, err := f.Read(ctx, header("gaeutilities_session="+token("a")), moment.Add(c.age))
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.age, err)
		}
		if err == nil && s.Detail.(*gaeutilities.Detail).RotationDue != c.due {
			t.Errorf("%s: rotation due is not %v", c.age, c.due)
		}
	}
}

func TestTheDataCookieIsNotBelievedUnlessAskedFor(t *testing.T) {
	request := header(`gaeutilities_session=` + token("a") + `; gaeutilities_session_data="{\"user\": \"root\"\054 \"extra\": 1}"`)
	s, err := sessions(t, gaeutilities.Config{Datastore: stored()}).Read(ctx, request, moment)
	if err != nil || s.Data.Get("user") != "ada" || s.Data.Get("extra") != nil {
		t.Errorf("by default: %v", err)
	}
	s, err = sessions(t, gaeutilities.Config{Datastore: stored(), TrustDataCookie: true}).Read(ctx, request, moment)
	if err != nil || s.Data.Get("user") != "root" || s.Data.Get("extra") != int64(1) {
		t.Errorf("trusted: %v", err)
	}
}

func TestEndingRemovesEverythingAndPythonsCopies(t *testing.T) {
	d, memcache := stored(), &legacytest.Memcache{}
	for _, kind := range []string{gaeutilities.Kind, gaeutilities.DataKind} {
		_ = memcache.Set(ctx, kind+"_"+key.Encode(), appengine.Item{Value: []byte("copy")})
	}
	f := sessions(t, gaeutilities.Config{Datastore: d, Memcache: memcache})
	s, err := f.Read(ctx, header("gaeutilities_session="+token("a")+`; appengine-utilities-flash="\"hi\""`), moment)
	if err != nil {
		t.Fatal(err)
	}
	if s.Detail.(*gaeutilities.Detail).Flash != "hi" {
		t.Errorf("flash %v", s.Detail.(*gaeutilities.Detail).Flash)
	}
	fields, err := f.End(ctx, s)
	if err != nil || len(fields) != 2 || memcache.Len() != 0 || d.session != nil {
		t.Errorf("%q, %v, %d in memcache", fields, err, memcache.Len())
	}
	if _, err := f.End(ctx, &legacy.Session{ID: "other", Credential: []byte("other")}); err == nil {
		t.Error("a foreign session was ended")
	}
}

func TestAStoreThatDoesNotAnswerIsNoRefusal(t *testing.T) {
	d := stored()
	f := sessions(t, gaeutilities.Config{Datastore: d})
	request := header("gaeutilities_session=" + token("a"))
	s, err := f.Read(ctx, request, moment)
	if err != nil {
		t.Fatal(err)
	}
	d.err = errors.New("down")
	if _, err := f.Read(ctx, request, moment); !errors.Is(err, d.err) || reason.Of(err) != "" {
		t.Errorf("reading: %v", err)
	}
	if _, err := f.End(ctx, s); !errors.Is(err, d.err) {
		t.Errorf("ending: %v", err)
	}
}

func TestMistakesInTheConfigurationAreReported(t *testing.T) {
	for _, c := range []gaeutilities.Config{{}, {Datastore: stored(), ExpireTime: -1}} {
		if _, err := gaeutilities.New(c); err == nil {
			t.Errorf("%+v is accepted", c)
		}
	}
}

func TestTheUnsignedCookieIsReadAndWritten(t *testing.T) {
	f := gaeutilities.NewUnsignedCookie("", cookies.Attributes{})
	d := value.NewDict()
	d.Set("theme", "dark; \"very\", é😀")
	d.Set("list", []any{int64(1), nil})
	fields, err := f.Write(ctx, &legacy.Session{Data: d}, moment)
	if err != nil || !strings.HasPrefix(fields[0], `gaeutilities_session_data="{\"theme\": \"dark\073 \\\"very\\\"\054 \\u00e9`) {
		t.Fatalf("%q, %v", fields, err)
	}
	s, err := f.Read(ctx, legacytest.Header(fields...), moment)
	if err != nil || !value.Equal(s.Data, d) {
		t.Errorf("read back: %v", err)
	}
	none, number, long := value.NewDict(), value.NewDict(), value.NewDict()
	none.Set("a", nil)
	_ = number.SetKey(int64(1), 1)
	long.Set("a", strings.Repeat("x", 4096))
	for want, bad := range map[error]*value.Dict{value.ErrUnsupported: none, legacy.ErrTooLarge: long} {
		if _, err := f.Write(ctx, &legacy.Session{Data: bad}, moment); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	if _, err := f.Write(ctx, &legacy.Session{Data: number}, moment); !errors.Is(err, value.ErrUnsupported) {
		t.Errorf("a number as a key: %v", err)
	}
	if fields, err := f.End(ctx, s); err != nil || !strings.HasPrefix(fields[0], "gaeutilities_session_data=; ") {
		t.Errorf("ending gives %q, %v", fields, err)
	}
}
