package main

import (
	"net/http"
	"slices"

	"github.com/sojourn-go/sojourn"
)

// Preferences are plain keys: an anonymous visitor's are sealed into the
// cookie, need no row and no query, and the last response wins. There are two
// small keys instead of one struct, because a stored session merges key by key:
// changing the theme in one tab and the language in another keeps both.
var (
	languageKey = sojourn.NewKey[string]("language")
	themeKey    = sojourn.NewKey[string]("theme")
)

func themes() []string { return []string{"auto", "light", "dark"} }

type preferencesPage struct {
	Themes    []string
	Languages []*language
}

func (s *shop) preferences(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	s.show(w, r, session, http.StatusOK, "preferences", preferencesPage{themes(), s.pages.languages})
}

func (s *shop) changePreferences(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	// A form sends only what it changes: the buttons in the footer send the theme.
	if theme := r.PostFormValue("theme"); slices.Contains(themes(), theme) {
		themeKey.Set(session, theme)
	}
	if t := s.pages.byCode(r.PostFormValue("language")); t != nil {
		languageKey.Set(session, t.Code)
	}
	session.Flash("success", s.pages.language(r, session).T("preferences.saved"))
	s.seeOther(w, r, session, localPath(r.PostFormValue("back"), "/preferences"))
}

// theme returns the chosen theme; "auto" follows the visitor's system.
func theme(session *sojourn.Session) string {
	if chosen := themeKey.Get(session); slices.Contains(themes(), chosen) {
		return chosen
	}
	return "auto"
}
