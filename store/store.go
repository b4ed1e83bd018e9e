// Package store is the contract between Sojourn and the engines that keep its
// sessions.
//
// A [Store] keeps one [Record] per session. A record is opaque: its Data is
// sealed by the session manager, and its ID is the hash of an identifier that
// only the visitor's browser knows, so whoever can read a store can neither
// read a session nor use one. What a store must get right is small and strict:
//
//   - Save is a compare-and-set. It inserts only when base is zero, updates
//     only when base is not, and never does one in place of the other.
//   - A Save that is sent twice with the same save ID is saved once.
//   - A session that ended stays ended: its tombstone refuses every Save until
//     the mark's own deadline.
//
// Everything that not every engine can do is an optional interface: [Toucher],
// [Sweeper], [UserIndex], [UserLimiter], [EndFeed], [Scanner], [Counter],
// [CacheCounter], [FloorLoader], [VolatileKeeper]. The manager asks for them by type assertion
// and does without where they are missing. A store that wraps another one
// has all methods, and answers [errors.ErrUnsupported] from those that the other
// does not have.
//
// The package storetest is the suite that every store passes, and the place to
// start when writing a new one.
package store

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"time"
)

var (
	// ErrNotFound says that no record with that ID exists.
	ErrNotFound = errors.New("store: no such record")

	// ErrConflict says that the stored record is not the one the caller based
	// its change on (or exists, where none was expected; or has ended). The
	// change was not applied and never will be. An error from Save or Delete that
	// is none of this package's leaves the outcome open.
	ErrConflict = errors.New("store: the record has changed")

	// ErrRefused says that a call changed nothing and never will: it was not sent,
	// or the engine answered that it was not carried out. Errors wrap it together
	// with the reason, such as a server that is full, read-only or cannot be
	// reached. An engine that cannot be sure does not use it.
	ErrRefused = errors.New("store: refused, nothing was changed")

	// ErrTooLarge says that the engine cannot keep a record of that size. The
	// stored record is untouched.
	ErrTooLarge = errors.New("store: record too large for this engine")

	// ErrLimit says that the user has as many live sessions as the limit allows.
	// Nothing was saved.
	ErrLimit = errors.New("store: the user has too many sessions")

	// ErrDamaged says that what is stored under an ID is not a record of that ID:
	// it was damaged, or it belongs to another one. Load returns it; Save takes
	// such a row for a missing one, and Delete replaces it.
	ErrDamaged = errors.New("store: damaged record")

	// ErrBadID says that a text is not the text form of an [ID].
	ErrBadID = errors.New("store: not a session handle")
)

// Store keeps session records. Implementations are safe for concurrent use.
//
// Errors wrap one of this package's sentinels where one fits; every other
// error means that the store could not answer. A call whose context is over
// before it starts returns the context's error. No error text contains Data or
// an ID.
type Store interface {
	// Load returns the record with that ID: live, past its deadline, or an end
	// mark; the caller tells them apart. It returns ErrNotFound when there is
	// none, and ErrDamaged or ErrNotFound, never a record of another ID, when the
	// row holds something else. The record's Data is shared: neither side
	// changes it afterwards.
	Load(ctx context.Context, id ID) (Record, error)

	// Save stores rec if what is stored is still base.
	//
	// With the zero base it inserts: any record that is there, and that is not
	// past its Deadline, is ErrConflict, a tombstone included. With any other
	// base it replaces: a stored record that is missing, that has ended, or
	// whose version or newest save ID differ from base is ErrConflict.
	//
	// Before it answers ErrConflict, Save looks for rec.SaveIDs[0] among the
	// stored record's save IDs and answers nil when it is there: this very save was
	// applied before. That is how a caller resolves an unknown outcome: it sends
	// the same Save again.
	//
	// Seen and Deadline never move backwards (the later of stored and given is
	// kept) unless rec.Shorten is set or rec is a tombstone.
	//
	// A rec with Ended set is a tombstone: it replaces the session for good.
	// Once Save has returned nil the record survives whatever the engine is
	// documented to survive. Data is shared: neither side changes it afterwards.
	Save(ctx context.Context, rec Record, base Base) error

	// Delete ends the session whatever its version, and leaves a tombstone until
	// the given time, also for an ID that was never seen. The tombstone keeps the
	// record's user, and its version and save IDs, so that a save from before the end
	// is still recognized when it is sent again. A tombstone that is already there
	// keeps its Ended time and the later of both deadlines. Delete is idempotent.
	Delete(ctx context.Context, id ID, until time.Time) error
}

