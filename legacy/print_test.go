package legacy_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/internal/test/printtest"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/gaesessions"
	"github.com/sojourn-go/sojourn/legacy/gaeutilities"
	"github.com/sojourn-go/sojourn/legacy/gorilla"
	"github.com/sojourn-go/sojourn/legacy/memcachevars"
	"github.com/sojourn-go/sojourn/legacy/share"
	"github.com/sojourn-go/sojourn/legacy/value"
	"github.com/sojourn-go/sojourn/legacy/vectors"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
)

// All secrets in these tests have this value: a signing key, a credential, a
// cookie, the content of a session.
const secret = "canary of 32 bytes, as keys are."

func silent(t *testing.T, values map[string]any, mayJSON ...string) {
	t.Helper()
	printtest.Silent(t, []printtest.Secret{{Name: "secret", Value: []byte(secret)}}, values, mayJSON...)
}

func TestSessionsOfOtherLibrariesPrintNoSecret(t *testing.T) {
	data := value.NewDict()
	data.Set("card", secret)
	user := webapp2.User{ID: "5", Token: secret, Attributes: []any{secret}}
	for name, detail := range map[string]any{
		"nothing":      nil,
		"beaker":       &beaker.Detail{Meta: data},
		"webapp2":      &webapp2.Detail{User: &user},
		"gaeutilities": &gaeutilities.Detail{Tokens: []string{secret}, Flash: secret, FromCookie: data, Key: appengine.Key{Path: []appengine.Element{{Kind: "K", Name: secret}}}},
		"memcachevars": &memcachevars.Detail{Stored: map[string]appengine.Item{"v": {Value: []byte(secret)}}},
	} {
		s := legacy.Session{ID: secret, Credential: []byte(secret), Data: data, Detail: detail}
		values := map[string]any{name: s, name + ", pointed to": &s}
		if detail != nil {
			values[name+", the detail"] = detail
		}
		silent(t, values)
	}
	entry := legacy.Entry{Value: []byte(secret)}
	cookie := cookies.Cookie{Name: "n", Raw: secret, Value: secret}
	key := appengine.Key{App: "a", Path: []appengine.Element{{Kind: "K", Name: secret}}}
	property := appengine.Property{Name: "p", Value: secret}
	silent(t, map[string]any{
		"an entry": entry, "a pointer to it": &entry, "a cookie": cookie, "a pointer to that": &cookie, "cookies": []cookies.Cookie{cookie},
		"a datastore key": key, "its path": key.Path[0], "a property": property, "an entity": appengine.Entity{property}, "a user": user,
	})
}

func TestConfigurationsOfOtherLibrariesPrintNoKey(t *testing.T) {
	k := []byte(secret)
	pair := gorilla.KeyPair{Hash: k, Block: k}
	gorillaConfig := gorilla.Config{Name: "app", Keys: []gorilla.KeyPair{pair}}
	gorillaFormat, err := gorilla.New(gorillaConfig)
	if err != nil {
		t.Fatal(err)
	}
	beakerConfig := beaker.Config{ValidateKey: k, EncryptKey: k, Secret: nil}
	beakerFormat, err := beaker.New(beakerConfig)
	if err != nil {
		t.Fatal(err)
	}
	beakerConfig.Secret = k
	webapp2Config := webapp2.Config{Secret: k}
	webapp2Format, err := webapp2.New(webapp2Config)
	if err != nil {
		t.Fatal(err)
	}
	gaeConfig := gaesessions.Config{Key: k}
	gaeFormat, err := gaesessions.New(gaeConfig)
	if err != nil {
		t.Fatal(err)
	}
	silent(t, map[string]any{
		"pair": pair, "gorilla": gorillaConfig, "gorilla's pointer": &gorillaConfig, "gorilla's format": gorillaFormat,
		"beaker": beakerConfig, "beaker's pointer": &beakerConfig, "beaker's format": beakerFormat,
		"webapp2": webapp2Config, "webapp2's pointer": &webapp2Config, "webapp2's format": webapp2Format,
		"gae-sessions": gaeConfig, "gae-sessions' pointer": &gaeConfig, "gae-sessions' format": gaeFormat,
		"formats": []legacy.Format{gorillaFormat, beakerFormat, webapp2Format, gaeFormat},
	})
}

func TestASharedSessionPrintsNoCookie(t *testing.T) {
	format, err := webapp2.New(webapp2.Config{Secret: []byte("a key")})
	if err != nil {
		t.Fatal(err)
	}
	s := &legacy.Session{Data: value.NewDict()}
	s.Data.Set("card", secret)
	fields, err := format.Write(t.Context(), s, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	set, err := http.ParseSetCookie(fields[0])
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := share.New(share.Config{Format: format})
	if err != nil {
		t.Fatal(err)
	}
	shared, err := sessions.Open(t.Context(), http.Header{"Cookie": {set.Name + "=" + set.Value}})
	if err != nil || shared.IsNew() {
		t.Fatalf("the session is not read: %v", err)
	}
	printtest.Silent(t, []printtest.Secret{{Name: "value", Value: []byte(secret)}, {Name: "cookie", Value: []byte(set.Value)}},
		map[string]any{"a shared session": shared, "all of them": sessions})
}

func TestAGuardPrintsNoKey(t *testing.T) {
	ctx := legacy.Guarded(t.Context())
	g := legacy.GuardOf(ctx)
	g.SawEntry("store", secret, legacy.Entry{Value: []byte(secret)}, true)
	silent(t, map[string]any{"a guard": g, "its context": ctx})
}

func TestRecordedSessionsPrintNothingOfThem(t *testing.T) {
	text := secret
	c := vectors.Case{
		Name: "n", Config: []byte(`"` + secret + `"`), CookieHeader: &text, SetCookie: []string{secret},
		Storage: []vectors.Entry{{Key: secret, Value: []byte(secret), Properties: map[string]vectors.Property{"p": {Value: secret}}}},
		Expect:  vectors.Expectation{Data: []byte(`"` + secret + `"`), SID: &text},
	}
	written := vectors.Written{Name: "n", SetCookie: []string{secret}}
	values := map[string]any{"case": c, "pointer": &c, "entry": c.Storage[0], "expectation": c.Expect, "file": vectors.File{Cases: []vectors.Case{c}}, "written": written}
	silent(t, values, "case", "pointer", "entry", "expectation", "file", "written")
}
