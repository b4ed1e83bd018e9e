package sojourn_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/store/memory"
)

// panics returns what f panics with, as text.
func panics(f func()) (text string) {
	defer func() {
		if p := recover(); p != nil {
			text, _ = p.(string)
			if text == "" {
				text = "not a text"
			}
		}
	}()
	f()
	return ""
}

func TestNewKeyPanicsOnNamesThatCannotBeUsed(t *testing.T) {
	for name, ok := range map[string]bool{
		"": false, "_": false, "_flash": false, strings.Repeat("n", 256): false,
		"n": true, strings.Repeat("n", 255): true, "ein Wert, mit Umläuten": true, "a_b": true,
	} {
		for what, f := range map[string]func(){
			"NewKey":      func() { sojourn.NewKey[int](name) },
			"NewKeyCodec": func() { sojourn.NewKeyCodec(name, sojourn.Codec[string](rot13{})) },
		} {
			if text := panics(f); (text == "") != ok || !ok && !strings.Contains(text, "unusable value") {
				t.Errorf("%s(%.10q) panics with %q", what, name, text)
			}
		}
	}
}

func TestNewKeyPanicsOnOptionsThatCannotBe(t *testing.T) {
	for _, d := range []time.Duration{0, -time.Second, time.Microsecond} {
		if text := panics(func() { sojourn.TTL(d) }); !strings.Contains(text, "TTL") {
			t.Errorf("TTL(%v) panics with %q", d, text)
		}
	}
	if text := panics(func() { sojourn.NewKeyCodec[string]("n", nil) }); !strings.Contains(text, "codec is nil") {
		t.Errorf("a nil codec panics with %q", text)
	}
}

