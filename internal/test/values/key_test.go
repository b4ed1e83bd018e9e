package values_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
)

func TestNewKeyPanicsOnNamesThatCannotBeUsed(t *testing.T) {
	for name, ok := range map[string]bool{
		"": false, "_": false, "_flash": false, strings.Repeat("n", 256): false,
		"n": true, strings.Repeat("n", 255): true, "ein Wert, mit Umläuten": true, "a_b": true,
	} {
		for what, f := range map[string]func(){
			"NewKey":      func() { sojourn.NewKey[int](name) },
			"NewKeyCodec": func() { sojourn.NewKeyCodec(name, sojourn.Codec[string](rot13{})) },
		} {
			if text := sitetest.Panics(f); (text == "") != ok || !ok && !strings.Contains(text, "unusable value") {
				t.Errorf("%s(%.10q) panics with %q", what, name, text)
			}
		}
	}
}

func TestNewKeyPanicsOnOptionsThatCannotBe(t *testing.T) {
	for _, d := range []time.Duration{0, -time.Second, time.Microsecond} {
		if text := sitetest.Panics(func() { sojourn.TTL(d) }); !strings.Contains(text, "TTL") {
			t.Errorf("TTL(%v) panics with %q", d, text)
		}
	}
	if text := sitetest.Panics(func() { sojourn.NewKeyCodec[string]("n", nil) }); !strings.Contains(text, "codec is nil") {
		t.Errorf("a nil codec panics with %q", text)
	}
}

func TestLookupTellsAbsentFromUnreadable(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	number, text := sojourn.NewKey[int]("value"), sojourn.NewKey[string]("value")
	s.Do(v, func(session *sojourn.Session) {
		if got, err := number.Lookup(session); got != 0 || !errors.Is(err, sojourn.ErrNoValue) || !strings.Contains(err.Error(), `"value"`) {
			t.Errorf("absent: %v, %v", got, err)
		}
		text.Set(session, "top secret")
	})
	s.Do(v, func(session *sojourn.Session) {
		got, err := number.Lookup(session)
		if got != 0 || !errors.Is(err, sojourn.ErrBadValue) || errors.Is(err, sojourn.ErrNoValue) {
			t.Errorf("unreadable: %v, %v", got, err)
		}
		if !strings.Contains(err.Error(), `"value" as int`) || strings.Contains(err.Error(), "secret") {
			t.Errorf("unreadable: %v", err)
		}
		if got, err := text.Lookup(session); got != "top secret" || err != nil {
			t.Errorf("readable: %q, %v", got, err)
		}
	})
	if s.Stats().UnreadableValue != 0 {
		t.Error("Lookup counts, although its caller knows")
	}
}

// It was an error until the store was flushed, as reported in
// spring-projects/spring-session#90, #200, #280, #529 and #1805.
func TestAChangedTypeReadsAsZeroAndStaysUntilItIsSet(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	before, after := sojourn.NewKey[string]("value"), sojourn.NewKey[int]("value")
	s.Do(v, func(session *sojourn.Session) { before.Set(session, "top secret") })
	for range 2 {
		s.Do(v, func(session *sojourn.Session) {
			if got := after.Get(session); got != 0 {
				t.Errorf("Get: %v", got)
			}
			if got, ok := after.Pop(session); ok {
				t.Errorf("Pop: %v", got)
			}
			sitetest.ThemeKey.Set(session, "dark")
		})
	}
	if got := s.Log.With("WARN"); len(got) != 1 || !strings.Contains(got[0], "key=value") || strings.Contains(got[0], "secret") {
		t.Errorf("log: %q", got)
	}
	if got := s.Stats().UnreadableValue; got != 4 {
		t.Errorf("UnreadableValue is %d", got)
	}
	s.Do(v, func(session *sojourn.Session) { // rolled back: the old program finds its value
		if got := before.Get(session); got != "top secret" {
			t.Errorf("the old value is %q", got)
		}
		after.Set(session, 7)
	})
	s.Do(v, func(session *sojourn.Session) {
		if got := after.Get(session); got != 7 {
			t.Errorf("the new value is %v", got)
		}
	})
}

