package main

import (
	"errors"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn"
)

// An application takes the user from the request's session. Here any request
// may name a user, for tests.

func user(r *http.Request) (string, error) {
	name := r.Form.Get("user")
	if name == "" {
		return "", badParameter("user: say whose sessions")
	}
	return name, nil
}

func (p *probe) userSessions(w http.ResponseWriter, r *http.Request, _ *sojourn.Session) error {
	name, err := user(r)
	if err != nil {
		return err
	}
	infos, err := p.sessions.Sessions(r.Context(), name)
	if err != nil {
		return err
	}
	type device struct {
		Handle    string    `json:"handle"`
		Current   bool      `json:"current"`
		Created   time.Time `json:"created"`
		LastSeen  time.Time `json:"last_seen"`
		UserAgent string    `json:"user_agent"`
		IP        string    `json:"ip"`
	}
	devices := make([]device, len(infos))
	for i, info := range infos {
		devices[i] = device{info.Handle, info.Current, info.Created, info.LastSeen, info.UserAgent, info.IP}
	}
	return answer(w, map[string]any{"sessions": devices})
}

func (p *probe) revoke(w http.ResponseWriter, r *http.Request, _ *sojourn.Session) error {
	name, err := user(r)
	if err != nil {
		return err
	}
	handle := r.Form.Get("handle")
	if handle == "" {
		return badParameter("handle: say which session")
	}
	err = p.sessions.Revoke(r.Context(), name, handle)
	if errors.Is(err, sojourn.ErrNotFound) {
		return answer(w, revoked{0})
	}
	if err != nil {
		return err
	}
	return answer(w, revoked{1})
}

func (p *probe) revokeUser(w http.ResponseWriter, r *http.Request, _ *sojourn.Session) error {
	name, err := user(r)
	if err != nil {
		return err
	}
	n, err := p.sessions.RevokeUser(r.Context(), name, r.Form["keep"]...)
	if err != nil {
		return err
	}
	return answer(w, revoked{n})
}

// revoked is how many sessions were ended.
type revoked struct {
	N int `json:"revoked"`
}
