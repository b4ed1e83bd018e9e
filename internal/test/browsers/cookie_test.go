package browsers_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"slices"
	"sort"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/faults"
	"github.com/sojourn-go/sojourn/internal/test/race"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store/memory"
)

// SameSite was not set by default, as reported in gorilla/sessions#256 and #276.
func TestCookieAttributesFollowTheConfiguration(t *testing.T) {
	const month = "; Max-Age=2592001"
	for name, test := range map[string]struct {
		cookie         sojourn.Cookie
		prefix, age    string
		path, the_rest string
	}{
		"zero":            {sojourn.Cookie{}, "__Host-", month, "; Path=/", "; HttpOnly; Secure; SameSite=Lax"},
		"domain":          {sojourn.Cookie{Domain: "example.com"}, "__Secure-", month, "; Path=/; Domain=example.com", "; HttpOnly; Secure; SameSite=Lax"},
		"dotted domain":   {sojourn.Cookie{Domain: ".example.com"}, "__Secure-", month, "; Path=/; Domain=example.com", "; HttpOnly; Secure; SameSite=Lax"},
		"path":            {sojourn.Cookie{Path: "/app"}, "__Secure-", month, "; Path=/app", "; HttpOnly; Secure; SameSite=Lax"},
		"root path":       {sojourn.Cookie{Path: "/"}, "__Host-", month, "; Path=/", "; HttpOnly; Secure; SameSite=Lax"},
		"default mode":    {sojourn.Cookie{SameSite: http.SameSiteDefaultMode}, "__Host-", month, "; Path=/", "; HttpOnly; Secure; SameSite=Lax"},
		"strict":          {sojourn.Cookie{SameSite: http.SameSiteStrictMode}, "__Host-", month, "; Path=/", "; HttpOnly; Secure; SameSite=Strict"},
		"none":            {sojourn.Cookie{SameSite: http.SameSiteNoneMode}, "__Host-", month, "; Path=/", "; HttpOnly; Secure; SameSite=None"},
		"partitioned":     {sojourn.Cookie{SameSite: http.SameSiteNoneMode, Partitioned: true}, "__Host-", month, "; Path=/", "; HttpOnly; Secure; SameSite=None; Partitioned"},
		"insecure":        {sojourn.Cookie{Insecure: true}, "", month, "; Path=/", "; HttpOnly; SameSite=Lax"},
		"browser session": {sojourn.Cookie{BrowserSession: true}, "__Host-", "", "; Path=/", "; HttpOnly; Secure; SameSite=Lax"},
		"everything": {
			sojourn.Cookie{Domain: "example.com", Path: "/app", SameSite: http.SameSiteStrictMode, BrowserSession: true, Partitioned: true},
			"__Secure-", "", "; Path=/app; Domain=example.com", "; HttpOnly; Secure; SameSite=Strict; Partitioned",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // for an exact age
				s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Cookie = test.cookie })
				v := sitetest.NewGuest(t)
				// wantLine checks everything but the value.
				wantLine := func(line, name, age string) {
					t.Helper()
					value, attributes, _ := strings.Cut(strings.TrimPrefix(line, name+"="), ";")
					if !strings.HasPrefix(line, name+"=") || (age == "; Max-Age=0") != (value == "") {
						t.Errorf("line %q is not %s", line, name)
					}
					if want := age + test.path + test.the_rest; ";"+attributes != want {
						t.Errorf("attributes %q, want %q", ";"+attributes, want)
					}
				}
				reference, state := test.prefix+"session", test.prefix+"session-state"

				lines := s.Do(v, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") }).Header["Set-Cookie"]
				if len(lines) != 1 {
					t.Fatalf("lines %q", lines)
				}
				wantLine(lines[0], state, test.age)

				lines = s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) }).Header["Set-Cookie"]
				if len(lines) != 2 {
					t.Fatalf("lines %q", lines)
				}
				wantLine(lines[0], reference, test.age)
				wantLine(lines[1], state, "; Max-Age=0")

				lines = s.Do(v, func(session *sojourn.Session) { session.Logout() }).Header["Set-Cookie"]
				if len(lines) != 1 {
					t.Fatalf("lines %q", lines)
				}
				wantLine(lines[0], reference, "; Max-Age=0")
				if len(v.Cookies) != 0 {
					t.Errorf("the browser keeps %v", v.Cookies)
				}
			})
		})
	}
}

