package draft

import (
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
)

// header is what was done to a session's header; nil = nothing.
type header struct {
	idle, lifetime *int64
	persist        *record.Persist
	presented      uint64 // the credential of this generation came back for the first time; 0 = none
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

// SetLegacy changes where the session's form in another library is.
func (d *Draft) SetLegacy(link string) { d.header.legacy, d.view.Header.Legacy = &link, link }

// Presented notes that the credential of that generation came back for the first
// time.
func (d *Draft) Presented(generation uint64) { d.header.presented = generation }

// Rotate replaces the credential of that generation. The one before it stays good
// for grace after its successor was first used.
func (d *Draft) Rotate(from uint64, grace time.Duration) {
	d.header.rotate = &rotation{from, grace.Milliseconds()}
}

// Rotates reports whether the credential is replaced.
func (d *Draft) Rotates() bool { return d.header.rotate != nil }

// DropChores forgets what Presented and Rotate noted.
func (d *Draft) DropChores() { d.header.presented, d.header.rotate = 0, nil }

// NeedsCookie reports whether any change of the header shows in a cookie.
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
	// One successor, whoever is first. And one at a time: until its credential
	// has come back, another rotation would leave slower requests of this visitor
	// two behind.
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
	// Link is what the session is linked to from now on; "" = what it was linked to
	// before, unless the user is another one.
	Link string
	// Drop: the values are those of another user.
	Drop bool
}

// Header is the header of the session that the login makes out of one before.
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

// LinkOf is the link of that session.
func (l *Login) LinkOf(before *record.Header) string {
	if l.Link == "" && !l.Drop {
		return before.Link
	}
	return l.Link
}

// ShowLogin makes the view's header that of the login. It is no change: the login
// itself is what is done.
func (d *Draft) ShowLogin(h record.Header) { d.view.Header = h }

// MergeInline adds to a stored session what an inline state of the same session
// knows and the stored one does not: parallel requests grew out of one cookie.
// The later change of each value wins, a change in the store always.
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