func TestUpdateOfAChangedTypeStartsFromZero(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sojourn.NewKey[string]("value").Set(session, "text") })
	s.Do(v, func(session *sojourn.Session) {
		if got := sojourn.NewKey[int]("value").Update(session, func(n int) int { return n + 1 }); got != 1 {
			t.Errorf("Update: %d", got)
		}
	})
}

func TestValuesThatThisProgramDoesNotKnowArePreserved(t *testing.T) {
	for name, placement := range map[string]sojourn.KeyOption{"inline": sojourn.Volatile, "stored": sojourn.ServerSide} {
		s := sitetest.NewLab(t)
		v := sitetest.NewGuest(t)
		type future struct{ A, B string }
		newer := sojourn.NewKey[future]("newer", placement)
		s.Do(v, func(session *sojourn.Session) { newer.Set(session, future{"a", "b"}) })
		s.Do(v, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") })
		s.Do(v, func(session *sojourn.Session) {
			if got := newer.Get(session); got != (future{"a", "b"}) {
				t.Errorf("%s: %+v", name, got)
			}
		})
	}
}

func TestStructsMayGainAndLoseFields(t *testing.T) {
	type before struct{ Name, Gone string }
	type after struct {
		Name string
		New  *int
	}
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { sojourn.NewKey[before]("value").Set(session, before{"anna", "x"}) })
	s.Do(v, func(session *sojourn.Session) {
		got, err := sojourn.NewKey[after]("value").Lookup(session)
		if err != nil || got.Name != "anna" || got.New != nil {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestValuesAreCopiedOnTheirWayInAndOut(t *testing.T) {
	s := sitetest.NewLab(t)
	key := sojourn.NewKey[[]string]("value")
	s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) {
		mine := []string{"a"}
		key.Set(session, mine)
		mine[0] = "changed after Set"
		got := key.Get(session)
		if got[0] != "a" {
			t.Errorf("Set shares its argument: %q", got)
		}
		got[0] = "changed after Get"
		if got := key.Get(session); got[0] != "a" {
			t.Errorf("Get shares its result: %q", got)
		}
		var kept []string
		got = key.Update(session, func(l []string) []string { kept = append(l, "b"); return kept })
		kept[0], got[1] = "changed after Update", "changed after Update"
		if got := key.Get(session); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("Update shares: %q", got)
		}
		popped, ok := key.Pop(session)
		if !ok || !slices.Equal(popped, []string{"a", "b"}) {
			t.Errorf("Pop: %q, %v", popped, ok)
		}
	})
}

func TestAValueThatCannotBeEncodedFailsTheCommitAndNamesTheKey(t *testing.T) {
	key := sojourn.NewKey[any]("attachment")
	for name, change := range map[string]func(*sojourn.Session){
		"Set":         func(session *sojourn.Session) { key.Set(session, func() {}) },
		"Update":      func(session *sojourn.Session) { key.Update(session, func(any) any { return make(chan int) }) },
		"Session.Set": func(session *sojourn.Session) { session.Set("attachment", func() {}) },
	} {
		s := sitetest.NewLab(t)
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.ThemeKey.Set(session, "dark") })
		resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			sitetest.ThemeKey.Set(session, "light")
			change(session)
			err := session.Save(r.Context())
			if !errors.Is(err, sojourn.ErrBadValue) || !strings.Contains(err.Error(), `"attachment"`) {
				t.Errorf("%s: Save: %v", name, err)
			}
		})
		sitetest.WantStatus(t, resp, http.StatusInternalServerError)
		sitetest.WantCookies(t, resp)
		s.Do(v, func(session *sojourn.Session) {
			if got := sitetest.ThemeKey.Get(session); got != "dark" {
				t.Errorf("%s: the theme is %q", name, got)
			}
		})
	}
}

