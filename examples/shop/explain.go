package main

import (
	"net/http"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/ops"
)

// explainPage is the content of "How this session works". The strip has the
// data about the visitor's session.
type explainPage struct {
	Stats ops.Stats // of all visitors since the shop was opened
}

func (s *shop) explain(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	s.show(w, r, session, http.StatusOK, "session", explainPage{ops.For(s.sessions).Stats()})
}

// forget ends the session, anonymous or not, without keeping anything.
func (s *shop) forget(w http.ResponseWriter, r *http.Request, session *sojourn.Session) {
	t := s.pages.language(r, session)
	session.Logout()
	session.Flash("info", t.T("session.forgotten"))
	s.seeOther(w, r, session, "/session")
}
