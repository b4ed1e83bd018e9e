package gaeutilities_test

import (
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/gaeutilities"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
)

func FuzzRead(f *testing.F) {
	d := stored()
	trusting := sessions(f, gaeutilities.Config{Datastore: d, TrustDataCookie: true})
	unsigned := gaeutilities.NewUnsignedCookie("", cookies.Attributes{})
	f.Add("gaeutilities_session="+legacytest.Genuine+`; gaeutilities_session_data="{\"a\": 1}"; appengine-utilities-flash="1"`, []byte("I1\n."))
	f.Add("gaeutilities_session=_; gaeutilities_session_data=[", []byte("(dS'session'\n(ds."))
	f.Fuzz(func(t *testing.T, header string, content []byte) {
		d.values[0][1].Value = content
		in, size := legacytest.With(header, token("b")), len(header)+len(content)
		s := legacytest.Read(t, trusting, in, moment, size)
		if s != nil && !strings.Contains(in.Get("Cookie"), key.Encode()) {
			t.Errorf("%q holds no token of the session", header)
		}
		legacytest.Read(t, trusting, legacytest.With("gaeutilities_session="+legacytest.Genuine, token("b")), moment, size)
		if s := legacytest.Read(t, unsigned, in, moment, size); s != nil {
			legacytest.Rewrite(t, unsigned, in, s, moment)
		}
	})
}
