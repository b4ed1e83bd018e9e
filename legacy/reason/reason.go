// Package reason has the reasons for refusing a legacy session.
//
// Each [Reason] is an error value: readers wrap it, and a caller tests for it
// with errors.Is. The texts are stable and contain no secrets, so they can
// label a counter.
package reason

import "errors"

// Reason is one kind of refusal. It is comparable and works with errors.Is.
type Reason string

// Error returns the reason's stable text.
func (r Reason) Error() string { return string(r) }

const (
	// Missing: the request carries no cookie of that library.
	Missing Reason = "missing"
	// Malformed: the cookie does not have the form the library writes.
	Malformed Reason = "malformed"
	// BadSignature: the cookie was changed, or written with another key or name.
	BadSignature Reason = "bad_signature"
	// Expired: the session is genuine but has expired.
	Expired Reason = "expired"
	// NotFound: the cookie is genuine but has no server-side session.
	NotFound Reason = "not_found"
	// BadSID: a signed cookie names an identifier the library never makes.
	BadSID Reason = "bad_sid"
	// BadToken: the token is not, or no longer, valid for the session.
	BadToken Reason = "bad_token"
	// Decode: the stored or signed bytes are not a value of the format.
	Decode Reason = "decode_error"
	// Decrypt: the bytes do not open with the configured key and cipher.
	Decrypt Reason = "decrypt_error"
	// NotObject: the payload is a value, but not a dictionary.
	NotObject Reason = "not_object"
	// HostilePickle: the pickle refers to something that no session needs.
	HostilePickle Reason = "hostile_pickle"
	// ResourceLimit: decoding would take more memory or time than allowed.
	ResourceLimit Reason = "resource_limit"
	// AmbiguousKey: the client's identifier also addresses another visitor's
	// variables.
	AmbiguousKey Reason = "ambiguous_key"
)

// ErrUnreadable means that a session is genuine, as far as its format can
// check, but could not be read. The old application may be able to read it, so
// do not overwrite it.
var ErrUnreadable = errors.New("the session is genuine, and cannot be read")

// IsUnreadable reports whether err, which wraps a reason, means that: it wraps
// ErrUnreadable, or the data with a valid signature or identifier is damaged,
// of another format or key, too large, or not plain data.
func IsUnreadable(err error) bool {
	switch Of(err) {
	case Decode, Decrypt, NotObject, HostilePickle, ResourceLimit:
		return true
	}
	return errors.Is(err, ErrUnreadable)
}

// Of returns the reason that err wraps, or "" if it wraps none. Such an error
// means that a store did not answer, not that the session was refused.
func Of(err error) Reason {
	var r Reason
	if errors.As(err, &r) {
		return r
	}
	return ""
}
