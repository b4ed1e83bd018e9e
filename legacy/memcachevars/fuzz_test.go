package memcachevars_test

import (
	"testing"

	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/internal/legacytest"
)

func FuzzRead(f *testing.F) {
	memcache := &legacytest.Memcache{}
	format := format(f, memcache, "a", "b")
	f.Add("gaesessid="+id, []byte("\x80\x02N."), uint32(2))
	f.Add("gaesessid=x; gaesessid=-", []byte("1"), uint32(5))
	f.Add("gaesessid="+id, []byte("text"), uint32(1))
	f.Fuzz(func(t *testing.T, cookie string, stored []byte, flags uint32) {
		_ = memcache.Set(ctx, id+"-b", appengine.Item{Value: stored, Flags: flags})
		legacytest.Read(t, format, header(cookie), moment, len(cookie)+len(stored))
		in := header("gaesessid=" + id)
		s := legacytest.Read(t, format, in, moment, len(stored))
		if s == nil {
			return
		}
		// Only changes are written. Without Detail, Write writes everything.
		s.Detail = nil
		legacytest.Rewrite(t, format, in, s, moment)
	})
}
