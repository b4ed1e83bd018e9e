package main

import (
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn"
)

func (p *probe) info(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) error {
	info := session.Info()
	out := struct {
		Placement string     `json:"placement"`
		Handle    string     `json:"handle"`
		New       bool       `json:"new"`
		User      string     `json:"user"`
		Version   uint64     `json:"version"`
		Created   *time.Time `json:"created"` // null where no session exists yet
		Expires   *time.Time `json:"expires"`
		Bytes     int        `json:"bytes"`
	}{
		Placement: info.Placement.String(),
		Handle:    info.Handle,
		New:       session.IsNew(),
		User:      info.User,
		Version:   info.Version,
		Bytes:     info.Size,
	}
	if info.Placement == sojourn.PlacementNone {
		out.Handle = "" // it would never be used
	} else {
		out.Created, out.Expires = &info.Created, &info.Expires
	}
	return answer(w, out)
}

type visitor struct {
	OK     bool   `json:"ok"`
	Handle string `json:"handle"`
}

func (p *probe) login(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	user := r.Form.Get("user")
	if user == "" {
		return badParameter("user: say who logs in")
	}
	session.Login(user)
	return answer(w, visitor{true, session.Handle()})
}

// logout answers with the handle of the session that has ended.
func (p *probe) logout(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) error {
	ended := session.Handle()
	session.Logout()
	return answer(w, visitor{true, ended})
}

func (p *probe) rotate(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) error {
	session.Rotate()
	return answer(w, visitor{true, session.Handle()})
}

func (p *probe) flash(w http.ResponseWriter, r *http.Request, session *sojourn.Session) error {
	session.Flash(r.Form.Get("level"), r.Form.Get("text"))
	return answer(w, ok{true})
}

func (p *probe) flashes(w http.ResponseWriter, _ *http.Request, session *sojourn.Session) error {
	type message struct {
		Level string `json:"level"`
		Text  string `json:"text"`
	}
	messages := []message{}
	for _, f := range session.Flashes() {
		messages = append(messages, message(f))
	}
	return answer(w, map[string]any{"flashes": messages})
}