func TestDiscardForgetsAValueThatCouldNotBeEncoded(t *testing.T) {
	s := sitetest.NewLab(t)
	s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) {
		session.Set("bad", func() {})
		session.Discard()
	})
}

// rot13 is a codec of its own.
type rot13 struct{}

func (rot13) Encode(s string) ([]byte, error) {
	if s == "unspeakable" {
		return nil, errors.New("cannot say " + s)
	}
	if s == "" {
		return nil, nil // an empty value need not be a non-nil slice
	}
	return []byte(rotate(s)), nil
}

func (rot13) Decode(b []byte) (string, error) {
	if string(b) == "!" {
		return "", errors.New("cannot read !")
	}
	return rotate(string(b)), nil
}

func rotate(s string) string {
	return strings.Map(func(c rune) rune {
		if c < 'a' || c > 'z' {
			return c
		}
		return 'a' + (c-'a'+13)%26
	}, s)
}

func TestACodecKeepsValuesInItsOwnForm(t *testing.T) {
	key := sojourn.NewKeyCodec("word", sojourn.Codec[string](rot13{}))
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) { key.Set(session, "hello") })
	s.Do(v, func(session *sojourn.Session) {
		if got := key.Update(session, func(w string) string { return w + "!" }); got != "hello!" {
			t.Errorf("Update: %q", got)
		}
	})
	s.Do(v, func(session *sojourn.Session) {
		if got, ok := key.Pop(session); got != "hello!" || !ok {
			t.Errorf("Pop: %q, %v", got, ok)
		}
	})
	if s.Has(v, "word") {
		t.Error("still there after Pop")
	}
}

func TestACodecThatReturnsNoBytesKeepsAnEmptyValue(t *testing.T) {
	key := sojourn.NewKeyCodec("word", sojourn.Codec[string](rot13{}))
	for name, change := range map[string]func(*sojourn.Session){
		"Set":    func(session *sojourn.Session) { key.Set(session, "") },
		"Update": func(session *sojourn.Session) { key.Update(session, func(string) string { return "" }) },
	} {
		s := sitetest.NewLab(t)
		v := sitetest.NewGuest(t)
		s.Do(v, change)
		s.Do(v, func(session *sojourn.Session) {
			if got, err := key.Lookup(session); got != "" || err != nil {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			if got, ok := key.Pop(session); got != "" || !ok {
				t.Errorf("%s: Pop: %q, %v", name, got, ok)
			}
		})
		if s.Has(v, "word") {
			t.Errorf("%s: still there after Pop", name)
		}
	}
}

func TestACodecsErrorIsReportedWithoutItsText(t *testing.T) {
	key := sojourn.NewKeyCodec("word", sojourn.Codec[string](rot13{}))
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	resp := s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		key.Set(session, "unspeakable")
		if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrBadValue) || strings.Contains(err.Error(), "unspeakable") {
			t.Errorf("Save: %v", err)
		}
	})
	sitetest.WantStatus(t, resp, http.StatusInternalServerError)
	s.Do(v, func(session *sojourn.Session) { key.Set(session, "!") })
	s.Do(v, func(session *sojourn.Session) {
		if _, err := key.Lookup(session); !errors.Is(err, sojourn.ErrBadValue) || strings.Contains(err.Error(), "!") {
			t.Errorf("Lookup: %v", err)
		}
	})
}

// deepCall calls f with n more frames on the stack.
func deepCall(n int, f func()) {
	if n > 0 {
		deepCall(n-1, f)
		return
	}
	f()
}