func TestRememberOfAStoredSessionSetsTheReferenceAnew(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	resp := s.Do(v, func(session *sojourn.Session) { session.Remember(false) })
	sitetest.WantCookies(t, resp, sitetest.RefCookie)
	if line := resp.Header.Get("Set-Cookie"); strings.Contains(line, "Max-Age") {
		t.Error(line)
	}
}

func TestNoCookieIsAskedToLiveLongerThan400Days(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, config := range []func(*sojourn.Config){
			func(c *sojourn.Config) { c.Lifetime = -1 },
			func(c *sojourn.Config) { c.Lifetime = 400 * 24 * time.Hour },
			func(c *sojourn.Config) {},
		} {
			s := sitetest.NewLab(t, config)
			for _, key := range []sojourn.Key[int]{sitetest.CartKey, sojourn.NewKey[int]("small")} {
				resp := s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) {
					key.Set(session, 1)
					session.SetExpiry(0, 5000*24*time.Hour)
				})
				if line := resp.Header.Get("Set-Cookie"); !strings.Contains(line, "; Max-Age=34560000;") {
					t.Error(line)
				}
			}
		}
	})
}

func TestInlineLimitIsExact(t *testing.T) {
	keys := sitetest.Keys(t)
	key := sojourn.NewKey[[]byte]("v")
	// place returns where a value of n bytes lives, and how large its cookie is.
	place := func(limit, n int) (sojourn.Placement, int) {
		s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys, c.InlineLimit = keys, limit })
		v := sitetest.NewGuest(t)
		resp := s.Do(v, func(session *sojourn.Session) { key.Set(session, make([]byte, n)) })
		var info sojourn.Info
		s.Do(v, func(session *sojourn.Session) { info = session.Info() })
		if info.Placement == sojourn.PlacementInline {
			sitetest.WantCookies(t, resp, sitetest.StateCookie)
			if got := len(sitetest.StateCookie) + len(v.Cookies[sitetest.StateCookie]); got != info.Size || got > limit {
				t.Errorf("limit %d: the cookie has %d bytes, Info says %d", limit, got, info.Size)
			}
		} else {
			sitetest.WantCookies(t, resp, sitetest.RefCookie)
		}
		return info.Placement, info.Size
	}
	for _, n := range []int{0, 10, 100, 1000, 2500} {
		_, size := place(4096, n)
		for limit, want := range map[int]sojourn.Placement{
			size - 1: sojourn.PlacementStored,
			size:     sojourn.PlacementInline,
			size + 1: sojourn.PlacementInline,
		} {
			if got, _ := place(limit, n); got != want {
				t.Errorf("a cookie of %d bytes under a limit of %d is %v, want %v", size, limit, got, want)
			}
		}
	}
	if got, _ := place(4096, 3100); got != sojourn.PlacementStored {
		t.Errorf("more than a browser keeps is %v", got)
	}
}

func TestNoCookieExceeds4096BytesWhateverTheName(t *testing.T) {
	keys := sitetest.Keys(t)
	key := sojourn.NewKey[[]byte]("v")
	for _, length := range []int{1, 2, 7, 31, 63, 64} {
		for _, attributes := range []sojourn.Cookie{{}, {Path: "/app"}, {Insecure: true}} {
			name := strings.Repeat("n", length)
			for _, limit := range []int{2048, 4096, 4097, 8000, 15000} {
				s := sitetest.NewLab(t, sitetest.CookieOnly, func(c *sojourn.Config) {
					c.Keys, c.Name, c.InlineLimit, c.Cookie = keys, name, limit, attributes
				})
				// try returns how many bytes of names and values n bytes take, 0 if
				// that is too much.
				try := func(n int) (sum int) {
					v := sitetest.NewGuest(t)
					resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
						key.Set(session, make([]byte, n))
					})
					if resp.StatusCode == http.StatusRequestEntityTooLarge {
						return 0
					}
					sitetest.WantStatus(t, resp, http.StatusOK)
					for name, value := range v.Cookies { // guest.keep has looked at each
						sum += len(name) + len(value)
					}
					s.Do(v, func(session *sojourn.Session) {
						if got := key.Get(session); len(got) != n {
							t.Fatalf("%d bytes came back as %d", n, len(got))
						}
						if got := session.Info().Size; got != sum {
							t.Fatalf("Info says %d bytes, the cookies have %d", got, sum)
						}
					})
					return sum
				}
				most := sort.Search(limit, func(n int) bool { return try(n) == 0 }) - 1
				if sum := try(most); sum > limit || sum < limit-90 {
					t.Errorf("a name of %d bytes: %d of %d bytes can be used", length, sum, limit)
				}
				// Around each place where the number of cookies changes.
				for _, chunk := range []int{3900, 4096, 2 * 3900, 3 * 3900} {
					step := 7
					if race.Enabled {
						step = 70
					}
					for n := chunk*3/4 - 330; n < min(chunk*3/4, most); n += step {
						try(n)
					}
				}
			}
		}
	}
}

