package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn"
)

// userCommands are about the sessions of one user.
type userCommands struct {
	List   userList   `cmd:"" help:"List a user's live sessions and what they were made with."`
	Export userExport `cmd:"" help:"Print everything that is kept in a user's sessions, as JSON."`
	Revoke userRevoke `cmd:"" help:"End a user's sessions: log the user out everywhere."`
	Erase  userErase  `cmd:"" help:"End a user's sessions and remove all values in them."`
}

// userArgs say whose sessions are meant, and where they are.
type userArgs struct {
	User string `arg:"" help:"The user, as given to Session.Login."`
	URL  string `arg:"" optional:"" name:"store-url" help:"URL of the store, instead of --store."`
	storeFlag
	keysFlags
}

// with calls f with a manager of the service's sessions.
func (a *userArgs) with(ctx context.Context, term terminal, f func(*sojourn.Manager) error) (err error) {
	if a.User == "" {
		return usagef("which user? An empty name is nobody's")
	}
	if a.URL != "" {
		a.Store = a.URL
	}
	keys, err := a.keyRing(term)
	if err != nil {
		return err
	}
	db, closeStore, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	sessions, err := sojourn.New(sojourn.Config{Name: a.Name, Keys: keys, Store: db, Timeout: openTime})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sessions.Close()) }()
	err = f(sessions)
	if errors.Is(err, errors.ErrUnsupported) {
		return errors.New("this kind of store has no index by user")
	}
	return err
}

// userSession is a session as user list and user export print it.
type userSession struct {
	Handle    string         `json:"handle"`
	User      string         `json:"user"`
	Created   timestamp      `json:"created"`
	Seen      timestamp      `json:"last_seen"`
	LoggedIn  timestamp      `json:"logged_in"`
	Methods   []string       `json:"methods"`
	Expires   timestamp      `json:"expires"`
	UserAgent string         `json:"user_agent"`
	IP        string         `json:"ip"`
	Bytes     int            `json:"bytes"`
	Values    map[string]any `json:"values,omitempty"` // of an export
}

func userSessionOf(info *sojourn.Info) userSession {
	return userSession{
		Handle: info.Handle, User: info.User,
		Created: timestamp(info.Created), Seen: timestamp(info.LastSeen), LoggedIn: timestamp(info.LoggedIn),
		Methods: append([]string{}, info.Methods...), Expires: timestamp(info.Expires),
		UserAgent: info.UserAgent, IP: info.IP, Bytes: info.Size,
	}
}

type userList struct {
	userArgs
	JSON bool `name:"json" help:"Print a JSON array."`
}

func (userList) Help() string {
	return `Lists a user's live sessions, the last used first.

Examples:

    sojourn user list ada --keys data/session.keys sqlite:data/sessions.db
    sojourn user list ada --json | jq -r '.[].handle'
`
}

func (c *userList) Run(ctx context.Context, term terminal) error {
	return c.with(ctx, term, func(m *sojourn.Manager) error {
		infos, err := m.Sessions(ctx, c.User)
		if err != nil {
			return err
		}
		all := []userSession{}
		for i := range infos {
			all = append(all, userSessionOf(&infos[i]))
		}
		if c.JSON {
			return printJSON(term.out, all)
		}
		if len(all) == 0 {
			_, err := fmt.Fprintln(term.out, "no sessions")
			return err
		}
		w := newList(term.out)
		fmt.Fprintln(w, "HANDLE\tCREATED\tLAST SEEN\tOVER\tIP\tUSER AGENT")
		for _, s := range all {
			// What a visitor's browser has sent is not for the terminal to act on.
			fmt.Fprintf(w, "%s\t%v\t%v\t%v\t%s\t%s\n", s.Handle, s.Created, s.Seen, s.Expires, orDash(s.IP), orDash(s.UserAgent))
		}
		return w.Flush()
	})
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return printable(s)
}

type userExport struct{ userArgs }

func (userExport) Help() string {
	return `Prints a user's live sessions with all their values, decoded, as a JSON array: for a user who asks what is kept about them. Bytes are given in base64.

The output is personal data. Keep it in a file that only you can read.

Examples:

    sojourn user export ada --keys data/session.keys sqlite:data/sessions.db > ada.json
    sojourn user export ada --name admin-session | jq '.[].values'
`
}

