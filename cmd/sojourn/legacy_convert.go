package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/legacy/formats"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/ops"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/open"
)

type legacyConvert struct {
	legacyFlags
	keysFlags
	storeFlag
	User     string            `placeholder:"NAME" help:"The value that says who is logged in, text or a number. It becomes the session's user, and no value. (webapp2's auth sessions know it themselves.)"`
	Rename   map[string]string `placeholder:"OLD=NEW" help:"Keep a value under another name. May be repeated."`
	Drop     []string          `placeholder:"NAME" help:"Leave a value out. May be repeated."`
	Until    time.Time         `placeholder:"TIME" help:"When the service stops adopting, as in its Adopt.Until, such as 2027-03-01T00:00:00Z. Required for sessions that never expire."`
	Lifetime time.Duration     `placeholder:"DURATION" help:"The service's Config.Lifetime, such as 720h, if it has one."`
	Idle     time.Duration     `placeholder:"DURATION" help:"The service's Config.IdleTimeout, if it has one."`
	DryRun   bool              `help:"Print what would be converted, and change nothing."`
	Parallel int               `default:"8" help:"How many sessions are converted at the same time."`
	JSON     bool              `name:"json" help:"Print JSON."`
}

func (legacyConvert) Help() string {
	return `Turns every live session of another library into one of Sojourn, as if its visitor had come: a visitor who brings the old cookie afterwards gets the converted session, if the service adopts from the same format (Config.Adopt) with the same keys and the same Config.Name. Nothing in the old store is changed.

There is no Adopt.Map here: values keep their names, or those that --rename gives them, as Session.Set would keep them; a typed key of that name and a fitting type reads them. Names that a session of Sojourn cannot have (empty, too long, or with an underscore at the front, such as webapp2's flash messages) are left out, and counted. Where that is not enough, adopt visitor by visitor, or convert in a program of your own: open each session with a Manager that has your Map.

A converted session ends when the old one would have, unless its visitor comes before. Run again, it goes on with what is not converted yet: whatever has been is left as it is, however often it has changed since, and what has ended stays so. The exit status is 1 if sessions are unreadable or refused, unless they are empty, and if there was none.

Examples:

    sojourn legacy convert --system beaker-session --config beaker.json --from file:/var/lib/shop/sessions --store sqlite:sessions.db --keys session.keys --user user_id --until 2027-03-01T00:00:00Z --dry-run
    sojourn legacy convert --system gae-sessions --config gae.json --from datastore://my-project --store postgres://shop@db/shop --keys session.keys --user uid --rename basket=cart
`
}

// converted is the result of legacy convert. Its JSON form is part of the
// command's interface: see README.md.
type converted struct {
	DryRun     bool           `json:"dry_run"`
	Read       int64          `json:"read"`
	Converted  int64          `json:"converted"`
	LoggedIn   int64          `json:"logged_in"` // of the converted ones
	Already    int64          `json:"already"`
	Over       int64          `json:"over"` // expired there, or ended or spent here
	Unreadable int64          `json:"unreadable"`
	Refused    int64          `json:"refused"`
	Reasons    map[string]int `json:"reasons"` // of the unreadable and refused ones
	LeftOut    int64          `json:"values_left_out"`
}

func (c *legacyConvert) Run(ctx context.Context, term terminal) (err error) {
	if c.Parallel < 1 || c.Parallel > 1000 {
		return usagef("--parallel %d: use 1 to 1000", c.Parallel)
	}
	if err := c.named(); err != nil {
		return err
	}
	ring, keys, err := c.rings(term)
	if err != nil {
		return err
	}
	opening, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	from, err := c.legacyFlags.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.close()) }()
	if strings.Contains(from.format.About().Name, "scs ") && hashesTokens(c.Config) {
		return usagef("--system scs: with hash_token the store does not know the tokens, and so not what the visitors will bring")
	}
	if !from.format.About().Expires && c.Until.IsZero() {
		return usagef("--until is missing: these sessions never expire by themselves")
	}
	to, closeTo, err := c.openTo(opening)
	if err != nil {
		return storeError("--store", err)
	}
	defer func() { err = errors.Join(err, closeTo()) }()
	switch err := checkFit(ctx, to, c.unsealer(ring)); {
	case errors.Is(err, errOtherName): // expected for a second service on the store
		fmt.Fprintf(term.messages, "warning: %v\n", err)
	case err != nil:
		return fmt.Errorf("nothing was converted, because no service would find or open it: %w", err)
	}

	w := &conversion{c: c, from: from, shown: newProgressLine(term)}
	m, err := sojourn.New(sojourn.Config{
		Name: c.Name, Tenant: func(*sojourn.RequestInfo) string { return c.Tenant }, Keys: keys, Store: &firstStore{to, c.DryRun, c.Until}, Lifetime: c.Lifetime, IdleTimeout: c.Idle,
		Logger: slog.New(slog.DiscardHandler),
		Adopt:  &sojourn.Adopt{From: []adopt.Format{&noting{formats.From(from.format)}}, Map: w.fill, Until: c.Until},
	})
	if err != nil {
		return fmt.Errorf("the new sessions: %w", err)
	}
	defer m.Close()
	w.m = m
	err = w.run(ctx)
	w.shown.done()
	if err != nil {
		return fmt.Errorf("%w (run the same command again to go on)", err)
	}
	return c.report(term, w.result())
}