// The tokens of an identity provider are too large for one, as reported in
// markbates/goth#133, GoogleCloudPlatform/golang-samples#137 and
// vouch/vouch-proxy#348.
func TestNumberedCookiesGrowAndShrink(t *testing.T) {
	s := sitetest.NewLab(t, sitetest.CookieOnly, func(c *sojourn.Config) { c.InlineLimit = 15000 })
	key := sojourn.NewKey[[]byte]("v")
	v := sitetest.NewGuest(t)
	for _, step := range []struct {
		bytes int
		want  []string
	}{
		{100, []string{""}},
		{5000, []string{"", "-1"}},
		{11000, []string{"", "-1", "-2", "-3"}},
		{8000, []string{"", "-1", "-2"}},
		{10, []string{""}},
		{11000, []string{"", "-1", "-2", "-3"}},
	} {
		s.Do(v, func(session *sojourn.Session) { key.Set(session, make([]byte, step.bytes)) })
		var want []string
		for _, suffix := range step.want {
			want = append(want, sitetest.StateCookie+suffix)
		}
		if got := strings.Split(v.Header(), "; "); len(got) != len(want) {
			t.Errorf("%d bytes: %d cookies, want %q", step.bytes, len(got), want)
		}
		for _, name := range want {
			if v.Cookies[name] == "" {
				t.Errorf("%d bytes: %s is lacking", step.bytes, name)
			}
		}
		s.Do(v, func(session *sojourn.Session) {
			if got := len(key.Get(session)); got != step.bytes {
				t.Errorf("%d bytes came back as %d", step.bytes, got)
			}
		})
	}
	s.Do(v, func(session *sojourn.Session) { session.Logout() })
	if len(v.Cookies) > 0 {
		t.Errorf("after the logout the browser keeps %q", v.Header())
	}
}