func TestAnUpdateThatUsesItsSessionPanicsWithAClearText(t *testing.T) {
	for what, use := range map[string]func(*sojourn.Session){
		"Key.Get":    func(session *sojourn.Session) { sitetest.CartKey.Get(session) },
		"Key.Set":    func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) },
		"Key.Update": func(session *sojourn.Session) { sitetest.CartKey.Update(session, func(n int) int { return n }) },
		"User":       func(session *sojourn.Session) { session.User() },
		"Flash":      func(session *sojourn.Session) { session.Flash("info", "x") },
		"Save":       func(session *sojourn.Session) { _ = session.Save(t.Context()) },
		"far below":  func(session *sojourn.Session) { deepCall(1000, func() { session.Handle() }) },
	} {
		synctest.Test(t, func(t *testing.T) { // it takes a second until that is certain
			s := sitetest.NewLab(t)
			s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) {
				text := sitetest.Panics(func() {
					sitetest.CartKey.Update(session, func(n int) int { use(session); return n + 1 })
				})
				if !strings.Contains(text, "must not use the session") {
					t.Errorf("%s: panics with %q", what, text)
				}
				// The session is not left locked.
				if got := sitetest.CartKey.Update(session, func(n int) int { return n + 1 }); got != 1 {
					t.Errorf("%s: the next Update returns %d", what, got)
				}
			})
		})
	}
}

func TestAnUpdateThatUsesItsSessionWhenItIsDoneAgainPanicsInItsOwnRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sitetest.NewLab(t)
		v := sitetest.NewGuest(t)
		s.Do(v, func(session *sojourn.Session) { sitetest.CartKey.Set(session, 1) })
		var text string
		s.Serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			again := false
			sitetest.CartKey.Update(session, func(n int) int {
				if again {
					session.Handle()
				}
				again = true
				return n + 1
			})
			s.Do(v.Copy(), func(other *sojourn.Session) { sitetest.CartKey.Set(other, 10) }) // was faster
			text = sitetest.Panics(func() { _ = session.Save(r.Context()) })
			session.Discard()
		})
		if !strings.Contains(text, "must not use the session") {
			t.Errorf("Save panics with %q", text)
		}
		if got := sitetest.CartOf(s, v); got != 10 {
			t.Errorf("the cart is %d", got)
		}
	})
}

func TestAnUpdateMayUseAnotherManagersSession(t *testing.T) {
	one, two := sitetest.NewLab(t), sitetest.NewLab(t, func(c *sojourn.Config) { c.Name = "other" })
	resp := sitetest.NewGuest(t).Get(one.Handler(func(w http.ResponseWriter, r *http.Request, a *sojourn.Session) {
		b, _, err := sitetest.Begin(r.Context(), two.Manager, r.Header)
		if err != nil {
			t.Error(err)
			return
		}
		sitetest.CartKey.Update(a, func(n int) int { return sitetest.CartKey.Update(b, func(n int) int { return n + 1 }) })
	}))
	sitetest.WantStatus(t, resp, http.StatusOK)
}

// It was not, as reported in gofiber/fiber#685, #3049 and #3051, and in
// go-session/session#17.
func TestASessionIsSafeForConcurrentUse(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) {
		session.Login("anna")
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				sitetest.CartKey.Update(session, func(n int) int { return n + 1 })
				sitetest.ThemeKey.Set(session, "dark")
				_, _ = sitetest.ThemeKey.Lookup(session)
				session.Set("n", i)
				_, _, _ = session.Names(), session.Info(), session.Handle()
				session.Flash("info", "hello")
				if i%8 == 0 {
					if err := session.Save(t.Context()); err != nil {
						t.Errorf("Save: %v", err)
					}
				}
				_, _ = session.Done(), session.Err()
			})
		}
		wg.Wait()
	})
	s.Do(v, func(session *sojourn.Session) {
		if got := sitetest.CartKey.Get(session); got != 32 {
			t.Errorf("32 updates make %d", got)
		}
		if got := len(session.Flashes()); got != 32 {
			t.Errorf("%d flash messages", got)
		}
	})
}

