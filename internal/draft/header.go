package draft

import (
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
)

// header is the changes of a session's header; nil = unchanged.
type header struct {
	idle, lifetime *int64
	persist        *record.Persist
	presented      uint64 // the generation whose credential was sent for the first time; 0 = none
	rotate         *rotation
	legacy         *string // where the session's legacy form is
}

// rotation replaces the credential of one generation.
type rotation struct {
	from  uint64
	grace int64 // in ms
}

// SetExpiry changes the session's own timeouts, in milliseconds as in the header.
func (d *Draft) SetExpiry(idle, lifetime int64) (changed bool) {
	h := &d.view.Header
	if h.Idle == idle && h.Lifetime == lifetime {
		return false
	}
	d.header.idle, d.header.lifetime = &idle, &lifetime
	h.Idle, h.Lifetime = idle, lifetime
	return true
}

// SetPersist changes whether the browser keeps the session.
func (d *Draft) SetPersist(p record.Persist) (changed bool) {
	h := &d.view.Header
	if h.Persist == p {
		return false
	}
	d.header.persist = &p
	h.Persist = p
	return true
}

// SetLegacy sets the link to the session's form in another library.
func (d *Draft) SetLegacy(link string) { d.header.legacy, d.view.Header.Legacy = &link, link }

// Presented records that the credential of that generation was sent for the
// first time.
func (d *Draft) Presented(generation uint64) { d.header.presented = generation }

// Rotate replaces the credential of that generation. It stays valid for grace
// after the first use of its successor.
func (d *Draft) Rotate(from uint64, grace time.Duration) {
	d.header.rotate = &rotation{from, grace.Milliseconds()}
}

// Rotates reports whether the credential is replaced.
func (d *Draft) Rotates() bool { return d.header.rotate != nil }

// DropChores drops the changes of Presented and Rotate.
func (d *Draft) DropChores() { d.header.presented, d.header.rotate = 0, nil }

// NeedsCookie reports whether a change of the header requires a cookie.
func (d *Draft) NeedsCookie() bool {
	return d.header != header{presented: d.header.presented}
}

// ChangesHeader reports whether anything in the header was changed.
func (d *Draft) ChangesHeader() bool { return d.header != header{} }

func (h *header) apply(to *record.Header, now int64) {
	if h.idle != nil {
		to.Idle = *h.idle
	}
	if h.lifetime != nil {
		to.Lifetime = *h.lifetime
	}
	if h.persist != nil {
		to.Persist = *h.persist
	}
	if h.legacy != nil {
		to.Legacy = *h.legacy
	}
	if h.presented != 0 && to.Generation == h.presented && to.Presented == 0 {
		to.Presented = now
	}
	// Only the first rotation counts. No other one starts until the new
	// credential was sent: slower requests of this visitor would be two
	// generations behind.
	if r := h.rotate; r != nil && to.Generation == r.from && (to.Generation == 0 || to.Presented != 0) {
		to.OlderUntil = 0
		if to.Presented != 0 {
			to.OlderUntil = to.Presented + r.grace
		}
		to.Generation++
		to.Presented, to.Rotated = 0, now
	}
}

// Login makes a session's header that of a new one.
type Login struct {
	User    string
	Methods string // names without white space, separated by it
	At      time.Time
	Created int64 // Unix milliseconds: the start of the lifetime
	// Link is the session's new link; "" = the previous one, if the user is the
	// same.
	Link string
	// Drop: the values belong to another user, so drop them.
	Drop bool
}

// Header is the header of the login's session, made from the previous session's.
func (l *Login) Header(before *record.Header, userAgent, ip string) record.Header {
	return record.Header{
		Created:   l.Created,
		User:      l.User,
		AuthTime:  l.At.UnixMilli(),
		Methods:   l.Methods,
		UserAgent: userAgent,
		IP:        ip,
		Idle:      before.Idle,
		Lifetime:  before.Lifetime,
		Persist:   before.Persist,
		Unknown:   before.Unknown,
		Link:      l.LinkOf(before),
	}
}

// LinkOf is the link of the login's session.
func (l *Login) LinkOf(before *record.Header) string {
	if l.Link == "" && !l.Drop {
		return before.Link
	}
	return l.Link
}

// ShowLogin sets the view's header to that of the login. It is not recorded as
// a change, because the login itself is one.
func (d *Draft) ShowLogin(h record.Header) { d.view.Header = h }

// MergeInline merges an inline state into a stored session of the same origin:
// parallel requests had the same cookie. The later change of each value wins,
// and a change in the store always wins.
func MergeInline(stored, inline *record.Record) record.Record {
	out := stored.Clone()
	for _, f := range inline.Fields() {
		have, ok := out.Find(f.Name)
		switch {
		case ok && (have.Stamp == 0 || have.Stamp >= f.Stamp):
		case !ok && f.Stamp <= out.Header.PromotedAt: // removed since
		default:
			out.Put(f)
		}
	}
	return out.Done()
}