// A Record is what a store keeps for one session. All times are UTC and are
// kept to the millisecond.
type Record struct {
	ID      ID        // row key
	Version uint64    // 1 for the first save, one more with each
	SaveIDs []SaveID  // of the last saves, newest first, 1 to RecentSaveIDs of them; SaveIDs[0] is this version's
	User    UserHash  // who is logged in; zero = nobody. Part of the user index
	Created time.Time // when the session was first stored
	Seen    time.Time // last activity, as far as it was noted
	// Deadline is when the record is over unless it is touched before: the
	// idle deadline, at most Expires. For a tombstone, until when it is kept.
	Deadline time.Time
	Expires  time.Time // absolute end of the session
	Ended    time.Time // zero = live; otherwise this is a tombstone, without Data
	Data     []byte    // sealed; nil in a tombstone

	// Shorten lets a Save move Seen and Deadline backwards. It is not stored.
	Shorten bool
}

// IsEnd reports whether the record is a tombstone.
func (r *Record) IsEnd() bool { return !r.Ended.IsZero() }

// Expired reports whether the record's deadline has passed at now. A session
// is still valid at the very instant of its deadline.
func (r *Record) Expired(now time.Time) bool { return now.After(r.Deadline) }

// Base is the state of a record that a change was made from.
func (r *Record) Base() Base {
	if r.Version == 0 {
		return Base{}
	}
	b := Base{Version: r.Version}
	if len(r.SaveIDs) > 0 {
		b.SaveID = r.SaveIDs[0]
	}
	return b
}

// HasTag reports whether save ID is among the record's recent ones.
func (r *Record) HasSaveID(saveID SaveID) bool {
	for _, t := range r.SaveIDs {
		if t == saveID {
			return true
		}
	}
	return false
}

// Base names the stored state that a Save expects. The zero Base expects none.
type Base struct {
	Version uint64
	SaveID  SaveID
}

// A SaveID is a random number that each save carries, so that a save whose outcome
// is unknown can be sent again without being applied twice.
type SaveID uint64

// RecentSaveIDs is how many save IDs a record keeps.
const RecentSaveIDs = 8

// MinTombstone is the least time for which a tombstone is kept, so that requests
// that were under way when the session ended meet the mark: a minute for them, and
// ClockSkew.
const MinTombstone = time.Minute + ClockSkew

// ID is a record's row key: the first 128 bits of the SHA-256 of the session's
// identifier. It is not a credential.
type ID [16]byte

// HashIdentifier returns the row key for a session identifier.
func HashIdentifier(identifier []byte) ID {
	sum := sha256.Sum256(identifier)
	return ID(sum[:len(ID{})])
}

// handleText spells IDs in lower case, without padding: safe in URLs, file
// names and on a command line.
var handleText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// String returns the ID as 26 lower-case letters and digits. It is the
// session's handle: its public name in logs and admin pages.
func (id ID) String() string { return handleText.EncodeToString(id[:]) }

// ParseID reads what String wrote. It returns ErrBadID for anything else.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != handleText.EncodedLen(len(id)) {
		return ID{}, ErrBadID
	}
	if _, err := handleText.Decode(id[:], []byte(s)); err != nil || id.String() != s {
		return ID{}, ErrBadID
	}
	return id, nil
}

// UserHash is the keyed hash under which a user's sessions are indexed. The
// zero value is nobody.
type UserHash [16]byte

// Toucher is a store that can extend a session without rewriting it. The
// manager falls back to a Save where it is missing.
type Toucher interface {
	// Touch moves Seen and Deadline forward, never backwards, and changes
	// neither version nor save IDs. It returns ErrNotFound when there is no record
	// with that ID, or when it has ended. One that is past its deadline is
	// extended or not found, as suits the engine.
	Touch(ctx context.Context, id ID, seen, deadline time.Time) error
}

// Sweeper is a store that needs help to get rid of old records. Engines with
// native expiry do not implement it.
type Sweeper interface {
	// Sweep removes at most limit records and tombstones whose deadline passed
	// more than age ago, and returns how many it removed; fewer than limit
	// means that none are left. It uses the engine's own clock where it has
	// one, and may run in several processes at once.
	Sweep(ctx context.Context, age time.Duration, limit int) (int, error)
}

// UserIndex is a store that can find a user's sessions without a full scan.
type UserIndex interface {
	// ByUser returns the user's records in no particular order, without end
	// marks. Records past their deadline may be among them; damaged ones, and
	// those of other users, are left out. The zero UserHash has none.
	ByUser(ctx context.Context, user UserHash) ([]Record, error)
}

