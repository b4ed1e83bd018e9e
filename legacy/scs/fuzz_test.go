package scs_test

import (
	"bytes"
	"encoding/gob"
	"net/http"
	"strings"
	"testing"
	"time"

	realscs "github.com/alexedwards/scs/v2"

	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
	"github.com/sojourn-go/sojourn/legacy/scs"
)

func FuzzReadNeverPanics(f *testing.F) {
	token := strings.Repeat("a", 43)
	now := time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC)
	for _, m := range []map[string]any{{}, {"a": 1, "b": "c", "d": []byte{1}}, {"l": []string{"x"}}} {
		b, err := realscs.GobCodec{}.Encode(now.Add(time.Hour), m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add("session="+legacytest.Genuine, b)
	}
	var other bytes.Buffer
	if err := gob.NewEncoder(&other).Encode(map[string]int{"Deadline": 1}); err != nil {
		f.Fatal(err)
	}
	f.Add("session=x; session=\"y", other.Bytes())
	rows := &table{rows: map[string][]byte{}, expiry: map[string]time.Time{}}
	ours, err := scs.New(scs.Config{Store: rows})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, header string, stored []byte) {
		clear(rows.rows)
		rows.rows[token] = stored
		in := legacytest.With(header, token)
		if s := legacytest.Read(t, ours, in, now, len(stored)); s != nil && !strings.Contains(in.Get("Cookie"), token) {
			t.Errorf("%q is not the session's token", header)
		}
		in = http.Header{"Cookie": {"session=" + token}}
		if s := legacytest.Read(t, ours, in, now, len(stored)); s != nil {
			legacytest.Rewrite(t, ours, in, s, now)
		}
	})
}