func TestTheDictionaryAndKeysShareValues(t *testing.T) {
	s := sitetest.NewLab(t)
	v := sitetest.NewGuest(t)
	s.Do(v, func(session *sojourn.Session) {
		session.Set("theme", "dark")
		if got := sitetest.ThemeKey.Get(session); got != "dark" {
			t.Errorf("the key reads %q", got)
		}
		sitetest.ThemeKey.Set(session, "light")
		var got string
		if err := session.Get("theme", &got); err != nil || got != "light" {
			t.Errorf("the dictionary reads %q, %v", got, err)
		}
		session.Flash("info", "not a name")
		session.Set("b", 1)
		if got := session.Names(); !slices.Equal(got, []string{"b", "theme"}) {
			t.Errorf("names %q", got)
		}
		session.Delete("b")
		session.Delete("never there")
		session.Delete("_flash")
		if session.Has("b") || session.Has("_flash") || len(session.Flashes()) != 1 {
			t.Error("Delete removed the wrong thing")
		}
	})
}

func TestTheDictionaryRefusesWhatItCannotDo(t *testing.T) {
	s := sitetest.NewLab(t)
	s.Do(sitetest.NewGuest(t), func(session *sojourn.Session) {
		session.Set("n", 1)
		session.Flash("info", "hidden")
		text := "untouched"
		for what, test := range map[string]struct {
			name string
			into any
			want error
		}{
			"absent":        {"m", new(int), sojourn.ErrNoValue},
			"reserved":      {"_flash", new(any), sojourn.ErrNoValue},
			"wrong type":    {"n", &text, sojourn.ErrBadValue},
			"not a pointer": {"n", 1, sojourn.ErrBadValue},
			"nil":           {"n", nil, sojourn.ErrBadValue},
			"nil pointer":   {"n", (*int)(nil), sojourn.ErrBadValue},
		} {
			if err := session.Get(test.name, test.into); !errors.Is(err, test.want) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if text != "untouched" {
			t.Errorf("the variable became %q", text)
		}
	})
	for _, name := range []string{"", "_x", strings.Repeat("n", 256)} {
		resp := s.Serve(sitetest.NewGuest(t), func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			session.Set(name, 1)
			if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrBadValue) {
				t.Errorf("Set(%.10q): Save: %v", name, err)
			}
		})
		sitetest.WantStatus(t, resp, http.StatusInternalServerError)
	}
}

// Names with a delimiter made Clear and Logout do nothing, as reported in
// kataras/iris#244 and #1314.
func TestNamesMayHaveDelimiters(t *testing.T) {
	for _, name := range []string{"a", "a-b", "a_b"} {
		s := sitetest.NewLab(t, func(c *sojourn.Config) { c.Name = name })
		v := sitetest.NewGuest(t)
		values := []string{"x", "x:y", "x.y", "x/y", "x y", "ü", "x\x00y"}
		s.Do(v, func(session *sojourn.Session) {
			session.Login("anna")
			for _, value := range values {
				session.Set(value, value)
			}
		})
		s.Do(v, func(session *sojourn.Session) {
			if len(session.Names()) != len(values) {
				t.Errorf("%s: %d values came back", name, len(session.Names()))
			}
			session.Delete("x:y")
		})
		s.Do(v, func(session *sojourn.Session) {
			if session.Has("x:y") || !session.Has("x") {
				t.Errorf("%s: %q are left", name, session.Names())
			}
			session.Clear()
		})
		thief := v.Copy()
		s.Do(v, func(session *sojourn.Session) {
			if len(session.Names()) != 0 || session.User() != "anna" {
				t.Errorf("%s: %q are left", name, session.Names())
			}
			session.Logout()
		})
		s.Do(thief, func(session *sojourn.Session) {
			if !session.IsNew() {
				t.Errorf("%s: the logout did nothing", name)
			}
		})
	}
}
