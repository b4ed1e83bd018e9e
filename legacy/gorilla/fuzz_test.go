package gorilla_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"net/http"
	"strings"
	"testing"

	"github.com/gorilla/securecookie"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/gorilla"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// FuzzReadNeverPanics reads cookie headers, and bytes that the real library has
// signed or that are in its store.
func FuzzReadNeverPanics(f *testing.F) {
	store := &legacytest.Store{}
	configured := func(c gorilla.Config) *gorilla.Format {
		c.Name, c.Store, c.MaxAge, c.MaxLength = "app", store, -1, -1
		format, err := gorilla.New(c)
		if err != nil {
			f.Fatal(err)
		}
		return format
	}
	signs, encrypts := []gorilla.KeyPair{{Hash: hashKey}}, []gorilla.KeyPair{{Hash: hashKey, Block: blockKey}}
	signed, encrypted := configured(gorilla.Config{Keys: signs}), configured(gorilla.Config{Keys: encrypts})
	inRedis := configured(gorilla.Config{Keys: signs, Backend: gorilla.RedisStore})
	inJSON := configured(gorilla.Config{Keys: signs, Backend: gorilla.RedisStore, JSONValues: true})

	seal := func(t testing.TB, block, payload []byte) string {
		text, err := securecookie.New(hashKey, block).MaxLength(0).SetSerializer(securecookie.NopEncoder{}).Encode("app", payload)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	var small bytes.Buffer
	for _, m := range []map[any]any{{}, {"a": 1}, values()} {
		var b bytes.Buffer
		if err := gob.NewEncoder(&b).Encode(m); err != nil {
			f.Fatal(err)
		}
		f.Add("app="+legacytest.Genuine, b.Bytes())
		if len(m) == 1 {
			small = b
		}
	}
	f.Add(`app="x"; app=`+legacytest.Genuine, []byte(`{"a":[1]}`))
	genuine := seal(f, nil, small.Bytes())
	named := &legacy.Session{Data: value.NewDict()}
	fields, err := inRedis.Write(context.Background(), named, moment)
	if err != nil {
		f.Fatal(err)
	}
	name := legacytest.Header(fields...)

	f.Fuzz(func(t *testing.T, header string, stored []byte) {
		read := func(format legacy.Format, header http.Header) {
			t.Helper()
			if s := legacytest.Read(t, format, header, moment, len(stored)); s != nil {
				legacytest.Rewrite(t, format, header, s, moment)
			}
		}
		if s := legacytest.Read(t, signed, legacytest.With(header, genuine), moment, len(header)); s != nil && !strings.Contains(header, legacytest.Genuine) {
			t.Errorf("%q was not signed", header)
		}
		read(signed, http.Header{"Cookie": {"app=" + seal(t, nil, stored)}})
		read(encrypted, http.Header{"Cookie": {"app=" + seal(t, blockKey, stored)}})
		_ = store.Set(context.Background(), "session_"+named.ID, legacy.Entry{Value: stored})
		read(inRedis, name)
		_ = store.Set(context.Background(), "session_"+named.ID, legacy.Entry{Value: stored})
		read(inJSON, name)
	})
}
