package main

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sojourn-go/sojourn/internal/keyfile"
	"github.com/sojourn-go/sojourn/keys"
)

// keysCommands change the keys of a running service.
type keysCommands struct {
	List     keysList     `cmd:"" help:"List the keys, and what to do next."`
	Add      keysAdd      `cmd:"" help:"Publish a new key, which every process must load before one seals with it."`
	Activate keysActivate `cmd:"" help:"Make the newest published key the one that seals."`
	Retire   keysRetire   `cmd:"" help:"Mark the keys before it as retired."`
	Remove   keysRemove   `cmd:"" help:"Remove retired keys that no session can need any more."`
	Check    keysCheck    `cmd:"" help:"Report errors and risks of a key file."`
}

// fleetFlags describe the services that use the keys, which determines the
// waiting times.
type fleetFlags struct {
	Reload   time.Duration `default:"10s" help:"How often the services look at the file: the interval given to keys.WatchFile. Count in how long the file takes to reach every machine."`
	Lifetime time.Duration `default:"720h" help:"The longest lifetime of a session: the services' Config.Lifetime."`
	JSON     bool          `name:"json" help:"Print JSON."`
}

// stageFlags are the flags of stages that are refused if they are too early.
type stageFlags struct {
	fleetFlags
	Now bool `help:"Do it although it is too early: no service is running, or all have read the file."`
}

// tooEarly refuses a stage before its time.
func (f *stageFlags) tooEarly(wait time.Duration, format string, args ...any) error {
	if f.Now || wait <= 0 {
		return nil
	}
	return fmt.Errorf("%s: wait %s, or give --now", fmt.Sprintf(format, args...), exactly(wait))
}

func (f *fleetFlags) check() error {
	switch {
	case f.Reload < 0:
		return usagef("--reload %v is negative; 0s means that nothing is running", f.Reload)
	case f.Lifetime < 0:
		return usagef("--lifetime %v is negative; the longest is 9600h, 400 days", f.Lifetime)
	}
	return nil
}

// keysJSON is the output of the commands with --json.
type keysJSON struct {
	File    string    `json:"file"`  // "" = from the environment
	Index   bool      `json:"index"` // there is an index entry
	Keys    []keyJSON `json:"keys"`
	Changed []string  `json:"changed"` // IDs of the keys that the command has added, changed or removed
	Next    string    `json:"next"`    // what to do next; "" = nothing
	Wait    int64     `json:"wait_seconds"`
}

type keyJSON struct {
	ID        string    `json:"id"`
	State     string    `json:"state"`
	Seals     bool      `json:"seals"`
	Created   timestamp `json:"created"`
	Activated timestamp `json:"activated"` // null if unknown
	Retired   timestamp `json:"retired"`
}

// report prints what was done with the keys, and what to do next.
func (f *fleetFlags) report(term terminal, file *keyFile, did string, changed ...string) error {
	now := time.Now()
	next, wait := f.next(file, now)
	if f.JSON {
		out := keysJSON{
			File: file.path, Index: file.indexed, Changed: append([]string{}, changed...),
			Next: next, Wait: int64((wait + time.Second - 1) / time.Second),
		}
		for _, k := range file.keys {
			out.Keys = append(out.Keys, keyJSON{k.ID, k.State, k.Seals, timestamp(k.Created), timestamp(k.activated), timestamp(k.retired)})
		}
		return printJSON(term.out, out)
	}
	if _, err := fmt.Fprintln(term.out, did); err != nil {
		return err
	}
	if next == "" {
		next = "nothing; a new key is published with: sojourn keys add " + file.path
	}
	if wait > 0 {
		next = fmt.Sprintf("wait %s, until %v; then %s", exactly(wait), timestamp(now.Add(wait)), next)
	}
	_, err := fmt.Fprintf(term.out, "next: %s\n", next)
	return err
}

