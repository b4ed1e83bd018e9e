// Package store is the contract between Sojourn and the engines that keep its
// sessions.
//
// A [Store] keeps one [Record] per session. A record is opaque: the session
// manager seals its Data, and its ID is the hash of an identifier that only the
// visitor's browser has. So read access to a store gives no access to sessions.
// A store must guarantee three things:
//
//   - Save is a compare-and-set. It inserts only when base is zero, updates
//     only when base is not, and never does one in place of the other.
//   - A Save that is sent twice with the same save ID is saved once.
//   - A session that ended stays ended: its tombstone refuses every Save until
//     the tombstone's own deadline.
//
// Features that not every engine has are optional interfaces: [Toucher],
// [Sweeper], [UserIndex], [UserLimiter], [EndFeed], [Scanner], [Counter],
// [CacheCounter], [FloorLoader], [VolatileKeeper]. The manager finds them by
// type assertion and does without the missing ones. A store that wraps another
// store has all methods, and returns [errors.ErrUnsupported] from those that
// the other store does not have.
//
// Package storetest is the conformance suite for stores. Start there to write a
// new store.
package store

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"time"
)

var (
	// ErrNotFound means that no record with that ID exists.
	ErrNotFound = errors.New("store: no such record")

	// ErrConflict means that the stored record is not the one on which the
	// caller based its change: it has changed, has ended, or exists where none
	// was expected. The change was not applied and never will be. After any
	// error from Save or Delete that is not from this package, the outcome is
	// unknown.
	ErrConflict = errors.New("store: the record has changed")

	// ErrRefused means that a call changed nothing and never will: it was not
	// sent, or the engine refused it. Errors wrap it together with the reason,
	// such as a server that is full, read-only or unreachable. A store returns
	// it only if the outcome is certain.
	ErrRefused = errors.New("store: refused, nothing was changed")

	// ErrTooLarge means that the engine cannot keep a record of that size. The
	// stored record is untouched.
	ErrTooLarge = errors.New("store: record too large for this engine")

	// ErrLimit means that the user has as many live sessions as the limit
	// allows. Nothing was saved.
	ErrLimit = errors.New("store: the user has too many sessions")

	// ErrDamaged means that the row stored under an ID is not a record of that
	// ID: it is damaged, or belongs to another ID. Load returns ErrDamaged,
	// Save treats such a row as missing, and Delete replaces it.
	ErrDamaged = errors.New("store: damaged record")

	// ErrBadID means that a text is not the text form of an [ID].
	ErrBadID = errors.New("store: not a session handle")
)

// Store keeps session records. Implementations are safe for concurrent use.
//
// Errors wrap one of this package's sentinels where one fits; any other error
// means that the store could not answer. A call whose context has ended before
// it starts returns the context's error. No error text contains Data or an ID.
type Store interface {
	// Load returns the record with that ID: live, past its deadline, or a
	// tombstone; the caller distinguishes them. It returns ErrNotFound if there
	// is none. If the row is not a record of that ID, it returns ErrDamaged or
	// ErrNotFound. The record's Data is shared: neither side changes it
	// afterwards.
	Load(ctx context.Context, id ID) (Record, error)

	// Save stores rec if the stored record is still base.
	//
	// With the zero base it inserts. It returns ErrConflict if there is a
	// record or tombstone that is not past its Deadline. With any other base it
	// replaces. It returns ErrConflict if the stored record is missing, has
	// ended, or has another version or newest save ID than base.
	//
	// Before it returns ErrConflict, Save looks for rec.SaveIDs[0] among the
	// stored record's save IDs. If it is there, this save was applied before,
	// and Save returns nil. So a caller resolves an unknown outcome by sending
	// the same Save again.
	//
	// Seen and Deadline never move backwards (the later of stored and given is
	// kept) unless rec.Shorten is set or rec is a tombstone.
	//
	// A rec with Ended set is a tombstone: it replaces the session permanently.
	// Once Save has returned nil, the record is as durable as the engine
	// documents. Data is shared: neither side changes it afterwards.
	Save(ctx context.Context, rec Record, base Base) error

	// Delete ends the session whatever its version, and leaves a tombstone
	// until the given time, even for an unknown ID. The tombstone keeps the
	// record's user, version and save IDs, so that an earlier save is still
	// recognized when it is sent again. An existing tombstone keeps its Ended
	// time and the later of both deadlines. Delete is idempotent.
	Delete(ctx context.Context, id ID, until time.Time) error
}

