package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/store"
)

// userCommands are about the sessions of one user.
type userCommands struct {
	List   userList   `cmd:"" help:"List a user's live sessions and what they were made with."`
	Export userExport `cmd:"" help:"Print everything that is kept in a user's sessions, as JSON."`
	Revoke userRevoke `cmd:"" help:"End a user's sessions: log the user out everywhere."`
	Erase  userErase  `cmd:"" help:"End a user's sessions and remove all values in them."`
}

// managed are the flags of commands that use a manager like a service's.
type managed struct {
	storeFlag
	keysFlags
}

// site is the command's access to a service's sessions.
type site struct {
	*sojourn.Manager
	store store.Store
	unsealer
	now time.Time
}

// with calls f with the service's sessions.
func (a *managed) with(ctx context.Context, term terminal, f func(context.Context, *site) error) (err error) {
	if err := a.named(); err != nil {
		return err
	}
	ring, keys, err := a.rings(term)
	if err != nil {
		return err
	}
	db, closeStore, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()
	sessions, err := sojourn.New(sojourn.Config{
		Name: a.Name, Keys: keys, Store: db, Timeout: openTime,
		Logger: slog.New(slog.DiscardHandler), // the command reports errors itself
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sessions.Close()) }()
	return f(sojourn.WithTenant(ctx, a.Tenant), &site{sessions, db, a.unsealer(ring), time.Now()})
}

// userArgs are a user, and the location of the sessions.
type userArgs struct {
	User string `arg:"" help:"The user, as given to Session.Login."`
	managed
}

// listing is a user's records in a store.
type listing struct {
	*site
	user string
	all  []store.Record     // none is a tombstone
	live []store.Record     // of them
	shut map[store.ID]error // why some do not open
}

// with calls f with the sessions of the user.
func (a *userArgs) with(ctx context.Context, term terminal, f func(context.Context, *listing) error) error {
	if a.User == "" {
		return usagef("which user? An empty name is nobody's")
	}
	return a.managed.with(ctx, term, func(ctx context.Context, s *site) error {
		l, err := s.list(ctx, a.User)
		if err != nil {
			return err
		}
		return f(ctx, l)
	})
}

// list lists a user's sessions.
func (s *site) list(ctx context.Context, user string) (*listing, error) {
	recs, err := byUser(ctx, s.store, s.unsealer, user)
	if err != nil {
		return nil, err
	}
	l := &listing{site: s, user: user, shut: map[store.ID]error{}}
	for _, rec := range recs {
		if rec.IsEnd() {
			continue
		}
		l.all = append(l.all, rec)
		if !rec.Expired(s.now) {
			l.live = append(l.live, rec)
		}
		if _, _, err := s.unsealer.open(&rec); err != nil {
			l.shut[rec.ID] = explain(err, s.name, keyID(rec.Data))
		}
	}
	return l, nil
}

// byUser returns a user's records from a store's index.
func byUser(ctx context.Context, s store.Store, u unsealer, user string) ([]store.Record, error) {
	index, ok := s.(store.UserIndex)
	if !ok {
		return nil, errors.New("this kind of store has no index by user")
	}
	hash := u.ring.UserHash(u.scope(), user)
	recs, err := index.ByUser(ctx, hash)
	return slices.DeleteFunc(recs, func(rec store.Record) bool { return rec.User != hash }), err
}

