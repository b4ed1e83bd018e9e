package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"

	"github.com/sojourn-go/sojourn"
)

// The probe gets its values' names from requests, so it makes keys at run time.
// An application has them as package variables.

func (p *probe) get(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	name, err := key(r)
	if err != nil {
		return err
	}
	type found struct {
		Found bool   `json:"found"`
		Value string `json:"value"`
	}
	var value string
	err = session.Get(name, &value)
	switch {
	case errors.Is(err, sojourn.ErrNoValue):
		return answer(w, found{})
	case errors.Is(err, sojourn.ErrBadValue):
		// A number or a list, from /incr or /append: given as JSON.
		var other any
		if err := session.Get(name, &other); err != nil {
			return err
		}
		text, err := json.Marshal(other)
		if err != nil {
			return fmt.Errorf("%w: %q has no JSON form", sojourn.ErrBadValue, name)
		}
		value = string(text)
	case err != nil:
		return err
	}
	return answer(w, found{Found: true, Value: value})
}

func (p *probe) all(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) error {
	values := map[string]string{}
	for _, name := range session.Names() {
		var value string
		if session.Get(name, &value) == nil {
			values[name] = value
		}
	}
	return answer(w, map[string]any{"values": values})
}

func (p *probe) set(opts ...sojourn.KeyOption) sessionHandler {
	return func(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
		name, err := key(r)
		if err != nil {
			return err
		}
		value := r.Form.Get("value")
		if r.Form.Has("size") {
			size, err := number(r, "size", 0, 64<<20)
			if err != nil {
				return err
			}
			value = letters(size)
		}
		sojourn.NewKey[string](name, opts...).Set(session, value)
		return answer(w, ok{true})
	}
}

// letters returns n letters that compress badly.
func letters(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = 'a' + byte(rand.IntN(26))
	}
	return string(b)
}

func (p *probe) incr(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	name, err := key(r)
	if err != nil {
		return err
	}
	counter := sojourn.NewKey[int](name)
	counter.Update(session, func(n int) int { return n + 1 })
	// Without Save the answer could only be this request's own view of it.
	if err := session.Save(r.Context()); err != nil {
		return err
	}
	return answer(w, map[string]int{"value": counter.Get(session)})
}

func (p *probe) append(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	name, err := key(r)
	if err != nil {
		return err
	}
	value := r.Form.Get("value")
	list := sojourn.NewKey[[]string](name)
	list.Update(session, func(l []string) []string { return append(l, value) })
	if err := session.Save(r.Context()); err != nil {
		return err
	}
	return answer(w, map[string]int{"length": len(list.Get(session))})
}

func (p *probe) pop(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	name, err := key(r)
	if err != nil {
		return err
	}
	value, found := sojourn.NewKey[string](name).Pop(session)
	// Only after Save is it certain that no other request has it.
	if err := session.Save(r.Context()); err != nil {
		return err
	}
	return answer(w, map[string]any{"found": found, "value": value})
}

func (p *probe) delete(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	name, err := key(r)
	if err != nil {
		return err
	}
	session.Delete(name)
	return answer(w, ok{true})
}

func (p *probe) clear(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) error {
	session.Clear()
	return answer(w, ok{true})
}

// renew replaces a string that equals the parameter stale by the answer of the
// server at from.
func (p *probe) renew(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	name, err := key(r)
	if err != nil {
		return err
	}
	stale, from := r.Form.Get("stale"), r.Form.Get("from")
	value, err := sojourn.NewKey[string](name, sojourn.ServerSide).Renew(r.Context(), session,
		func(value string) bool { return value == stale },
		func(ctx context.Context, old string) (string, error) { return exchange(ctx, from, old) })
	if err != nil {
		return err
	}
	return answer(w, map[string]string{"value": value})
}

func exchange(ctx context.Context, from, old string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, from, strings.NewReader(old))
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %s", resp.Status)
	}
	return string(body), err
}