func TestAMissingOrForeignNumberedCookieIsANewVisitorAndIsTidiedUp(t *testing.T) {
	s := sitetest.NewLab(t, sitetest.CookieOnly, func(c *sojourn.Config) { c.InlineLimit = 15000 })
	key := sojourn.NewKey[[]byte]("v")
	big := func(fill byte) *sitetest.Guest {
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) {
			key.Set(session, slices.Repeat([]byte{fill}, 9000))
		})
		return v
	}
	a, b := big('a'), big('b')
	for name, damage := range map[string]func(*sitetest.Guest){
		"first is missing":            func(v *sitetest.Guest) { delete(v.Cookies, sitetest.StateCookie) },
		"second is missing":           func(v *sitetest.Guest) { delete(v.Cookies, sitetest.StateCookie+"-1") },
		"last is missing":             func(v *sitetest.Guest) { delete(v.Cookies, sitetest.StateCookie+"-2") },
		"second is another session's": func(v *sitetest.Guest) { v.Cookies[sitetest.StateCookie+"-1"] = b.Cookies[sitetest.StateCookie+"-1"] },
		"two are swapped": func(v *sitetest.Guest) {
			v.Cookies[sitetest.StateCookie+"-1"], v.Cookies[sitetest.StateCookie+"-2"] = v.Cookies[sitetest.StateCookie+"-2"], v.Cookies[sitetest.StateCookie+"-1"]
		},
		"the number is too small": func(v *sitetest.Guest) { v.Cookies[sitetest.StateCookie] = "2" + v.Cookies[sitetest.StateCookie][1:] },
		"the number is too large": func(v *sitetest.Guest) { v.Cookies[sitetest.StateCookie] = "9" + v.Cookies[sitetest.StateCookie][1:] },
		"the number is zero":      func(v *sitetest.Guest) { v.Cookies[sitetest.StateCookie] = "0" + v.Cookies[sitetest.StateCookie][1:] },
		"the number is gone":      func(v *sitetest.Guest) { v.Cookies[sitetest.StateCookie] = v.Cookies[sitetest.StateCookie][2:] },
		"second is empty":         func(v *sitetest.Guest) { v.Cookies[sitetest.StateCookie+"-1"] = "" },
	} {
		t.Run(name, func(t *testing.T) {
			v := a.Copy()
			damage(v)
			s.Do(v, func(session *sojourn.Session) {
				if !session.IsNew() || session.Has("v") {
					t.Error("the damaged session was used")
				}
				sitetest.ThemeKey.Set(session, "dark")
			})
			if len(v.Cookies) != 1 {
				t.Errorf("what is left of the damaged session stays in the browser: %d cookies", len(v.Cookies))
			}
			if !s.Has(v, "theme") {
				t.Error("the new session is lacking")
			}
		})
	}
}

func TestMaxSizeIsExactAndLeavesTheOldStateUntouched(t *testing.T) {
	for name, place := range map[string]func(*sojourn.Config){"stored": sitetest.StoredOnly, "in the cookie": sitetest.CookieOnly} {
		t.Run(name, func(t *testing.T) {
			const most = 1500
			s := sitetest.NewLab(t, place, func(c *sojourn.Config) { c.MaxSize, c.InlineLimit = most, 4096 })
			key := sojourn.NewKey[[]byte]("v")
			v := sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) { key.Set(session, make([]byte, 1000)) })
			kept, refused := 1000, 0
			for n := most - 300; n <= most+1; n++ {
				var saved error
				resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
					key.Set(session, make([]byte, n))
					saved = session.Save(r.Context())
				})
				switch {
				case saved == nil && refused == 0:
					sitetest.WantStatus(t, resp, http.StatusOK)
					kept = n
				case errors.Is(saved, sojourn.ErrTooLarge):
					sitetest.WantStatus(t, resp, http.StatusRequestEntityTooLarge)
					sitetest.WantCookies(t, resp)
					if refused++; !strings.Contains(saved.Error(), fmt.Sprintf("%d bytes, at most %d", most+refused, most)) {
						t.Errorf("%d bytes too many: %v", refused, saved)
					}
				default:
					t.Fatalf("%d bytes: Save: %v", n, saved)
				}
				s.Do(v, func(session *sojourn.Session) {
					if got := len(key.Get(session)); got != kept {
						t.Fatalf("after %d bytes: the session holds %d, want %d", n, got, kept)
					}
				})
			}
			if kept == 1000 || refused == 0 {
				t.Errorf("kept %d bytes, refused %d times", kept, refused)
			}
		})
	}
}