// A Record is what a store keeps for one session. All times are UTC and are
// kept to the millisecond.
type Record struct {
	ID      ID        // row key
	Version uint64    // 1 for the first save, one more with each save
	SaveIDs []SaveID  // of the last saves, newest first, 1 to RecentSaveIDs; SaveIDs[0] is this version's
	User    UserHash  // the logged-in user; zero = none. Part of the user index
	Created time.Time // when the session was first stored
	Seen    time.Time // last activity that was recorded
	// Deadline is when the record expires unless it is touched: the idle
	// deadline, at most Expires. A tombstone is kept until then.
	Deadline time.Time
	Expires  time.Time // absolute end of the session
	Ended    time.Time // zero = live; otherwise this is a tombstone, without Data
	Data     []byte    // sealed; nil in a tombstone

	// Shorten lets a Save move Seen and Deadline backwards. It is not stored.
	Shorten bool
}

// IsEnd reports whether the record is a tombstone.
func (r *Record) IsEnd() bool { return !r.Ended.IsZero() }

// Expired reports whether the record's deadline has passed at now. A session is
// still valid at the exact time of its deadline.
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

// HasSaveID reports whether saveID is among the record's recent save IDs.
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

// MinTombstone is the minimum time for which a tombstone is kept, so that it
// refuses requests that were under way when the session ended: a minute for
// them, and ClockSkew.
const MinTombstone = time.Minute + ClockSkew

// ID is a record's row key: the first 128 bits of the SHA-256 of the session's
// identifier. It is not a credential.
type ID [16]byte

// HashIdentifier returns the row key for a session identifier.
func HashIdentifier(identifier []byte) ID {
	sum := sha256.Sum256(identifier)
	return ID(sum[:len(ID{})])
}

// handleText writes IDs in lower case, without padding: safe in URLs, file
// names and on a command line.
var handleText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// String returns the ID as 26 lower-case letters and digits. It is the
// session's handle: its public name in logs and admin pages.
func (id ID) String() string { return handleText.EncodeToString(id[:]) }

// ParseID parses the result of String. It returns ErrBadID for any other text.
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
// zero value means no user.
type UserHash [16]byte

// Toucher is a store that can extend a session without rewriting it. Without
// it, the manager uses Save.
type Toucher interface {
	// Touch moves Seen and Deadline forward, never backwards, and changes
	// neither version nor save IDs. It returns ErrNotFound when there is no
	// record with that ID, or when it has ended. A record past its deadline is
	// extended or not found, depending on the engine.
	Touch(ctx context.Context, id ID, seen, deadline time.Time) error
}

// Sweeper is a store that does not remove old records by itself. Engines with
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
	// ByUser returns the user's records in no particular order, without
	// tombstones and damaged records. Records past their deadline may be among
	// them. The zero UserHash has none.
	ByUser(ctx context.Context, user UserHash) ([]Record, error)
}

// UserLimiter is a store that can limit a user's number of live sessions.
type UserLimiter interface {
	// SaveLimited is Save with the zero base, for a new session of rec.User,
	// and limits the user to limit.Max live sessions: those that have not ended
	// and may not be past their deadline by some replica's clock. If there are
	// more, it ends the oldest of the others, as Delete does, and returns them;
	// with limit.Refuse it returns ErrLimit instead. [UserLimit.InTheWay] has
	// the exact rule. All of this has happened when SaveLimited returns, or
	// none of it if the error is ErrConflict, ErrTooLarge or ErrLimit.
	//
	// However many calls run at once, none returns nil while the user has more
	// than limit.Max live sessions, not counting those of calls that have not
	// returned yet, and no session is ended that fits the limit. Another call
	// may end a call's session before that call returns, which may then return
	// ErrConflict.
	SaveLimited(ctx context.Context, rec Record, limit UserLimit) (ended []ID, err error)
}

