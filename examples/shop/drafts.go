package main

import (
	"net/http"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn"
)

// draftKey carries a refused form over the redirect back to its page, which
// takes it. It expires if that page is never loaded.
var draftKey = sojourn.NewKey[draft]("draft", sojourn.TTL(10*time.Minute))

// draft is a visitor's input, and its errors. It never has passwords.
type draft struct {
	Form     string            `cbor:"form"`
	Values   map[string]string `cbor:"values"`
	Problems map[string]string `cbor:"problems"` // field → key of a text
}

// formPage is embedded in the content of pages with a form.
type formPage struct{ Form draft }

func (p formPage) form() draft { return p.Form }

// newDraft reads the named fields of a posted form.
func newDraft(form string, r *http.Request, fields ...string) draft {
	d := draft{Form: form, Values: map[string]string{}, Problems: map[string]string{}}
	for _, f := range fields {
		v := r.PostFormValue(f)
		// Truncate long input, so that a refused form fits into the session,
		// and remove invalid UTF-8.
		d.Values[f] = strings.ToValidUTF8(strings.TrimSpace(v[:min(len(v), 300)]), "")
	}
	return d
}

func (d draft) problem(field, text string) { d.Problems[field] = text }

func (d draft) good() bool { return len(d.Problems) == 0 }

// takeDraft returns the last refused form, if it is this form.
func takeDraft(session *sojourn.Session, form string) draft {
	if draftKey.Get(session).Form != form {
		return draft{}
	}
	d, _ := draftKey.Pop(session)
	return d
}

// again sends the visitor back to the form.
func (s *shop) again(w http.ResponseWriter, r *http.Request, session *sojourn.Session, d draft, path string) {
	draftKey.Set(session, d)
	session.Flash("error", s.pages.language(r, session).T("form.problems"))
	s.seeOther(w, r, session, path)
}
