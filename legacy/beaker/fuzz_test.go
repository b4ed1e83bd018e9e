package beaker_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/beaker"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
)

// FuzzRead reads cookie headers, signed payloads and what is in each kind of
// store.
func FuzzRead(f *testing.F) {
	store := &legacytest.Store{}
	type place struct {
		format *beaker.Format
		header http.Header
		key    string
	}
	var onServer []place
	for _, p := range places() {
		format := format(f, beaker.Config{Type: p.t, Secret: []byte("s"), Store: store, ValidateKey: signKey})
		s := session("a", 1)
		onServer = append(onServer, place{format, write(f, format, s, moment), p.key(s.ID)})
	}
	inCookie := format(f, beaker.Config{ValidateKey: signKey, EncryptKey: encKey, Cipher: beaker.CBC})
	inJSON := format(f, beaker.Config{ValidateKey: signKey, JSON: true})
	inPickle := format(f, beaker.Config{ValidateKey: signKey})
	_, genuine, _ := strings.Cut(write(f, inCookie, session("a", 1), moment).Get("Cookie"), "=")
	f.Add("beaker.session.id="+legacytest.Genuine, []byte("\x80\x02}."), uint32(1))
	f.Add(`beaker.session.id="""; beaker.session.id=`+legacytest.Genuine, []byte("gAJ9Lg=="), uint32(16))
	f.Add("beaker.session.id="+strings.Repeat("0", 40), []byte("(dS'session'\n(ds."), uint32(0))
	f.Add("beaker.session.id=", []byte(`{"_accessed_time": 1400000000.5, "a": 1}`), uint32(0))
	f.Fuzz(func(t *testing.T, header string, stored []byte, flags uint32) {
		read := func(format legacy.Format, header http.Header) {
			t.Helper()
			if s := legacytest.Read(t, format, header, moment, len(stored)); s != nil {
				legacytest.Rewrite(t, format, header, s, moment)
			}
		}
		if s := legacytest.Read(t, inCookie, legacytest.With(header, genuine), moment, len(header)); s != nil && !strings.Contains(header, legacytest.Genuine) {
			t.Errorf("%q was not sealed", header)
		}
		read(inJSON, signed(stored))
		read(inPickle, signed(stored))
		for _, p := range onServer {
			_ = store.Set(ctx, p.key, legacy.Entry{Value: stored, Flags: flags})
			read(p.format, p.header)
		}
	})
}