// next returns the next step of a key change, and how long to wait before it.
func (f *fleetFlags) next(file *keyFile, now time.Time) (string, time.Duration) {
	left := func(at time.Time) time.Duration { return max(0, at.Sub(now)) }
	if p := file.newest("published"); p != nil {
		return "make sure that every replica has reloaded the file (the services log it), and run: sojourn keys activate " + file.path,
			left(file.since(p).Add(f.Reload))
	}
	if old := file.superseded(); len(old) > 0 {
		first := f.unused(file, old[0])
		for _, k := range old[1:] {
			if at := f.unused(file, k); at.Before(first) {
				first = at
			}
		}
		return "run: sojourn keys retire " + file.path, left(first)
	}
	var first time.Time
	for i := range file.keys {
		if k := &file.keys[i]; k.State == "retired" && file.removable(k) == nil {
			if at := f.over(file, k); first.IsZero() || at.Before(first) {
				first = at
			}
		}
	}
	if first.IsZero() {
		return "", 0
	}
	return "run: sojourn keys remove " + file.path, left(first)
}

// over is when no session is left that a retired key has sealed. Services that
// had not reloaded the file yet used it slightly longer.
func (f *fleetFlags) over(file *keyFile, k *fileKey) time.Time {
	return file.since(k).Add(f.Lifetime + f.Reload)
}

// newest returns the newest key in a state, nil if there is none.
func (f *keyFile) newest(state string) (newest *fileKey) {
	for i := range f.keys {
		if k := &f.keys[i]; k.State == state && (newest == nil || !k.Created.Before(newest.Created)) {
			newest = k
		}
	}
	return newest
}

// superseded returns the active keys that do not seal.
func (f *keyFile) superseded() (keys []*fileKey) {
	for i := range f.keys {
		if k := &f.keys[i]; k.State == "active" && !k.Seals {
			keys = append(keys, k)
		}
	}
	return keys
}

// unused is when no service seals with a superseded key any more, because all
// have loaded the newer active one.
func (f *fleetFlags) unused(file *keyFile, k *fileKey) time.Time {
	next := file.sealing()
	for i := range file.keys {
		other := &file.keys[i]
		if other.State == "active" && other.ID != k.ID && !other.Created.Before(k.Created) && file.since(other).Before(file.since(next)) {
			next = other
		}
	}
	return file.since(next).Add(f.Reload)
}

// removable returns why a retired key can never be removed, or nil.
func (f *keyFile) removable(k *fileKey) error {
	if !f.indexed && f.oldest().ID == k.ID {
		return fmt.Errorf("key %s has to stay: the file has no index entry, so users' sessions are found with a key that comes from this one, the oldest", k.ID)
	}
	return nil
}

type keysList struct {
	fleetFlags
	File string `arg:"" optional:"" help:"The key file; without it, the keys in SOJOURN_KEYS."`
}

func (keysList) Help() string {
	return `Lists the keys by their public ids, and says which step of a roll-out comes next. Secrets are never printed.

Examples:

    sojourn keys list data/session.keys
    sojourn keys list data/session.keys --json | jq -r .next
`
}