// UserLimit is the limit on a user's live sessions.
type UserLimit struct {
	Max    int  // 1 or more, the new one included
	Refuse bool // instead of ending the oldest sessions
	// Replaces is a session of the user that does not count and is not ended,
	// because the new one will take its place. Zero = none.
	Replaces ID
	Until    time.Time // until when the tombstones are kept
}

// EndFeed is a store that can list which sessions have ended, for other
// processes.
type EndFeed interface {
	// Ends returns the ends since an earlier call. With the cursor of that
	// call, the result has every end that a Save, Delete or SaveLimited
	// reported between the start of that call and the start of this one. If
	// More is set, some of them come with the next calls. An end may be
	// returned more than once.
	//
	// FeedFromNow starts with the sessions that end from now on, FeedFromStart
	// with every tombstone that is not past its deadline. A page has about
	// limit ends.
	Ends(ctx context.Context, cursor string, limit int) (EndPage, error)
}

// Cursors that start a feed.
const (
	FeedFromNow   = ""
	FeedFromStart = "start"
)

// EndPage is one page of an [EndFeed].
type EndPage struct {
	Ends   []End
	Cursor string // for the next call; never empty
	More   bool   // there are more: call again at once
}

// End is the end of a session.
type End struct {
	ID    ID
	Until time.Time // the tombstone's deadline
}

// Scanner is a store whose records can be listed, for tools.
type Scanner interface {
	// Scan returns up to about limit records, including tombstones and expired
	// records, and a cursor for the next call. "" starts a scan, and a returned
	// "" ends it. A record that exists during the whole scan is returned at
	// least once. The scan ends even while records are added.
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

// Counts is the number of records in a store, by kind, and the size of their
// Data.
type Counts struct {
	Live     int64 `json:"live"`      // neither ended nor past the deadline
	LoggedIn int64 `json:"logged_in"` // those of Live that belong to a user
	Expired  int64 `json:"expired"`   // not ended, past the deadline, not yet swept
	Ended    int64 `json:"ended"`     // tombstones, before and past their deadline
	Bytes    int64 `json:"bytes"`     // sum of len(Data)
}

// FloorLoader is a store with copies that may lag behind, such as one with
// caches in front. A session's reference carries the version that its browser
// has seen.
type FloorLoader interface {
	Store
	// LoadFrom is Load, but answers from a copy only if the copy's version is
	// at least floor. With floor 0 it loads from the origin.
	LoadFrom(ctx context.Context, id ID, floor uint64) (Record, error)
}

// VolatileKeeper is a store with a cache for values that may be lost with the
// cache. They are kept beside the record and belong to one state of it: the
// next Save, Delete or end of the session invalidates them. A request that
// saves the session stores them again for the new state.
type VolatileKeeper interface {
	Store
	// LoadVolatile returns the values that SaveVolatile last kept for that
	// state of the record, or ErrNotFound. Any other error means that the cache
	// could not answer.
	LoadVolatile(ctx context.Context, id ID, base Base) (Volatile, error)

	// SaveVolatile keeps next for that state of the record, at most until the
	// given time, in place of the values with the save ID prev (zero = none).
	// It returns ErrConflict if other values are there, and nil if next itself
	// is, from an earlier call. After any other error the values must be saved
	// with the record: the cache does not have the record in that state,
	// because it ended or changed, or the cache could not answer.
	SaveVolatile(ctx context.Context, id ID, base Base, prev SaveID, next Volatile, until time.Time) error
}

// Volatile is a set of values that a cache holds for one state of a record.
type Volatile struct {
	SaveID SaveID // random; new with each SaveVolatile
	Data   []byte // sealed
}