func hashesTokens(config string) bool {
	text, err := legacyConfig(config)
	var in scsConfig
	return err == nil && json.Unmarshal(text, &in) == nil && in.HashToken
}

// openTo opens the new store. A dry run does not create one.
func (c *legacyConvert) openTo(ctx context.Context) (store.Store, func() error, error) {
	opening := open.Store
	if c.DryRun {
		opening = open.Existing
	}
	to, closer, err := opening(ctx, c.Store)
	if c.DryRun && errors.Is(err, open.ErrMissing) {
		return memory.New(), func() error { return nil }, nil
	}
	if err != nil {
		return nil, nil, err
	}
	return to, closer.Close, nil
}

// conversion is a walk through the old store.
type conversion struct {
	c     *legacyConvert
	from  *source
	m     *sojourn.Manager
	shown *progressLine

	mu      sync.Mutex // guards reasons
	reasons map[string]int

	read, converted, loggedIn, already, over, unreadable, turnedAway, leftOut atomic.Int64
}

func (w *conversion) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	defer running.Wait()
	free := make(chan struct{}, w.c.Parallel)
	for it, err := range w.from.list {
		if err != nil {
			cancel(err)
			break
		}
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		w.shown.show(func() string {
			return fmt.Sprintf("converting: %d read, %d converted, %d already there", w.read.Load(), w.converted.Load(), w.already.Load())
		})
		running.Go(func() {
			defer func() { <-free }()
			if err := w.one(ctx, it); err != nil {
				cancel(err)
			}
		})
	}
	running.Wait()
	return context.Cause(ctx)
}

// one converts one session, by opening it like its visitor's request.
func (w *conversion) one(ctx context.Context, it stored) error {
	w.read.Add(1)
	header, err := w.from.cookie(ctx, it.id, it.at)
	if err != nil {
		w.refuse(err)
		return nil
	}
	n := &fate{}
	ctx, x := w.m.Attach(context.WithValue(ctx, fateKey{}, n), func() sojourn.RequestInfo { return sojourn.RequestInfo{Header: header} })
	defer func() { _ = x.Finish() }() // nothing was changed after a commit
	s, err := w.m.Get(ctx)
	switch {
	case err != nil:
		return err
	case n.refused != nil:
		w.refuse(n.refused)
	case n.saved:
		w.converted.Add(1)
		w.leftOut.Add(int64(n.leftOut))
		if s.User() != "" {
			w.loggedIn.Add(1)
		}
	case !s.IsNew():
		w.already.Add(1)
	default:
		w.turnedAway.Add(1)
	}
	return nil
}