func (c *userExport) Run(ctx context.Context, term terminal) error {
	return c.with(ctx, term, func(m *sojourn.Manager) error {
		exports, err := m.ExportUser(ctx, c.User)
		if err != nil {
			return err
		}
		all := []userSession{}
		for i := range exports {
			s := userSessionOf(&exports[i].Info)
			s.Values = map[string]any{}
			for name, v := range exports[i].Values {
				s.Values[name] = forJSON(v)
			}
			all = append(all, s)
		}
		return printJSON(term.out, all)
	})
}

type userRevoke struct {
	userArgs
	Keep   []string `placeholder:"HANDLE" help:"Leave this session; may be given again."`
	DryRun bool     `help:"Say how many sessions would end, and do nothing."`
	JSON   bool     `name:"json" help:"Print JSON."`
}

func (userRevoke) Help() string {
	return `Ends a user's live sessions on every replica: after a stolen password, say. Services with streams, or with logged-in sessions in the cookie, hear of it within a second; a service with caches in its process serves a copy for as long as their MaxStale.

Examples:

    sojourn user revoke ada --keys data/session.keys sqlite:data/sessions.db
    sojourn user revoke ada --keep hviqnsuzpvktywiydtsrqst62q --dry-run
`
}

func (c *userRevoke) Run(ctx context.Context, term terminal) error {
	return c.with(ctx, term, func(m *sojourn.Manager) error {
		if c.DryRun {
			infos, err := m.Sessions(ctx, c.User)
			if err != nil {
				return err
			}
			infos = slices.DeleteFunc(infos, func(i sojourn.Info) bool { return slices.Contains(c.Keep, i.Handle) })
			return ending{term, c.JSON, c.DryRun}.print(len(infos))
		}
		n, err := m.RevokeUser(ctx, c.User, c.Keep...)
		if err != nil {
			return fmt.Errorf("after %d sessions: %w", n, err)
		}
		return ending{term, c.JSON, false}.print(n)
	})
}

type userErase struct {
	userArgs
	Yes    bool `help:"Do not ask."`
	DryRun bool `help:"Say how many sessions would be erased, and do nothing."`
	JSON   bool `name:"json" help:"Print JSON."`
}

func (userErase) Help() string {
	return `Ends a user's live sessions and removes all values in them from the store, for good: for a user who wants to be forgotten. What stays for about an hour are tombstones without values, named by a keyed hash. Backups, logs, and what the user's own browser keeps are for you to look after.

It asks first, unless --yes says that you have thought about it.

Examples:

    sojourn user erase ada --keys data/session.keys sqlite:data/sessions.db
    sojourn user erase ada --yes --json
`
}

func (c *userErase) Run(ctx context.Context, term terminal) error {
	return c.with(ctx, term, func(m *sojourn.Manager) error {
		infos, err := m.Sessions(ctx, c.User)
		if err != nil {
			return err
		}
		if c.DryRun {
			return ending{term, c.JSON, true}.print(len(infos))
		}
		if !c.Yes {
			if !term.typing {
				return usagef("erase cannot be undone, and nobody is at the keyboard to be asked: give --yes")
			}
			fmt.Fprintf(term.messages, "Erase %d sessions of %s for good? Type yes: ", len(infos), printable(c.User))
			answer, err := bufio.NewReader(term.in).ReadString('\n')
			if err != nil || strings.TrimSpace(answer) != "yes" {
				return errors.New("nothing was erased")
			}
		}
		n, err := m.EraseUser(ctx, c.User)
		if err != nil {
			return fmt.Errorf("after %d sessions: %w", n, err)
		}
		return ending{term, c.JSON, false}.print(n)
	})
}

// ending prints how many sessions have ended, or would.
type ending struct {
	term      terminal
	json, dry bool
}

func (e ending) print(n int) error {
	if e.json {
		return printJSON(e.term.out, struct {
			Ended  int  `json:"ended"`
			DryRun bool `json:"dry_run"`
		}{n, e.dry})
	}
	text := "ended %d sessions\n"
	if e.dry {
		text = "would end %d sessions\n"
	}
	_, err := fmt.Fprintf(e.term.out, text, n)
	return err
}

// forJSON makes a decoded value one that JSON has a form for.
func forJSON(v any) any {
	switch v := v.(type) {
	case time.Time:
		return timestamp(v)
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, one := range v {
			out[name] = forJSON(one)
		}
		return out
	case map[any]any:
		out := make(map[string]any, len(v))
		for name, one := range v {
			out[fmt.Sprint(name)] = forJSON(one)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, one := range v {
			out[i] = forJSON(one)
		}
		return out
	default:
		return v
	}
}
