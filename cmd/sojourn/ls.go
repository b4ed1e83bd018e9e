package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/sojourn-go/sojourn/store"
)

type ls struct {
	storeFlag
	keysFlags
	User  string `help:"Only this user's sessions, the last used first. Needs the keys."`
	All   bool   `help:"Also those that have expired, and the tombstones of those that have ended."`
	Limit int    `default:"100" help:"At most so many; 0 = all."`
	JSON  bool   `name:"json" help:"Print a JSON array."`
}

func (ls) Help() string {
	return `Lists live sessions: handle, version, whether somebody is logged in, when the session was last used, when it is over, and its size. Without --user the order means nothing. With keys (--keys, or the environment variable SOJOURN_KEYS) it also says which user a session belongs to; only the keys tell.

The exit status is 1 if nothing in a list opens with the keys and the name, and if --user has no session. An empty store is an empty list, status 0.

Examples:

    sojourn ls --store sqlite:data/sessions.db
    sojourn ls --store sqlite:data/sessions.db --keys data/session.keys
    sojourn ls --store sqlite:data/sessions.db --user ada --keys data/session.keys
    sojourn ls --limit 0 --json | jq -r '.[] | select(.logged_in) | .handle'
`
}

func (c *ls) Run(ctx context.Context, term terminal) (err error) {
	if c.Limit < 0 {
		return usagef("--limit %d is negative; 0 lists all", c.Limit)
	}
	var f *fit // nil without keys
	if c.User != "" || c.given() {
		if err := c.named(); err != nil {
			return err
		}
		ring, err := c.ring(term)
		if err != nil {
			return err
		}
		f = newFit(c.unsealer(ring))
	}
	s, closeStore, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeStore()) }()

	var recs iter.Seq2[store.Record, error]
	if c.User != "" {
		recs, err = c.ofUser(ctx, s, f.unsealer)
	} else {
		recs, err = scan(ctx, s)
	}
	if err != nil {
		return err
	}
	now := time.Now()
	w := newRowWriter(term.out, c.JSON, f != nil)
	more := false
	for rec, err := range recs {
		if err != nil {
			return err
		}
		r := rowOf(rec, now)
		if r.State != "live" && !c.All {
			continue
		}
		if more = c.Limit > 0 && w.rows == c.Limit; more {
			break
		}
		if f != nil {
			if user, ok := f.add(&rec); ok {
				r.User = &user
			}
		}
		if err := w.row(r); err != nil {
			return err
		}
	}
	if w.rows == 0 && c.User != "" {
		return noSession(ctx, s, f.unsealer, c.User)
	}
	if err := w.close(); err != nil {
		return err
	}
	if more {
		fmt.Fprintln(term.messages, "there are more; --limit 0 lists all")
	}
	return c.opened(term, f)
}

// opened reports how many of the listed sessions the keys do not open.
func (c *ls) opened(term terminal, f *fit) error {
	switch {
	case f == nil || f.opened == f.seen:
		return nil
	case f.opened == 0 && c.User == "":
		return f.mismatch()
	default:
		fmt.Fprintf(term.messages, "warning: %s of %d cannot be opened: of another service or name, or damaged\n", counted(f.seen-f.opened, "session"), f.seen)
		return nil
	}
}

// ofUser walks the records of one user.
func (c *ls) ofUser(ctx context.Context, s store.Store, u unsealer) (iter.Seq2[store.Record, error], error) {
	recs, err := byUser(ctx, s, u, c.User)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(recs, func(a, b store.Record) int { return b.Seen.Compare(a.Seen) })
	return func(yield func(store.Record, error) bool) {
		for _, rec := range recs {
			if !yield(rec, nil) {
				return
			}
		}
	}, nil
}

// rowWriter prints rows one by one, so that a long list needs no memory: as a
// table, or as a JSON array with one row per line.
type rowWriter struct {
	out   io.Writer
	table *tabwriter.Writer // nil for JSON
	users bool              // with a column for users
	rows  int
}

func newRowWriter(out io.Writer, asJSON, users bool) *rowWriter {
	w := &rowWriter{out: out, users: users}
	if !asJSON {
		w.table = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	}
	return w
}

// tableRows is how many rows are aligned and printed together.
const tableRows = 50

func (w *rowWriter) row(r row) error {
	w.rows++
	if w.table == nil {
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		before := ",\n  "
		if w.rows == 1 {
			before = "[\n  "
		}
		_, err = fmt.Fprintf(w.out, "%s%s", before, line)
		return err
	}
	head, cell := "", ""
	if w.users {
		head = "\tUSER"
		switch {
		case r.User != nil:
			cell = "\t" + orDash(*r.User)
		case r.LoggedIn:
			cell = "\t?"
		default:
			cell = "\t-"
		}
	}
	if w.rows == 1 {
		fmt.Fprintf(w.table, "HANDLE\tSTATE\tVERSION\tLOGGED IN%s\tLAST SEEN\tEXPIRES IF IDLE\tBYTES\n", head)
	}
	fmt.Fprintf(w.table, "%s\t%s\t%d\t%s%s\t%v\t%v\t%d\n",
		r.Handle, r.State, r.Version, yesNo(r.LoggedIn), cell, r.Seen, r.Deadline, r.Bytes)
	if w.rows%tableRows == 0 {
		return w.table.Flush()
	}
	return nil
}

func (w *rowWriter) close() error {
	switch {
	case w.table != nil && w.rows == 0:
		_, err := fmt.Fprintln(w.out, "no sessions")
		return err
	case w.table != nil:
		return w.table.Flush()
	case w.rows == 0:
		_, err := fmt.Fprintln(w.out, "[]")
		return err
	default:
		_, err := fmt.Fprint(w.out, "\n]\n")
		return err
	}
}