func TestOfSeveralCookiesOfOneNameTheFirstOfAtMostFourThatOpensWins(t *testing.T) {
	for _, test := range []struct {
		name string
		key  sojourn.Key[int]
	}{{sitetest.RefCookie, sitetest.CartKey}, {sitetest.StateCookie, sojourn.NewKey[int]("small")}} {
		s := sitetest.NewLab(t)
		value := func(n int) string {
			v := sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) { test.key.Set(session, n) })
			return test.name + "=" + v.Cookies[test.name]
		}
		one, two, junk := value(1), value(2), test.name+"=AAAA"
		for _, c := range []struct {
			lines []string
			want  int
		}{
			{[]string{one}, 1},
			{[]string{one + "; " + two}, 1},
			{[]string{two + "; " + one}, 2},
			{[]string{junk + "; " + two + "; " + one}, 2},
			{[]string{strings.Repeat(junk+"; ", 3) + one}, 1},
			{[]string{strings.Repeat(junk+"; ", 4) + one}, 0},
			{[]string{junk, "other=1", junk, two}, 2},
			{[]string{test.name + "=; " + one}, 1},
			{[]string{test.name + "; " + one}, 1},
			{[]string{"x" + one + "; " + test.name + "x=1; " + one}, 1},
			{[]string{strings.ToLower(one) + "; " + two}, 2},
			{[]string{strings.Replace(one, "=", "=\"", 1) + `"`}, 1},
			{[]string{strings.Replace(one, "=", "=\"", 1)}, 0},
			{[]string{"a=1;" + one + ";b=2"}, 1},
			{[]string{" ;; \t" + one + "\t ; b"}, 1},
			{[]string{strings.Replace(one, "=", " =", 1)}, 0},
			{[]string{strings.TrimPrefix(one, "__Host-")}, 0},
			{nil, 0},
		} {
			v := sitetest.NewGuest(t)
			v.Raw = append([]string{}, c.lines...)
			s.Do(v, func(session *sojourn.Session) {
				if got := test.key.Get(session); got != c.want {
					t.Errorf("%s: %.80q gives session %d, want %d", test.name, c.lines, got, c.want)
				}
			})
		}
	}
}

func TestAHeaderOfAMegabyteIsReadInPassing(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 7) })
	mine := v.Header()
	for name, lines := range map[string][]string{
		"one huge cookie":          {"a=" + strings.Repeat("x", 1<<20) + "; " + mine},
		"many small cookies":       {strings.Repeat("a=1; ", 1<<20/5) + mine},
		"many lines":               append(slices.Repeat([]string{"a=1"}, 100_000), mine),
		"only separators":          {strings.Repeat(";", 1<<20) + mine},
		"only spaces":              {strings.Repeat(" ", 1<<20) + ";" + mine},
		"a huge one of our name":   {sitetest.RefCookie + "=" + strings.Repeat("A", 1<<20) + "; " + mine},
		"a huge state cookie":      {sitetest.StateCookie + "=" + strings.Repeat("A", 1<<20) + "; " + mine},
		"the name again and again": {strings.Repeat(sitetest.StateCookie, 1<<20/len(sitetest.StateCookie)) + "; " + mine},
	} {
		v := sitetest.NewGuest(t)
		v.Raw = lines
		s.Do(v, func(session *sojourn.Session) {
			if got := sitetest.CartKey.Get(session); got != 7 {
				t.Errorf("%s: the cart is %d", name, got)
			}
		})
	}
}

// hostile are manipulated spellings of a good cookie value, with names.
func hostile(good string) map[string]string {
	out := map[string]string{
		"empty": "", "one byte": "A", "extended": good + "A", "doubled": good + good, "padded": good + "=",
		"padded twice": good + "==", "percent": "%00", "quote": `"`, "newline": good + "\n", "not ASCII": good + "é", "zero byte": good + "\x00",
		"standard alphabet": strings.NewReplacer("-", "+", "_", "/").Replace(good) + "+",
		"dotted":            "2." + good, "long": strings.Repeat("A", 5000), "longest": strings.Repeat("A", 16385),
	}
	for i := range good {
		for bit := range 8 {
			b := []byte(good)
			b[i] ^= 1 << bit
			out[fmt.Sprintf("byte %d, bit %d", i, bit)] = string(b)
		}
		out[fmt.Sprintf("cut at %d", i)] = good[:i]
		out[fmt.Sprintf("cut before %d", i)] = good[i:]
	}
	delete(out, "cut before 0")
	return out
}

