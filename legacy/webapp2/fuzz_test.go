package webapp2_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
)

// FuzzRead reads cookie headers, signed payloads and what is in memcache or the
// datastore.
func FuzzRead(f *testing.F) {
	memcache, datastore := &legacytest.Memcache{}, &legacytest.Datastore{}
	inCookie := format(f, webapp2.Config{MaxAge: time.Hour})
	cached := format(f, webapp2.Config{Backend: webapp2.Memcache, Memcache: memcache})
	stored := format(f, webapp2.Config{Backend: webapp2.Datastore, Memcache: memcache, Datastore: datastore, App: "s~app"})
	s := session("_user", []any{int64(1), int64(0), "t", int64(0), int64(0)})
	_, genuine, _ := strings.Cut(write(f, inCookie, s, moment).Get("Cookie"), "=")
	sid := write(f, stored, s, moment)

	const stamp = "1400000000"
	signed := func(payload []byte) http.Header {
		text := base64.StdEncoding.EncodeToString(payload)
		mac := hmac.New(sha1.New, secret)
		mac.Write([]byte("session|" + text + "|" + stamp))
		return http.Header{"Cookie": {"session=" + text + "|" + stamp + "|" + hex.EncodeToString(mac.Sum(nil))}}
	}
	f.Add("session="+legacytest.Genuine, []byte("\x80\x02}."), uint32(2))
	f.Add(`session="eyJhIjoxfQ\075\075|1400000000|738b382d183ddec40cbb4fefea16a71781edf386"`, []byte("5"), uint32(3))
	f.Add("session=||; session=|||; session=a|b|c", []byte("}q\x00."), uint32(2))
	f.Add("session=x"+legacytest.Genuine+"; session="+legacytest.Genuine, []byte(`{"_user":[1,0,"t",0,0],"a":"\ud83d"}`), uint32(0))
	f.Fuzz(func(t *testing.T, header string, blob []byte, flags uint32) {
		read := func(format legacy.Format, header http.Header) {
			t.Helper()
			if s := legacytest.Read(t, format, header, moment, len(blob)); s != nil {
				legacytest.Rewrite(t, format, header, s, moment)
			}
		}
		if s := legacytest.Read(t, inCookie, legacytest.With(header, genuine), moment, len(header)); s != nil && !strings.Contains(header, legacytest.Genuine) {
			t.Errorf("%q was not signed", header)
		}
		read(inCookie, signed(blob))
		for _, format := range []legacy.Format{cached, stored} {
			_ = memcache.Set(ctx, s.ID, appengine.Item{Value: blob, Flags: flags})
			_ = datastore.Put(ctx, webapp2.Kind, s.ID, appengine.Entity{{Name: "data", Value: blob}})
			read(format, sid)
		}
		_ = memcache.Delete(ctx, s.ID)
		_ = datastore.Put(ctx, webapp2.Kind, s.ID, appengine.Entity{{Name: "data", Value: blob}})
		read(stored, sid)
	})
}
