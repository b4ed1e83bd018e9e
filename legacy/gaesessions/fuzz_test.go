package gaesessions_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/gaesessions"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
)

// FuzzRead reads cookie headers, signed pickles and those in memcache or the
// datastore.
func FuzzRead(f *testing.F) {
	memcache, datastore := &legacytest.Memcache{}, &legacytest.Datastore{}
	stored := format(f, gaesessions.Config{Memcache: memcache, Datastore: datastore, CookieOnlyThreshold: -1})
	inCookie := format(f, gaesessions.Config{CookieOnlyThreshold: 1 << 20})
	s := session("a", "b")
	named := legacytest.Header(write(f, stored, s)...)
	_, genuine, _ := strings.Cut(named.Get("Cookie"), "=")
	signed := func(pdump []byte) http.Header {
		mac := hmac.New(sha256.New, slices.Concat(key, []byte(s.ID)))
		mac.Write(pdump)
		return http.Header{"Cookie": {`DgU00="` + base64.StdEncoding.EncodeToString(mac.Sum(nil)) + s.ID + base64.StdEncoding.EncodeToString(pdump) + `"`}}
	}
	f.Add("DgU00="+legacytest.Genuine, []byte("\x80\x02}}\x86."))
	f.Add(`DgU01="x"; DgU00="y"; DgU=;DgU00`, []byte("}}\x86."))
	f.Add(`DgU00="`+strings.Repeat("A", 87)+`"`, []byte("]"))
	f.Add("DgU00=x; DgU00="+legacytest.Genuine, []byte("}}(U\x01aK\x01u\x86."))
	f.Fuzz(func(t *testing.T, header string, pdump []byte) {
		read := func(format legacy.Format, header http.Header) {
			t.Helper()
			if s := legacytest.Read(t, format, header, moment, len(pdump)); s != nil {
				legacytest.Rewrite(t, format, header, s, moment)
			}
		}
		_ = datastore.Put(ctx, gaesessions.Kind, s.ID, appengine.Entity{{Name: "pdump", Value: pdump}})
		_ = memcache.Set(ctx, s.ID, appengine.Item{Value: pdump})
		if s := legacytest.Read(t, stored, legacytest.With(header, genuine), moment, len(header)+len(pdump)); s != nil && !strings.Contains(header, legacytest.Genuine) {
			t.Errorf("%q was not signed", header)
		}
		read(stored, named)
		_ = datastore.Put(ctx, gaesessions.Kind, s.ID, appengine.Entity{{Name: "pdump", Value: pdump}})
		_ = memcache.Delete(ctx, s.ID)
		read(stored, named)
		read(inCookie, signed(pdump))
	})
}