func TestEveryManipulatedCookieIsANewVisitorAndReachesNoStore(t *testing.T) {
	for name, key := range map[string]sojourn.Key[int]{sitetest.RefCookie: sitetest.CartKey, sitetest.StateCookie: sojourn.NewKey[int]("small")} {
		for _, config := range []func(*sojourn.Config){func(*sojourn.Config) {}, sitetest.CookieOnly} {
			s := sitetest.NewLab(t, config)
			if s.Store == nil && name == sitetest.RefCookie {
				continue
			}
			v := sitetest.NewGuest(t)
			s.Do(v, func(session *sojourn.Session) { key.Set(session, 7) })
			before := s.Calls()
			for what, value := range hostile(v.Cookies[name]) {
				v := sitetest.NewGuest(t)
				v.Raw = []string{name + "=" + value}
				resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
					if !session.IsNew() || session.User() != "" || len(session.Names()) > 0 {
						t.Errorf("%s, %s: accepted", name, what)
					}
				})
				sitetest.WantStatus(t, resp, http.StatusOK)
				sitetest.WantCookies(t, resp)
			}
			if n := s.Calls() - before; n > 0 {
				t.Errorf("%s: %d store calls", name, n)
			}
			if lines := append(s.Log.With("INFO"), append(s.Log.With("WARN"), s.Log.With("ERROR")...)...); len(lines) > 1 ||
				len(lines) == 1 && !strings.Contains(lines[0], "with keys that this process does not have") {
				t.Errorf("logged above debug: %q", lines)
			}
			if s.Stats().RejectedCookies == 0 {
				t.Error("nothing was counted")
			}
		}
	}
}

func TestACookieOpensOnlyWhereItBelongs(t *testing.T) {
	keys := sitetest.Keys(t)
	s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys = keys })
	small := sojourn.NewKey[int]("small")
	inline, stored := sitetest.NewGuest(t), sitetest.NewGuest(t)
	s.Do(inline, func(session *sojourn.Session) { small.Set(session, 7) })
	s.Do(stored, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 7) })
	state, reference := inline.Cookies[sitetest.StateCookie], stored.Cookies[sitetest.RefCookie]

	otherName := sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys, c.Name, c.Store = keys, "admin", s.Store })
	otherKeys := sitetest.NewLab(t, func(c *sojourn.Config) { c.Store = s.Store })
	otherAttributes := sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys, c.Store, c.Cookie.Insecure = keys, s.Store, true })
	for name, test := range map[string]struct {
		at      *sitetest.Lab
		header  string
		is      bool
		unknown uint64
	}{
		"state as reference":                     {s, sitetest.RefCookie + "=" + state, false, 0},
		"reference as state":                     {s, sitetest.StateCookie + "=" + reference, false, 0},
		"state of a manager of another name":     {otherName, "__Host-admin-state=" + state, false, 0},
		"reference of a manager of another name": {otherName, "__Host-admin=" + reference, false, 0},
		"state under other keys":                 {otherKeys, sitetest.StateCookie + "=" + state, false, 1},
		"reference under other keys":             {otherKeys, sitetest.RefCookie + "=" + reference, false, 1},
		"the attributes are not bound: state":    {otherAttributes, "session-state=" + state, true, 0},
		"the attributes are not bound":           {otherAttributes, "session=" + reference, true, 0},
	} {
		calls := s.Calls()
		v := sitetest.NewGuest(t)
		v.Raw = []string{test.header}
		test.at.Do(v, func(session *sojourn.Session) {
			if session.IsNew() == test.is {
				t.Errorf("%s: IsNew is %v", name, session.IsNew())
			}
		})
		if !test.is && s.Calls() != calls {
			t.Errorf("%s: the store was asked", name)
		}
		if got := test.at.Stats().UnknownKeys; test.at == otherKeys && got == 0 || test.at != otherKeys && got > 0 {
			t.Errorf("%s: UnknownKeys is %d", name, got)
		}
	}
}

func TestTenThousandGarbageCookiesCostNoStoreCallAndNoMemory(t *testing.T) {
	s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Logger = slog.New(slog.DiscardHandler) })
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
	good := v.Cookies[sitetest.RefCookie]
	before := s.Calls()
	h := s.Handler(func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		if !session.IsNew() {
			t.Error("garbage was accepted")
		}
	})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	start := heap()
	for i := range 10_000 {
		bot := sitetest.NewGuest(t)
		// The key id is right, so that each one costs an attempt to open it.
		junk := good[:8] + fmt.Sprintf("%08d", i) + good[16:]
		bot.Raw = []string{fmt.Sprintf("%s=%s; %s=%s; %s=x%d", sitetest.RefCookie, junk, sitetest.StateCookie, junk, sitetest.StateCookie, i)}
		sitetest.WantStatus(t, bot.Get(h), http.StatusOK)
	}
	if n := s.Calls() - before; n > 0 {
		t.Errorf("%d store calls", n)
	}
	if grown := int64(heap()) - int64(start); grown > 1<<20 {
		t.Errorf("%d bytes are kept", grown)
	}
	if got := s.Stats().RejectedCookies; got != 30_000 {
		t.Errorf("RejectedCookies is %d", got)
	}
}