// UserLimiter is a store that can hold a user to a number of live sessions.
type UserLimiter interface {
	// SaveLimited is Save with the zero base, for a new session of rec.User, and
	// holds the user to limit.Max live ones: those that have not ended and are
	// not past their deadline, by any replica's clock. If there are more, the
	// oldest of the others are ended as Delete ends them, and returned; or, with
	// limit.Refuse, the result is ErrLimit. [UserLimit.InTheWay] says it exactly. It has all happened when SaveLimited returns, or none of it if
	// the error is ErrConflict, ErrTooLarge or ErrLimit.
	//
	// However many calls run at once, none returns nil while the user has more
	// than limit.Max live sessions, other calls' that have not returned yet
	// aside; and no session is ended that the limit has room for. One call's
	// session may be ended by another before its own call returns, which may
	// then be ErrConflict.
	SaveLimited(ctx context.Context, rec Record, limit UserLimit) (ended []ID, err error)
}

// UserLimit says how many live sessions a user may have.
type UserLimit struct {
	Max    int  // 1 or more, the new one included
	Refuse bool // rather than ending the oldest ones
	// Replaces is a session of the user that does not count and is not ended,
	// because the new one is about to take its place. Zero = none.
	Replaces ID
	Until    time.Time // until when the tombstones are kept
}

// EndFeed is a store that can tell which sessions have ended, so that other
// processes hear of it.
type EndFeed interface {
	// Ends returns the ends since an earlier call. With the cursor of that call,
	// every end that a Save, Delete or SaveLimited reported between the start of
	// that call and the start of this one is among the result's, or among those
	// of the calls that More asks for. An end may be returned more than once.
	//
	// FeedFromNow starts with what ends from now on, FeedFromStart with every
	// tombstone that is not past its deadline. A page has about limit ends.
	Ends(ctx context.Context, cursor string, limit int) (EndPage, error)
}

// Cursors that start a feed.
const (
	FeedFromNow   = ""
	FeedFromStart = "start"
)

// EndPage is one answer of an [EndFeed].
type EndPage struct {
	Ends   []End
	Cursor string // for the next call; never empty
	More   bool   // there are more already: call again at once
}

// End says that a session has ended.
type End struct {
	ID    ID
	Until time.Time // the tombstone's deadline
}

// Scanner is a store whose records can be walked, for tools.
type Scanner interface {
	// Scan returns up to about limit records, tombstones and expired ones
	// included, and a cursor for the next call; "" starts, and a returned ""
	// means that all were seen. A record that exists during the whole walk is
	// returned at least once. The walk ends even while records are added.
	Scan(ctx context.Context, cursor string, limit int) (recs []Record, next string, err error)
}

// CacheCounter is a store with caches that counts their hits and misses.
type CacheCounter interface {
	CacheStats() (hits, misses uint64)
}

// Counter is a store that can count its records quickly.
type Counter interface {
	Count(ctx context.Context) (Counts, error)
}

// Counts says how many records a store holds, by kind, and how much room their
// Data takes.
type Counts struct {
	Live     int64 `json:"live"`      // neither ended nor past the deadline
	LoggedIn int64 `json:"logged_in"` // those of Live that belong to a user
	Expired  int64 `json:"expired"`   // not ended, past the deadline, not yet swept
	Ended    int64 `json:"ended"`     // tombstones, before and past their deadline
	Bytes    int64 `json:"bytes"`     // sum of len(Data)
}

// FloorLoader is a store with copies that may lag behind, such as one with
// caches in front. A session in it carries the version its browser has seen.
type FloorLoader interface {
	Store
	// LoadFrom is Load, but answers from a copy only if the copy's version is
	// at least floor. With floor 0 it asks the origin.
	LoadFrom(ctx context.Context, id ID, floor uint64) (Record, error)
}

// VolatileKeeper is a store with a cache that can hold values which need not
// survive it. They are kept beside the record, for one state of it: the next
// Save, Delete or end of the session makes them void. Whoever saves the session
// carries them over, if it has them.
type VolatileKeeper interface {
	Store
	// LoadVolatile returns what SaveVolatile kept last for that state of the
	// record. It returns ErrNotFound when there is nothing, or not any more; any
	// other error says that the cache could not answer.
	LoadVolatile(ctx context.Context, id ID, base Base) (Volatile, error)

	// SaveVolatile keeps next for that state of the record, at most until the
	// given time, in place of what LoadVolatile returned with the save ID prev (zero:
	// nothing). It returns ErrConflict when something else is there, and nil when
	// next itself is: it was sent before. Any other error means that the values
	// have to be saved with the record: the cache does not have the record in
	// that state, which has perhaps ended or changed, or it could not answer.
	SaveVolatile(ctx context.Context, id ID, base Base, prev SaveID, next Volatile, until time.Time) error
}

// Volatile is a set of values that a cache holds for one state of a record.
type Volatile struct {
	SaveID SaveID // random; new with each SaveVolatile
	Data   []byte // sealed
}