// refuse counts a session that was not accepted.
func (w *conversion) refuse(err error) {
	var refused adopt.Refusal
	why := string(reason.Of(err))
	if errors.As(err, &refused) {
		why = string(refused)
	}
	if why == string(reason.Expired) || why == string(reason.NotFound) {
		w.over.Add(1)
		return
	}
	w.unreadable.Add(1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reasons == nil {
		w.reasons = map[string]int{}
	}
	w.reasons[why]++
}

// fill is the Map of the conversion.
func (w *conversion) fill(old *adopt.Session, s *sojourn.Session) error {
	n, _ := old.Native.(*fate)
	user := old.User
	for name, v := range old.Values {
		if name == w.c.User {
			user = userText(v)
			continue
		}
		if slices.Contains(w.c.Drop, name) {
			continue
		}
		if other, ok := w.c.Rename[name]; ok {
			name = other
		}
		if name == "" || len(name) > 255 || name[0] == '_' {
			n.leftOut++
			continue
		}
		s.Set(name, v)
	}
	if user != "" {
		s.Login(user)
	}
	return nil
}

// userText is a user's identifier as text; "" = no user.
func userText(v any) string {
	switch v := v.(type) {
	case nil, bool, []byte, []any, map[string]any:
		return ""
	case string:
		return v
	default:
		return fmt.Sprint(v)
	}
}

// result returns the totals, including the manager's refusals.
func (w *conversion) result() converted {
	out := converted{
		DryRun: w.c.DryRun, Read: w.read.Load(), Converted: w.converted.Load(), LoggedIn: w.loggedIn.Load(),
		Already: w.already.Load(), Over: w.over.Load(), Unreadable: w.unreadable.Load(), LeftOut: w.leftOut.Load(),
		Reasons: map[string]int{},
	}
	maps.Copy(out.Reasons, w.reasons)
	for _, stats := range ops.For(w.m).AdoptStats() {
		for _, why := range []string{"empty", "unmapped", "unlimited", "too_large"} {
			if n := stats.Refused[why]; n > 0 {
				out.Refused += int64(n)
				out.Reasons[why] += int(n)
			}
		}
	}
	out.Over += w.turnedAway.Load() - out.Refused // ended or spent in the new store, or too old for it
	return out
}

func (c *legacyConvert) report(term terminal, n converted) error {
	if c.JSON {
		return errors.Join(printJSON(term.out, n), n.incomplete())
	}
	did := "converted"
	if n.DryRun {
		did = "would be converted"
	}
	list := newList(term.out)
	list.line("sessions read", n.Read)
	list.line(did, n.Converted)
	list.line("  of them logged in", n.LoggedIn)
	list.line("already there", n.Already)
	list.line("left out because they are over", n.Over)
	list.line("unreadable", n.Unreadable)
	list.line("refused", n.Refused)
	for _, why := range slices.Sorted(maps.Keys(n.Reasons)) {
		list.line("  "+why, n.Reasons[why])
	}
	list.line("values left out for their names", n.LeftOut)
	return errors.Join(list.Flush(), n.incomplete())
}

// incomplete returns an error if a session was left behind.
func (n *converted) incomplete() error {
	left := n.Unreadable + n.Refused - int64(n.Reasons["empty"]) // empty sessions have no values to convert
	switch {
	case n.Read == 0:
		return errors.New("there was no session to convert in the store that --from names")
	case left > 0:
		return fmt.Errorf("%s could not be converted: the reasons are counted", counted(left, "session"))
	default:
		return nil
	}
}

// fate is the outcome of one session, and its identity.
type fate struct {
	old     *adopt.Session
	refused error
	saved   bool
	leftOut int
}

type fateKey struct{}

// noting records the session that was found.
type noting struct{ adopt.Format }

func (l *noting) Find(ctx context.Context, in http.Header, now time.Time) (*adopt.Session, error) {
	old, err := l.Format.Find(ctx, in, now)
	n := ctx.Value(fateKey{}).(*fate) // every Open here has one
	n.old, n.refused = old, err
	if old != nil {
		old.Native = n
	}
	return old, err
}

// firstStore is the store for converted sessions. A conversion does not count
// as a use: a converted session expires when the old one would. It hides
// optional interfaces that are not needed.
type firstStore struct {
	store.Store
	dry   bool
	until time.Time
}

func (s *firstStore) Save(ctx context.Context, rec store.Record, base store.Base) error {
	n, _ := ctx.Value(fateKey{}).(*fate)
	isSession := n != nil && n.old != nil && !n.saved && !rec.IsEnd() && base == store.Base{}
	if isSession {
		rec.Deadline = rec.Expires
		for _, end := range []time.Time{n.old.Expires, s.until} {
			if !end.IsZero() && end.Before(rec.Deadline) {
				rec.Deadline = end
			}
		}
	}
	if !s.dry {
		if err := s.Store.Save(ctx, rec, base); err != nil {
			return err
		}
	}
	if isSession {
		n.saved = true
	}
	return nil
}