func TestGarbageIsLoggedAtDebugWithoutItsContent(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	v.Raw = []string{sitetest.RefCookie + "=U0VDUkVU; " + sitetest.StateCookie + "=U0VDUkVU"}
	s.Do(v, func(*sojourn.Session) {})
	if lines := s.Log.All(); len(lines) != 2 {
		t.Errorf("log: %q", lines)
	}
	for _, line := range s.Log.All() {
		if !strings.HasPrefix(line, "DEBUG") || strings.Contains(line, "U0VDUkVU") || strings.Contains(line, "SECRET") {
			t.Error(line)
		}
	}
}

func TestAnExpiredCookieIsANewVisitorAndReachesNoStore(t *testing.T) {
	const day = 24 * time.Hour
	for name, test := range map[string]struct {
		config func(*sojourn.Config)
		key    sojourn.Key[int]
		wait   time.Duration // within which it is good, exactly
	}{
		"inline, idle":          {func(*sojourn.Config) {}, sojourn.NewKey[int]("small"), 7 * day},
		"inline, absolute":      {func(c *sojourn.Config) { c.IdleTimeout = -1 }, sojourn.NewKey[int]("small"), 30 * day},
		"cookie only, idle":     {sitetest.CookieOnly, sojourn.NewKey[int]("small"), 7 * day},
		"reference, absolute":   {func(c *sojourn.Config) { c.IdleTimeout = -1 }, sitetest.CartKey, 30 * day},
		"inline, 400 days":      {func(c *sojourn.Config) { c.IdleTimeout, c.Lifetime = -1, -1 }, sojourn.NewKey[int]("small"), 400 * day},
		"inline, idle override": {func(c *sojourn.Config) { c.IdleTimeout = time.Hour }, sojourn.NewKey[int]("small"), time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := sitetest.NewLab(t, test.config)
				v := sitetest.NewGuest(t)
				s.Do(v, func(session *sojourn.Session) { test.key.Set(session, 1) })
				time.Sleep(test.wait)
				s.Do(v.Copy(), func(session *sojourn.Session) {
					if test.key.Get(session) != 1 {
						t.Error("gone at its very deadline")
					}
				})
				calls := s.Calls()
				time.Sleep(time.Millisecond)
				s.Do(v.Copy(), func(session *sojourn.Session) {
					if !session.IsNew() || test.key.Get(session) != 0 {
						t.Error("alive after its deadline")
					}
				})
				if s.Calls() != calls {
					t.Error("the store was asked for an expired session")
				}
			})
		})
	}
}

func TestActivityMovesTheIdleDeadlineOfAnInlineSessionButNotTooOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t, func(c *sojourn.Config) { c.IdleTimeout = 20 * time.Hour })
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") })
		time.Sleep(time.Hour - time.Millisecond)
		sitetest.WantCookies(t, s.Do(v, func(*sojourn.Session) {}))
		time.Sleep(time.Millisecond)
		sitetest.WantCookies(t, s.Do(v, func(*sojourn.Session) {}), sitetest.StateCookie)
		sitetest.WantCookies(t, s.Do(v, func(*sojourn.Session) {}))
		for range 10 {
			time.Sleep(19 * time.Hour)
			if !s.Has(v, "theme") {
				t.Fatal("gone although it was used")
			}
		}
		time.Sleep(21 * time.Hour)
		if s.Has(v, "theme") {
			t.Error("alive although it was not used")
		}
	})
}