// whole returns an error if a live session does not open, because the list or
// export is then incomplete.
func (l *listing) whole() error {
	n := 0
	var why error
	for _, rec := range l.live {
		if err := l.shut[rec.ID]; err != nil {
			n, why = n+1, err
		}
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%s of that user cannot be opened: %w", counted(n, "live session"), why)
}

// userSession is a session as user list and user export print it.
type userSession struct {
	Handle    string    `json:"handle"`
	User      string    `json:"user"`
	Created   timestamp `json:"created"`
	Seen      timestamp `json:"last_seen"`
	LoggedIn  timestamp `json:"logged_in"`
	Methods   []string  `json:"methods"`
	Expires   timestamp `json:"expires"`
	UserAgent string    `json:"user_agent"`
	IP        string    `json:"ip"`
	Bytes     int       `json:"bytes"`
	// Of an export.
	Values  map[string]any `json:"values,omitempty"`
	Flashes []flash        `json:"flashes,omitempty"`
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
	return `Lists a user's live sessions, the last used first. The exit status is 1 if there is none, or if one of them cannot be opened.

Examples:

    sojourn user list ada --keys data/session.keys --store sqlite:data/sessions.db
    sojourn user list ada --json | jq -r '.[].handle'
`
}

func (c *userList) Run(ctx context.Context, term terminal) error {
	return c.with(ctx, term, func(ctx context.Context, l *listing) error {
		infos, err := l.Sessions(ctx, c.User)
		if err != nil {
			return err
		}
		if len(l.live) == 0 {
			return noSession(ctx, l.store, l.unsealer, c.User)
		}
		all := []userSession{}
		for i := range infos {
			all = append(all, userSessionOf(&infos[i]))
		}
		if c.JSON {
			return errors.Join(printJSON(term.out, all), l.whole())
		}
		w := newList(term.out)
		fmt.Fprintln(w, "HANDLE\tCREATED\tLAST SEEN\tEXPIRES AT THE LATEST\tIP\tUSER AGENT")
		for _, s := range all {
			// The browser's text must not control the terminal.
			fmt.Fprintf(w, "%s\t%v\t%v\t%v\t%s\t%s\n", s.Handle, s.Created, s.Seen, s.Expires, orDash(s.IP), orDash(s.UserAgent))
		}
		return errors.Join(w.Flush(), l.whole())
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
	return `Prints a user's live sessions with all their values and flash messages, decoded, as a JSON array: for a user who asks what is kept about them. Bytes are given in base64. The exit status is 1 if there is no session, or if one cannot be opened, which is left out.

The output is personal data. Keep it in a file that only you can read.

Examples:

    sojourn user export ada --keys data/session.keys --store sqlite:data/sessions.db > ada.json
    sojourn user export ada --name admin-session | jq '.[].values'
`
}

func (c *userExport) Run(ctx context.Context, term terminal) error {
	return c.with(ctx, term, func(ctx context.Context, l *listing) error {
		exports, err := l.ExportUser(ctx, c.User)
		if err != nil {
			return err
		}
		if len(l.live) == 0 {
			return noSession(ctx, l.store, l.unsealer, c.User)
		}
		all := []userSession{}
		for i := range exports {
			if id, err := store.ParseID(exports[i].Handle); err != nil || l.shut[id] != nil {
				continue // it would look like a session without values
			}
			s := userSessionOf(&exports[i].Info)
			s.Values = map[string]any{}
			for name, v := range exports[i].Values {
				s.Values[name] = forJSON(v)
			}
			for _, f := range exports[i].Flashes {
				s.Flashes = append(s.Flashes, flash{f.Level, &f.Text})
			}
			all = append(all, s)
		}
		return errors.Join(printJSON(term.out, all), l.whole())
	})
}

type userRevoke struct {
	userArgs
	Keep   []string `placeholder:"HANDLE" help:"Leave this session; may be given again."`
	DryRun bool     `help:"Say how many sessions would end, and do nothing."`
	JSON   bool     `name:"json" help:"Print JSON."`
}

func (userRevoke) Help() string {
	return `Ends a user's live sessions on every replica, for example after a stolen password. Streams end within a second. A service with caches in its process may serve a copy for as long as their Unheard, a second by default.

The exit status is 1, with the reason, if no session has ended: the user has none, the key file or the name is not that of these sessions, or all are kept. With --keep, nothing ends unless all sessions to keep exist.

Examples:

    sojourn user revoke ada --keys data/session.keys --store sqlite:data/sessions.db
    sojourn user revoke ada --keep hviqnsuzpvktywiydtsrqst62q --dry-run
`
}

func (c *userRevoke) Run(ctx context.Context, term terminal) error {
	for _, handle := range c.Keep {
		if _, err := parseHandle(handle); err != nil {
			return fmt.Errorf("--keep: %w", err)
		}
	}
	return c.with(ctx, term, func(ctx context.Context, l *listing) error {
		kept := func(rec store.Record) bool { return slices.Contains(c.Keep, rec.ID.String()) }
		for _, handle := range c.Keep {
			if len(l.live) > 0 && !slices.ContainsFunc(l.live, func(rec store.Record) bool { return rec.ID.String() == handle }) {
				return fmt.Errorf("no session was ended: %s, given with --keep, is not a live session of that user", handle)
			}
		}
		n := 0
		for _, rec := range l.live {
			if err := l.shut[rec.ID]; !kept(rec) && (c.DryRun || err != nil && !errors.Is(err, seal.ErrUnknownKey)) {
				n++ // RevokeUser ends damaged ones, and does not count them
			}
		}
		if !c.DryRun {
			ended, err := l.RevokeUser(ctx, c.User, c.Keep...)
			if n += ended; err != nil {
				return fmt.Errorf("after %s: %w", counted(n, "session"), err)
			}
		}
		switch {
		case n > 0:
			return ending{term, c.JSON, c.DryRun}.print(n)
		case len(l.live) > 0:
			return errors.New("no session to end: all are kept")
		default:
			return noSession(ctx, l.store, l.unsealer, c.User)
		}
	})
}

type userErase struct {
	userArgs
	Yes    bool `help:"Do not ask."`
	DryRun bool `help:"Say how many sessions would be erased, and do nothing."`
	JSON   bool `name:"json" help:"Print JSON."`
}

func (userErase) Help() string {
	return `Ends a user's live sessions and removes all values in them from the store, for good: for a user who wants to be forgotten. What stays for about an hour are tombstones without values, named by a keyed hash. Backups, logs, and what the user's own browser keeps remain; remove them yourself.

It asks first, unless --yes says that you have thought about it. The exit status is 1, with the reason, if there was nothing to erase.

Examples:

    sojourn user erase ada --keys data/session.keys --store sqlite:data/sessions.db
    sojourn user erase ada --yes --json
`
}

func (c *userErase) Run(ctx context.Context, term terminal) error {
	return c.with(ctx, term, func(ctx context.Context, l *listing) error {
		// Expired sessions that were not swept yet also have values.
		if len(l.all) == 0 {
			return noSession(ctx, l.store, l.unsealer, c.User)
		}
		if c.DryRun {
			return ending{term, c.JSON, true}.print(len(l.all))
		}
		if !c.Yes {
			if !term.typing {
				return usagef("erase cannot be undone, and nobody is at the keyboard to be asked: give --yes")
			}
			fmt.Fprintf(term.messages, "Erase %s of %s for good? Type yes: ", counted(len(l.all), "session"), printable(c.User))
			answer, err := readLine(ctx, term.in)
			if err != nil || strings.TrimSpace(answer) != "yes" {
				return errors.New("nothing was erased")
			}
		}
		n, err := l.EraseUser(ctx, c.User)
		if err != nil {
			return fmt.Errorf("after %s: %w", counted(n, "session"), err)
		}
		return ending{term, c.JSON, false}.print(max(n, len(l.all)))
	})
}

// ending is the number of sessions that have ended, or would.
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
	did := "ended"
	if e.dry {
		did = "would end"
	}
	_, err := fmt.Fprintln(e.term.out, did, counted(n, "session"))
	return err
}

// forJSON converts a decoded value to one that JSON supports.
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
