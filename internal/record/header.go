package record

import (
	"encoding/binary"
	"time"
)

// Header is a session's data besides its values. Zero fields take no space.
// Times are Unix milliseconds, 0 = not set.
type Header struct {
	// Identifier is the secret identifier of an inline session, used when it is
	// stored. Stored records do not have it.
	Identifier []byte
	Counter    uint64 // in a cookie: one more with each change
	Created    int64  // start of the absolute lifetime
	Seen       int64  // in a cookie: last recorded activity
	Expires    int64  // in a cookie: absolute end

	Generation  uint64 // grows with each rotation
	Presented   int64  // when the credential of this generation was first sent
	User        string // the logged-in user; "" = none
	AuthTime    int64  // when that user logged in
	UserAgent   string // of the request that created the session or logged in
	IP          string // likewise
	Idle        int64  // idle timeout in ms for this session; 0 = configured, negative = none
	Lifetime    int64  // absolute lifetime in ms for this session; 0 = configured
	Persist     Persist
	PromotedAt  uint64 // inline counter from which the stored record was first made
	Promoted    int64  // when that was
	InlineUntil int64  // until when a cookie with this session inline may be sent

	Methods    string // how that user authenticated: space-separated names
	Rotated    int64  // when this generation's credential was made
	OlderUntil int64  // until when the second-to-last generation is accepted
	Renewed    int64  // when the absolute end of a session without a lifetime was extended
	Suspected  uint64 // the generation at which an outdated credential was last reported

	// Legacy is the origin of an adopted session, encoded by package adoption.
	Legacy string

	// Link identifies the session of an OpenID provider with which this one ends.
	Link string

	// Unknown holds entries of newer versions, unchanged.
	Unknown []byte
}

// Persist is how long the browser keeps the session's cookies.
type Persist uint8

const (
	PersistConfigured Persist = iota // by the manager's configuration
	PersistAlways                    // until the session's absolute end
	PersistBrowser                   // until the browser is closed
)

// Tags of the header's entries. They are part of the wire format: never reuse
// one. New entries take the next free number.
const (
	tagIdentifier = 1 + iota
	tagCounter
	tagCreated
	tagSeen
	tagExpires
	tagGeneration
	tagPresented
	tagUser
	tagAuthTime
	tagUserAgent
	tagIP
	tagIdle
	tagLifetime
	tagPersist
	tagPromotedAt
	tagInlineUntil
	tagMethods
	tagRotated
	tagOlderUntil
	tagSuspected
	tagLegacy
	tagPromoted
	tagRenewed
	tagLink
	tagFirstUnknown
)

// IdentifierSize is the length of a session identifier, in bytes.
const IdentifierSize = 32

func (h *Header) append(dst []byte) []byte {
	text := func(tag byte, s string) {
		if s != "" {
			dst = append(dst, tag)
			dst = binary.AppendUvarint(dst, uint64(len(s)))
			dst = append(dst, s...)
		}
	}
	number := func(tag byte, v uint64) {
		if v != 0 {
			var b [binary.MaxVarintLen64]byte
			n := binary.PutUvarint(b[:], v)
			dst = append(dst, tag, byte(n))
			dst = append(dst, b[:n]...)
		}
	}
	signed := func(tag byte, v int64) { // zigzag
		number(tag, uint64(v)<<1^uint64(v>>63))
	}
	if len(h.Identifier) > 0 {
		dst = append(dst, tagIdentifier)
		dst = appendBytes(dst, h.Identifier)
	}
	number(tagCounter, h.Counter)
	number(tagCreated, uint64(h.Created))
	number(tagSeen, uint64(h.Seen))
	number(tagExpires, uint64(h.Expires))
	number(tagGeneration, h.Generation)
	number(tagPresented, uint64(h.Presented))
	text(tagUser, h.User)
	number(tagAuthTime, uint64(h.AuthTime))
	text(tagUserAgent, h.UserAgent)
	text(tagIP, h.IP)
	signed(tagIdle, h.Idle)
	signed(tagLifetime, h.Lifetime)
	number(tagPersist, uint64(h.Persist))
	number(tagPromotedAt, h.PromotedAt)
	number(tagInlineUntil, uint64(h.InlineUntil))
	text(tagMethods, h.Methods)
	number(tagRotated, uint64(h.Rotated))
	number(tagOlderUntil, uint64(h.OlderUntil))
	number(tagSuspected, h.Suspected)
	text(tagLegacy, h.Legacy)
	number(tagPromoted, uint64(h.Promoted))
	number(tagRenewed, uint64(h.Renewed))
	text(tagLink, h.Link)
	return append(dst, h.Unknown...)
}

func (h *Header) parse(b []byte) bool {
	d := decoder{b: b}
	last := uint64(0)
	for len(d.b) > 0 {
		rest := d.b
		tag := d.uvarint()
		e := decoder{b: d.bytes()}
		if d.bad || tag <= last {
			return false
		}
		last = tag
		if tag >= tagFirstUnknown {
			// Tags ascend, so all that follows is unknown too; its frames are
			// still checked.
			if h.Unknown == nil {
				h.Unknown = rest
			}
			continue
		}
		switch tag {
		case tagIdentifier:
			h.Identifier, e.b = e.b, nil
			if len(h.Identifier) != IdentifierSize {
				return false
			}
		case tagCounter:
			h.Counter = e.nonzero()
		case tagCreated:
			h.Created = e.millis()
		case tagSeen:
			h.Seen = e.millis()
		case tagExpires:
			h.Expires = e.millis()
		case tagGeneration:
			h.Generation = e.nonzero()
		case tagPresented:
			h.Presented = e.millis()
		case tagUser:
			h.User = e.text()
		case tagAuthTime:
			h.AuthTime = e.millis()
		case tagUserAgent:
			h.UserAgent = e.text()
		case tagIP:
			h.IP = e.text()
		case tagIdle:
			h.Idle = e.signed()
		case tagLifetime:
			h.Lifetime = e.signed()
		case tagPersist:
			v := e.nonzero()
			if v > uint64(PersistBrowser) {
				return false
			}
			h.Persist = Persist(v)
		case tagPromotedAt:
			h.PromotedAt = e.nonzero()
		case tagInlineUntil:
			h.InlineUntil = e.millis()
		case tagMethods:
			h.Methods = e.text()
		case tagRotated:
			h.Rotated = e.millis()
		case tagOlderUntil:
			h.OlderUntil = e.millis()
		case tagSuspected:
			h.Suspected = e.nonzero()
		case tagLegacy:
			h.Legacy = e.text()
		case tagPromoted:
			h.Promoted = e.millis()
		case tagRenewed:
			h.Renewed = e.millis()
		case tagLink:
			h.Link = e.text()
		}
		if e.bad || len(e.b) > 0 {
			return false
		}
	}
	return !d.bad
}

func (d *decoder) text() string {
	s := string(d.b)
	if s == "" {
		d.fail()
	}
	d.b = nil
	return s
}

func (d *decoder) signed() int64 {
	v := d.nonzero()
	return int64(v>>1) ^ -int64(v&1)
}

// Millis returns t in the form that records use; 0 for the zero time.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Time is the inverse of Millis, in UTC.
func Time(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}