func TestLookupTellsAbsentFromUnreadable(t *testing.T) {
	s := newSite(t)
	v := newGuest(t)
	number, text := sojourn.NewKey[int]("value"), sojourn.NewKey[string]("value")
	s.do(v, func(session *sojourn.Session) {
		if got, err := number.Lookup(session); got != 0 || !errors.Is(err, sojourn.ErrNoValue) || !strings.Contains(err.Error(), `"value"`) {
			t.Errorf("absent: %v, %v", got, err)
		}
		text.Set(session, "top secret")
	})
	s.do(v, func(session *sojourn.Session) {
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

func TestAChangedTypeReadsAsZeroAndStaysUntilItIsSet(t *testing.T) {
	s := newSite(t)
	v := newGuest(t)
	before, after := sojourn.NewKey[string]("value"), sojourn.NewKey[int]("value")
	s.do(v, func(session *sojourn.Session) { before.Set(session, "top secret") })
	for range 2 {
		s.do(v, func(session *sojourn.Session) {
			if got := after.Get(session); got != 0 {
				t.Errorf("Get: %v", got)
			}
			if got, ok := after.Pop(session); ok {
				t.Errorf("Pop: %v", got)
			}
			themeKey.Set(session, "dark")
		})
	}
	if got := s.log.with("WARN"); len(got) != 1 || !strings.Contains(got[0], "key=value") || strings.Contains(got[0], "secret") {
		t.Errorf("log: %q", got)
	}
	if got := s.Stats().UnreadableValue; got != 4 {
		t.Errorf("UnreadableValue is %d", got)
	}
	s.do(v, func(session *sojourn.Session) { // rolled back: the old program finds its value
		if got := before.Get(session); got != "top secret" {
			t.Errorf("the old value is %q", got)
		}
		after.Set(session, 7)
	})
	s.do(v, func(session *sojourn.Session) {
		if got := after.Get(session); got != 7 {
			t.Errorf("the new value is %v", got)
		}
	})
}

func TestUpdateOfAChangedTypeStartsFromZero(t *testing.T) {
	s := newSite(t)
	v := newGuest(t)
	s.do(v, func(session *sojourn.Session) { sojourn.NewKey[string]("value").Set(session, "text") })
	s.do(v, func(session *sojourn.Session) {
		if got := sojourn.NewKey[int]("value").Update(session, func(n int) int { return n + 1 }); got != 1 {
			t.Errorf("Update: %d", got)
		}
	})
}

func TestValuesThatThisProgramDoesNotKnowArePreserved(t *testing.T) {
	for name, placement := range map[string]sojourn.KeyOption{"inline": sojourn.Volatile, "stored": sojourn.ServerSide} {
		s := newSite(t)
		v := newGuest(t)
		type future struct{ A, B string }
		newer := sojourn.NewKey[future]("newer", placement)
		s.do(v, func(session *sojourn.Session) { newer.Set(session, future{"a", "b"}) })
		s.do(v, func(session *sojourn.Session) { themeKey.Set(session, "dark") })
		s.do(v, func(session *sojourn.Session) {
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
	s := newSite(t)
	v := newGuest(t)
	s.do(v, func(session *sojourn.Session) { sojourn.NewKey[before]("value").Set(session, before{"anna", "x"}) })
	s.do(v, func(session *sojourn.Session) {
		got, err := sojourn.NewKey[after]("value").Lookup(session)
		if err != nil || got.Name != "anna" || got.New != nil {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestValuesAreCopiedOnTheirWayInAndOut(t *testing.T) {
	s := newSite(t)
	key := sojourn.NewKey[[]string]("value")
	s.do(newGuest(t), func(session *sojourn.Session) {
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
		s := newSite(t)
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { themeKey.Set(session, "dark") })
		resp := s.serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			themeKey.Set(session, "light")
			change(session)
			err := session.Save(r.Context())
			if !errors.Is(err, sojourn.ErrBadValue) || !strings.Contains(err.Error(), `"attachment"`) {
				t.Errorf("%s: Save: %v", name, err)
			}
		})
		wantStatus(t, resp, http.StatusInternalServerError)
		wantCookies(t, resp)
		s.do(v, func(session *sojourn.Session) {
			if got := themeKey.Get(session); got != "dark" {
				t.Errorf("%s: the theme is %q", name, got)
			}
		})
	}
}

func TestDiscardForgetsAValueThatCouldNotBeEncoded(t *testing.T) {
	s := newSite(t)
	s.do(newGuest(t), func(session *sojourn.Session) {
		session.Set("bad", func() {})
		session.Discard()
	})
}

func TestValuesEndAfterTheirTTL(t *testing.T) {
	for name, opts := range map[string][]sojourn.KeyOption{
		"inline": {sojourn.TTL(10 * time.Minute)},
		"stored": {sojourn.TTL(10 * time.Minute), sojourn.ServerSide},
	} {
		t.Run(name, func(t *testing.T) {
			inFakeTime(t, func(t *testing.T) {
				s := newSite(t)
				v := newGuest(t)
				key := sojourn.NewKey[string]("state", opts...)
				s.do(v, func(session *sojourn.Session) { key.Set(session, "abc"); themeKey.Set(session, "dark") })
				wait(10 * time.Minute)
				if !s.has(v, "state") {
					t.Error("gone at its very end")
				}
				wait(time.Millisecond)
				s.do(v, func(session *sojourn.Session) {
					if _, err := key.Lookup(session); !errors.Is(err, sojourn.ErrNoValue) {
						t.Errorf("Lookup: %v", err)
					}
					if got, ok := key.Pop(session); ok {
						t.Errorf("Pop: %q", got)
					}
					if session.Has("state") || slices.Contains(session.Names(), "state") || session.Get("state", new(string)) == nil {
						t.Error("the dictionary still has it")
					}
					if got := key.Update(session, func(old string) string { return old + "new" }); got != "new" {
						t.Errorf("Update: %q", got)
					}
				})
				wait(10 * time.Minute)
				if !s.has(v, "state") || !s.has(v, "theme") {
					t.Error("an Update does not start the time anew")
				}
			})
		})
	}
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
	s := newSite(t)
	v := newGuest(t)
	s.do(v, func(session *sojourn.Session) { key.Set(session, "hello") })
	s.do(v, func(session *sojourn.Session) {
		if got := key.Update(session, func(w string) string { return w + "!" }); got != "hello!" {
			t.Errorf("Update: %q", got)
		}
	})
	s.do(v, func(session *sojourn.Session) {
		if got, ok := key.Pop(session); got != "hello!" || !ok {
			t.Errorf("Pop: %q, %v", got, ok)
		}
	})
	if s.has(v, "word") {
		t.Error("still there after Pop")
	}
}

func TestACodecThatReturnsNoBytesKeepsAnEmptyValue(t *testing.T) {
	key := sojourn.NewKeyCodec("word", sojourn.Codec[string](rot13{}))
	for name, change := range map[string]func(*sojourn.Session){
		"Set":    func(session *sojourn.Session) { key.Set(session, "") },
		"Update": func(session *sojourn.Session) { key.Update(session, func(string) string { return "" }) },
	} {
		s := newSite(t)
		v := newGuest(t)
		s.do(v, change)
		s.do(v, func(session *sojourn.Session) {
			if got, err := key.Lookup(session); got != "" || err != nil {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			if got, ok := key.Pop(session); got != "" || !ok {
				t.Errorf("%s: Pop: %q, %v", name, got, ok)
			}
		})
		if s.has(v, "word") {
			t.Errorf("%s: still there after Pop", name)
		}
	}
}

func TestACodecsErrorIsReportedWithoutItsText(t *testing.T) {
	key := sojourn.NewKeyCodec("word", sojourn.Codec[string](rot13{}))
	s := newSite(t)
	v := newGuest(t)
	resp := s.serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
		key.Set(session, "unspeakable")
		if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrBadValue) || strings.Contains(err.Error(), "unspeakable") {
			t.Errorf("Save: %v", err)
		}
	})
	wantStatus(t, resp, http.StatusInternalServerError)
	s.do(v, func(session *sojourn.Session) { key.Set(session, "!") })
	s.do(v, func(session *sojourn.Session) {
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
		"Key.Get":    func(session *sojourn.Session) { cartKey.Get(session) },
		"Key.Set":    func(session *sojourn.Session) { cartKey.Set(session, 1) },
		"Key.Update": func(session *sojourn.Session) { cartKey.Update(session, func(n int) int { return n }) },
		"User":       func(session *sojourn.Session) { session.User() },
		"Flash":      func(session *sojourn.Session) { session.Flash("info", "x") },
		"Save":       func(session *sojourn.Session) { _ = session.Save(t.Context()) },
		"far below":  func(session *sojourn.Session) { deepCall(1000, func() { session.Handle() }) },
	} {
		inFakeTime(t, func(t *testing.T) { // it takes a second until that is certain
			s := newSite(t)
			s.do(newGuest(t), func(session *sojourn.Session) {
				text := panics(func() {
					cartKey.Update(session, func(n int) int { use(session); return n + 1 })
				})
				if !strings.Contains(text, "must not use the session") {
					t.Errorf("%s: panics with %q", what, text)
				}
				// The session is not left locked.
				if got := cartKey.Update(session, func(n int) int { return n + 1 }); got != 1 {
					t.Errorf("%s: the next Update returns %d", what, got)
				}
			})
		})
	}
}

func TestAnUpdateThatUsesItsSessionWhenItIsDoneAgainPanicsInItsOwnRequest(t *testing.T) {
	inFakeTime(t, func(t *testing.T) {
		s := newSite(t)
		v := newGuest(t)
		s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1) })
		var text string
		s.serve(v, func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			again := false
			cartKey.Update(session, func(n int) int {
				if again {
					session.Handle()
				}
				again = true
				return n + 1
			})
			s.do(v.copy(), func(other *sojourn.Session) { cartKey.Set(other, 10) }) // was faster
			text = panics(func() { _ = session.Save(r.Context()) })
			session.Discard()
		})
		if !strings.Contains(text, "must not use the session") {
			t.Errorf("Save panics with %q", text)
		}
		if got := cartOf(s, v); got != 10 {
			t.Errorf("the cart is %d", got)
		}
	})
}

func TestAnUpdateMayUseAnotherManagersSession(t *testing.T) {
	one, two := newSite(t), newSite(t, func(c *sojourn.Config) { c.Name = "other" })
	resp := newGuest(t).get(one.Handler(func(w http.ResponseWriter, r *http.Request, a *sojourn.Session) {
		b, err := two.Open(r.Context(), r.Header, w.Header())
		if err != nil {
			t.Error(err)
			return
		}
		cartKey.Update(a, func(n int) int { return cartKey.Update(b, func(n int) int { return n + 1 }) })
	}))
	wantStatus(t, resp, http.StatusOK)
}

func TestASessionIsSafeForConcurrentUse(t *testing.T) {
	s := newSite(t)
	v := newGuest(t)
	s.do(v, func(session *sojourn.Session) {
		session.Login("anna")
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				cartKey.Update(session, func(n int) int { return n + 1 })
				themeKey.Set(session, "dark")
				_, _ = themeKey.Lookup(session)
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
	s.do(v, func(session *sojourn.Session) {
		if got := cartKey.Get(session); got != 32 {
			t.Errorf("32 updates make %d", got)
		}
		if got := len(session.Flashes()); got != 32 {
			t.Errorf("%d flash messages", got)
		}
	})
}

func TestTheDictionaryAndKeysShareValues(t *testing.T) {
	s := newSite(t)
	v := newGuest(t)
	s.do(v, func(session *sojourn.Session) {
		session.Set("theme", "dark")
		if got := themeKey.Get(session); got != "dark" {
			t.Errorf("the key reads %q", got)
		}
		themeKey.Set(session, "light")
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
	s := newSite(t)
	s.do(newGuest(t), func(session *sojourn.Session) {
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
		resp := s.serve(newGuest(t), func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
			session.Set(name, 1)
			if err := session.Save(r.Context()); !errors.Is(err, sojourn.ErrBadValue) {
				t.Errorf("Set(%.10q): Save: %v", name, err)
			}
		})
		wantStatus(t, resp, http.StatusInternalServerError)
	}
}

func TestTheSameValueAgainIsNoChange(t *testing.T) {
	db := memory.New()
	s := newSite(t, func(c *sojourn.Config) { c.Store = &spy{Store: db} })
	v := newGuest(t)
	s.do(v, func(session *sojourn.Session) { cartKey.Set(session, 1); themeKey.Set(session, "dark") })
	saves := s.store.saves.Load()
	wantCookies(t, s.do(v, func(session *sojourn.Session) {
		cartKey.Set(session, 1)
		cartKey.Update(session, func(n int) int { return n })
		session.Set("theme", "dark")
		session.Delete("never there")
		session.Flashes()
		cartKey.Get(session)
	}))
	if n := s.store.saves.Load() - saves; n != 0 {
		t.Errorf("%d saves", n)
	}
}