func (c *keysList) Run(term terminal) error {
	if err := c.check(); err != nil {
		return err
	}
	file, err := readKeys(c.File)
	if err != nil {
		return err
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "KEY\tSTATE\tSEALS\tCREATED\tIN THIS STATE SINCE")
	for i := range file.keys {
		k := &file.keys[i]
		fmt.Fprintf(w, "%s\t%s\t%s\t%v\t%v\n", k.ID, k.State, yesNo(k.Seals), timestamp(k.Created), timestamp(file.since(k)))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if !file.indexed {
		fmt.Fprintf(&table, "no index entry: users' sessions are found with a key that comes from %s, the oldest\n", file.oldest().ID)
	}
	return c.report(term, file, strings.TrimSuffix(table.String(), "\n"))
}

type keysAdd struct {
	fleetFlags
	File string `arg:"" help:"The key file."`
}

func (keysAdd) Help() string {
	return `Adds a new key in state published: it opens, and seals nothing yet. This is the first step of a roll-out; docs/run/keys.md has all of them. The file keeps its mode, its owner and its comments, and is replaced all at once.

Examples:

    sojourn keys add data/session.keys
    sojourn keys add data/session.keys --reload 5m     # the file takes minutes to reach every machine
`
}

func (c *keysAdd) Run(term terminal) error {
	return c.change(c.File, term, func(file *keyFile, now time.Time) (string, []string, error) {
		if p := file.newest("published"); p != nil {
			return "", nil, fmt.Errorf("key %s is published already: sojourn keys activate makes it the one that seals", p.ID)
		}
		// It must be the newest, even if a clock was wrong before.
		created := now.UTC().Truncate(time.Second)
		for _, k := range file.keys {
			if !created.After(k.Created) {
				created = k.Created.Add(time.Second)
			}
		}
		_, rest, _ := strings.Cut(keys.Generate(), ":")
		_, secret, _ := strings.Cut(rest, ":")
		file.append("published:" + created.Format(noteTime) + ":" + secret)
		if err := file.parse(); err != nil {
			return "", nil, err
		}
		k := &file.keys[len(file.keys)-1]
		file.setState(k, "published", "published", now)
		return fmt.Sprintf("published key %s", k.ID), []string{k.ID}, nil
	})
}

// change edits a key file and reports on it.
func (f *fleetFlags) change(path string, term terminal, edit func(file *keyFile, now time.Time) (did string, ids []string, err error)) error {
	if err := f.check(); err != nil {
		return err
	}
	file, err := readKeys(path)
	if err != nil {
		return err
	}
	before := file.text
	did, ids, err := edit(file, time.Now())
	if err != nil {
		return err
	}
	if err := file.save(before); err != nil {
		return err
	}
	return f.report(term, file, did, ids...)
}

type keysActivate struct {
	stageFlags
	File string `arg:"" help:"The key file."`
}

func (keysActivate) Help() string {
	return `Makes the newest published key active: from the next reload on, services seal with it. It is refused as long as a service may not have read the file since the key was published (see --reload): that service would log out every visitor who comes from another one.

Examples:

    sojourn keys activate data/session.keys
    sojourn keys activate data/session.keys --now     # nothing is running
`
}

func (c *keysActivate) Run(term terminal) error {
	return c.change(c.File, term, func(file *keyFile, now time.Time) (string, []string, error) {
		k := file.newest("published")
		if k == nil {
			return "", nil, errors.New("there is no published key: sojourn keys add makes one")
		}
		if err := c.tooEarly(file.since(k).Add(c.Reload).Sub(now), "key %s was published at %v, and services read the file every %v: a replica without the key would log out visitors whose sessions another replica seals with it",
			k.ID, timestamp(file.since(k)), c.Reload); err != nil {
			return "", nil, err
		}
		if s := file.sealing(); s.Created.After(k.Created) {
			return "", nil, fmt.Errorf("key %s is older than key %s, which is active: it would not seal; publish a new one with sojourn keys add", k.ID, s.ID)
		}
		file.setState(k, "active", "activated", now)
		return fmt.Sprintf("key %s is active: services seal with it from their next reload on", k.ID), []string{k.ID}, nil
	})
}

type keysRetire struct {
	stageFlags
	File string `arg:"" help:"The key file."`
	Key  string `placeholder:"ID" help:"This key, rather than all active ones that do not seal any more."`
}

func (keysRetire) Help() string {
	return `Marks the active keys that no longer seal as retired. They still open, and data that they sealed is sealed again when it is used. They can be removed a lifetime of a session later. The command refuses to retire a key as long as a service may not have read the file since the next key became active (see --reload), because that service still seals with the old key.

Examples:

    sojourn keys retire data/session.keys
    sojourn keys retire data/session.keys --key 4f3a2b1c --now
`
}

func (c *keysRetire) Run(term terminal) error {
	return c.change(c.File, term, func(file *keyFile, now time.Time) (string, []string, error) {
		var ids []string
		var why []error
		if c.Key != "" {
			k, err := file.find(c.Key)
			switch {
			case err != nil:
				return "", nil, err
			case k.Seals:
				return "", nil, fmt.Errorf("key %s is the one that seals: activate a newer one first", k.ID)
			case k.State == "retired":
				return "", nil, fmt.Errorf("key %s is retired already", k.ID)
			}
			if err := c.mayRetire(file, k, now); err != nil {
				return "", nil, err
			}
			ids = []string{k.ID}
		} else {
			for _, k := range file.superseded() {
				if err := c.mayRetire(file, k, now); err != nil {
					why = append(why, err)
				} else {
					ids = append(ids, k.ID)
				}
			}
		}
		switch {
		case len(ids) > 0:
		case len(why) > 0:
			return "", nil, errors.Join(why...)
		default:
			return "", nil, errors.New("no key to retire: only one is active, and it seals; sojourn keys add publishes its successor")
		}
		for _, id := range ids {
			k, err := file.find(id)
			if err != nil {
				return "", nil, err
			}
			file.setState(k, "retired", "retired", now)
			if err := file.parse(); err != nil {
				return "", nil, err
			}
		}
		return "retired " + keyNames(ids), ids, nil
	})
}

// mayRetire returns why a key cannot be retired now, or nil.
func (c *keysRetire) mayRetire(file *keyFile, k *fileKey, now time.Time) error {
	if k.State != "active" {
		return nil // it has sealed nothing
	}
	return c.tooEarly(c.unused(file, k).Sub(now), "services read the file every %v: one that has not read the last change still seals with key %s", c.Reload, k.ID)
}

type keysRemove struct {
	stageFlags
	File string `arg:"" help:"The key file."`
	Key  string `placeholder:"ID" help:"This key, rather than all retired ones whose time has come."`
}

func (keysRemove) Help() string {
	return `Removes retired keys, after a session's whole lifetime since they were retired: by then, every session that they sealed has been sealed again or has ended. The command refuses to remove a key earlier. The file records when a key was retired; without that record, the time of the file's last change counts.

Examples:

    sojourn keys remove data/session.keys
    sojourn keys remove data/session.keys --lifetime 168h --key 4f3a2b1c
`
}

func (c *keysRemove) Run(term terminal) error {
	return c.change(c.File, term, func(file *keyFile, now time.Time) (string, []string, error) {
		var ids []string
		var why []error
		for i := range file.keys {
			k := &file.keys[i]
			if c.Key != "" && k.ID != c.Key || c.Key == "" && k.State != "retired" {
				continue
			}
			if err := c.mayRemove(file, k, now); err != nil {
				why = append(why, err)
			} else {
				ids = append(ids, k.ID)
			}
		}
		switch {
		case len(ids) > 0:
		case len(why) > 0:
			return "", nil, errors.Join(why...)
		case c.Key != "":
			_, err := file.find(c.Key)
			return "", nil, err
		default:
			return "", nil, errors.New("no key is retired")
		}
		for _, id := range ids {
			k, err := file.find(id)
			if err != nil {
				return "", nil, err
			}
			file.remove(k)
			if err := file.parse(); err != nil {
				return "", nil, err
			}
		}
		return "removed " + keyNames(ids), ids, nil
	})
}

// mayRemove returns why a key cannot be removed now, or nil.
func (c *keysRemove) mayRemove(file *keyFile, k *fileKey, now time.Time) error {
	if c.Now {
		now = c.over(file, k)
	}
	return c.mayGo(file, k, now)
}

// mayGo returns why a key cannot be removed at a time, or nil.
func (f *fleetFlags) mayGo(file *keyFile, k *fileKey, now time.Time) error {
	if k.State != "retired" {
		return fmt.Errorf("key %s is %s: retire it first, and wait for a lifetime", k.ID, k.State)
	}
	if err := file.removable(k); err != nil {
		return err
	}
	if wait := f.over(file, k).Sub(now); wait > 0 {
		return fmt.Errorf("key %s was retired at %v, and sessions live for up to %v: wait %s, or give --now, and the visitors whose sessions it sealed are logged out",
			k.ID, timestamp(file.since(k)), f.Lifetime, exactly(wait))
	}
	return nil
}

func keyNames(ids []string) string {
	if len(ids) == 1 {
		return "key " + ids[0]
	}
	return "keys " + strings.Join(ids, ", ")
}

// exactly formats a waiting time, rounded up to the second.
func exactly(d time.Duration) string {
	return (d + time.Second - 1).Truncate(time.Second).String()
}

type keysCheck struct {
	fleetFlags
	File string        `arg:"" optional:"" help:"The key file; without it, the keys in SOJOURN_KEYS."`
	Age  time.Duration `default:"8760h" help:"Complain about keys that are older."`
}

func (keysCheck) Help() string {
	return `Says what is wrong or risky with a key file: who has access to it, what cannot be read, a missing index entry, a key that seals before every service can know it, several active keys, and old ones. The exit status is 1 if there is anything to say.

Examples:

    sojourn keys check data/session.keys
    sojourn keys check data/session.keys --age 2160h --json
`
}

// complaint is an error (a service refuses the keys) or a risk.
type complaint struct {
	Level string `json:"level"` // wrong or risky
	Key   string `json:"key"`   // its id; "" = the whole file
	Text  string `json:"text"`
}

func (c *keysCheck) Run(term terminal) error {
	if err := c.check(); err != nil {
		return err
	}
	if c.Age <= 0 {
		return usagef("--age %v: use a time above 0", c.Age)
	}
	file, err := readKeys(c.File)
	if file == nil || file.text == "" {
		return err // there is nothing to check
	}
	found := c.complaints(file, err, time.Now())
	if c.JSON {
		if err := printJSON(term.out, found); err != nil {
			return err
		}
	} else {
		for _, one := range found {
			if _, err := fmt.Fprintf(term.out, "%s: %s\n", one.Level, one.Text); err != nil {
				return err
			}
		}
	}
	switch {
	case len(found) == 1:
		return fmt.Errorf("%s has 1 error or risk", file.name())
	case len(found) > 1:
		return fmt.Errorf("%s has %d errors or risks", file.name(), len(found))
	case !c.JSON:
		_, err = fmt.Fprintf(term.out, "%s is fine\n", file.name())
	}
	return err
}

func (c *keysCheck) complaints(file *keyFile, unreadable error, now time.Time) []complaint {
	found := []complaint{}
	complain := func(level, key, format string, args ...any) {
		found = append(found, complaint{level, key, fmt.Sprintf(format, args...)})
	}
	if file.info != nil {
		mode := file.info.Mode().Perm()
		if err := keyfile.Access(file.path, file.info); err != nil {
			complain("wrong", "", "services refuse the file: %v", err)
		} else if mode&0o020 != 0 && runtime.GOOS != "windows" {
			complain("risky", "", "all members of the file's group can change it (mode %#o): chmod g-w %s", mode, file.path)
		}
	}
	if unreadable != nil {
		complain("wrong", "", "services refuse it: %v", unreadable)
		return found
	}
	if !file.indexed {
		oldest := file.oldest()
		complain("risky", oldest.ID, "there is no index entry: users' sessions are found with a key that comes from %s, the oldest, which can therefore never be removed. A file that sojourn keygen makes has one", oldest.ID)
	}
	seals := file.sealing()
	if age := now.Sub(file.since(seals)); len(file.keys) > 1 && age < c.Reload {
		complain("risky", seals.ID, "a stage was skipped, or is not over: key %s has been active for only %s. Services read the file every %v: a replica without the key logs out visitors whose sessions another replica seals with it", seals.ID, exactly(age), c.Reload)
	} else if noted := seals.activated; !noted.IsZero() && !seals.published.IsZero() && noted.Sub(seals.published) < c.Reload && now.Sub(noted) < c.Lifetime {
		complain("risky", seals.ID, "a stage was skipped: key %s became active only %s after it was published, and services read the file every %v", seals.ID, exactly(noted.Sub(seals.published)), c.Reload)
	}
	for _, k := range file.superseded() {
		complain("risky", k.ID, "key %s is active and does not seal, because key %s is newer: sojourn keys retire %s", k.ID, seals.ID, file.path)
	}
	for i := range file.keys {
		k := &file.keys[i]
		age := now.Sub(k.Created)
		switch {
		case age < -time.Minute:
			complain("risky", k.ID, "key %s was made in the future: a clock was wrong", k.ID)
		case age <= c.Age:
		case k.Seals:
			complain("risky", k.ID, "key %s seals and is %s old: sojourn keys add %s publishes its successor", k.ID, rough(age), file.path)
		case k.State == "retired" && c.mayGo(file, k, now) == nil:
			complain("risky", k.ID, "key %s is %s old, and no session needs it: sojourn keys remove %s", k.ID, rough(age), file.path)
		case k.State == "published":
			complain("risky", k.ID, "key %s was published %s ago and never became active: sojourn keys activate %s", k.ID, rough(age), file.path)
		}
	}
	return found
}
