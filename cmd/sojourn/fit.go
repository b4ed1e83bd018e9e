package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/seal"
	records "github.com/sojourn-go/sojourn/internal/stored"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

// unsealer opens the records of the sessions of one name and tenant.
type unsealer struct {
	ring         *seal.Ring
	name, tenant string
}

// scope is the scope of these records.
func (u unsealer) scope() string { return wire.Scope(u.name, u.tenant) }

// open opens a record that is not a tombstone, including all its values.
func (u unsealer) open(rec *store.Record) (inside record.Record, stale bool, err error) {
	inside, stale, err = records.OpenRecord(u.ring, rec.Data, wire.BindRecord(wire.Bind(u.scope()), rec), func(error) {})
	if err == nil && !inside.Whole() {
		err = seal.ErrOpen
	}
	return inside, stale, err
}

// fit is the result of checking a command's keys and name against the sessions
// of a store. Without the check, a wrong key file would look like a user
// without sessions.
type fit struct {
	unsealer
	seen       int             // records with sealed data
	opened     int             // of them
	indexed    int             // of the opened, logged-in ones that the index key finds
	misindexed int             // and logged-in ones indexed with another key
	lacking    map[string]bool // IDs of missing keys
	refused    store.Record    // a record whose key is present, but which did not open
}

func newFit(u unsealer) *fit { return &fit{unsealer: u, lacking: map[string]bool{}} }

// add looks at a record. It returns the user's name, and whether the record
// opened.
func (f *fit) add(rec *store.Record) (user string, ok bool) {
	if rec.IsEnd() || len(rec.Data) == 0 {
		return "", false
	}
	f.seen++
	inside, _, err := f.open(rec)
	switch {
	case errors.Is(err, seal.ErrUnknownKey):
		f.lacking[keyID(rec.Data)] = true
		return "", false
	case err != nil:
		f.refused = *rec
		return "", false
	}
	f.opened++
	user = inside.Header.User
	switch {
	case user == "":
	case f.ring.UserHash(f.scope(), user) == rec.User:
		f.indexed++
	default:
		f.misindexed++
	}
	return user, true
}

// walk reads records until one proves that keys, name and index key are correct.
func (f *fit) walk(recs iter.Seq2[store.Record, error]) error {
	for rec, err := range recs {
		if err != nil {
			return err
		}
		if f.add(&rec); f.indexed > 0 {
			return nil
		}
	}
	return nil
}

// errOtherName means that the name is wrong, or all records are damaged.
var errOtherName = errors.New("no session in this store belongs to the name that --name gives, or its default, session")

// mismatch returns an error for wrong keys or a wrong name, or nil.
func (f *fit) mismatch() error {
	switch {
	case f.indexed > 0 || f.seen == 0:
		return nil
	case f.misindexed > 0:
		return fmt.Errorf("the index key is not the one of the sessions in this store (%s checked), so it does not find users' sessions", counted(f.misindexed, "session"))
	case f.opened > 0:
		return nil // all are anonymous, so they do not test the index key
	case f.refused.Data != nil:
		return fmt.Errorf("%w (%s checked)%s", errOtherName, counted(f.seen, "session"), f.names())
	default:
		return fmt.Errorf("the keys open no session in this store (%s checked); they do not include the sealing %s",
			counted(f.seen, "session"), keyNames(slices.Sorted(maps.Keys(f.lacking))))
	}
}

// usualNames are tried if no session has the given name. The store does not
// contain names.
var usualNames = []string{"session", "sessions", "sid", "admin", "admin-session", "staff", "support", "shop", "app", "api", "user", "web"}

// names returns a hint with the usual name that fits.
func (f *fit) names() string {
	for _, name := range usualNames {
		if _, _, err := (unsealer{f.ring, name, f.tenant}).open(&f.refused); err == nil {
			return fmt.Sprintf("; a name that fits is %q", name)
		}
	}
	if f.tenant != "" {
		return "; they are the service's Config.Name and Config.Tenant"
	}
	return "; it is the service's Config.Name (and see --tenant, if the service has tenants)"
}

// checkFit returns an error for wrong keys or a wrong name for that store. nil
// may also mean that there is nothing to check against.
func checkFit(ctx context.Context, s store.Store, u unsealer) error {
	recs, err := scan(ctx, s)
	if err != nil {
		return nil //nolint:nilerr // such a store cannot be scanned
	}
	f := newFit(u)
	if err := f.walk(recs); err != nil {
		return fmt.Errorf("checking the keys against the store: %w", err)
	}
	return f.mismatch()
}

// noSession returns why no session of a user was found.
func noSession(ctx context.Context, s store.Store, u unsealer, user string) error {
	if err := checkFit(ctx, s, u); err != nil {
		return err
	}
	index, ok := s.(store.UserIndex)
	for _, other := range []string{strings.TrimSpace(user), strings.ToLower(user), strings.ToUpper(user), capitalized(user)} {
		if !ok || other == user || other == "" {
			continue
		}
		recs, err := index.ByUser(ctx, u.ring.UserHash(u.scope(), other))
		if err == nil && slices.ContainsFunc(recs, func(rec store.Record) bool { return !rec.IsEnd() }) {
			return fmt.Errorf("no live session of that user; there is one of %s: upper and lower case and spaces count", printable(other))
		}
	}
	return errors.New("no live session of that user")
}

func capitalized(s string) string {
	_, n := utf8.DecodeRuneInString(s)
	return strings.ToUpper(s[:n]) + strings.ToLower(s[n:])
}

// counted is a number of things.
func counted[N int | int64](n N, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