func TestKeysRotateWithoutLosingASession(t *testing.T) {
	_, oldActive, oldRetired := sitetest.KeyOfDay(1)
	newPublished, newActive, _ := sitetest.KeyOfDay(2)
	for _, test := range []struct {
		cookie string
		key    sojourn.Key[int]
	}{{sitetest.StateCookie, sojourn.NewKey[int]("small")}, {sitetest.RefCookie, sitetest.CartKey}} {
		db := faults.Wrap(memory.New())
		at := func(keys ...string) *sitetest.Lab {
			return sitetest.NewLab(t, func(c *sojourn.Config) { c.Keys, c.Store = sitetest.Ring(t, keys...), db })
		}
		before, announced := at(oldActive), at(oldActive, newPublished)
		both, after := at(oldActive, newActive), at(oldRetired, newActive)
		only := at(newActive)
		v := sitetest.NewGuest(t)
		before.Do(v, func(session *sojourn.Session) { test.key.Set(session, 7) })
		read := func(at *sitetest.Lab, want int, cookies ...string) {
			t.Helper()
			sitetest.WantCookies(t, at.Do(v, func(session *sojourn.Session) {
				if got := test.key.Get(session); got != want {
					t.Errorf("%s: %d, want %d", test.cookie, got, want)
				}
			}), cookies...)
		}
		read(announced, 7)         // the new key only opens
		read(both, 7, test.cookie) // sealed again, once
		read(both, 7)
		// A process that does not seal with the new key yet does not seal back.
		read(announced, 7)
		read(after, 7)
		read(announced, 7)
		if test.cookie == sitetest.StateCookie {
			read(only, 7)
		}
		// A process without the key sees a new visitor, and lets the session be.
		read(before, 0)
		if got := before.Stats().UnknownKeys; got != 1 {
			t.Errorf("UnknownKeys is %d", got)
		}
		read(both, 7)
	}
}

// The error did not say what was too long, as reported in gin-contrib/sessions#119.
func TestASessionTooLargeForItsCookieIsRefusedWithTheLimit(t *testing.T) {
	s := sitetest.NewLab(t, sitetest.CookieOnly)
	resp := s.Serve(sitetest.NewGuest(t), func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		session.Set("v", strings.Repeat("x", 4000))
		err := session.Save(r.Context())
		if !errors.Is(err, sojourn.ErrTooLarge) || !strings.Contains(err.Error(), "at most 2048") {
			t.Errorf("Save: %v", err)
		}
	})
	sitetest.WantStatus(t, resp, http.StatusRequestEntityTooLarge)
	sitetest.WantCookies(t, resp)
}

// Proxies pass less than split cookies promise, as reported in
// leodip/goiabada#266: nginx reads a response's header into 4 KiB.
func TestByDefaultAllCookiesOfAResponseFitIntoTheBufferOfAProxy(t *testing.T) {
	for _, config := range []func(*sojourn.Config){sitetest.CookieOnly, func(*sojourn.Config) {}} {
		s := sitetest.NewLab(t, config)
		for n := 0; n < 4096; n += 16 {
			resp := s.Serve(sitetest.NewGuest(t), func(_ http.ResponseWriter, _ *http.Request, session *sojourn.Session) {
				session.Set("v", make([]byte, n))
			})
			size := 0
			for name, lines := range resp.Header {
				for _, line := range lines {
					size += len(name) + len(": \r\n") + len(line)
				}
			}
			if size > 4096-1700 { // what is left is the program's
				t.Fatalf("%d bytes make a response header of %d", n, size)
			}
		}
	}
}

// A cookie's content was signed, not encrypted, as reported in
// alexedwards/scs#221.
func TestNothingInACookieCanBeReadWithoutItsKey(t *testing.T) {
	s := sitetest.NewLab(t, sitetest.CookieOnly)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { session.Login("anna"); sitetest.ThemeKey.Set(session, "PLAINTEXT") })
	if strings.Contains(v.Header(), "PLAIN") || strings.Contains(v.Header(), "UExBSU5") || strings.Contains(v.Header(), "anna") {
		t.Errorf("readable: %s", v.Header())
	}
	s.Do(v, func(session *sojourn.Session) {
		if session.User() != "anna" || sitetest.ThemeKey.Get(session) != "PLAINTEXT" {
			t.Errorf("%q %q", session.User(), sitetest.ThemeKey.Get(session))
		}
	})
}
