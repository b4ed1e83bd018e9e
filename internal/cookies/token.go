package cookies

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/sojourn-go/sojourn/internal/fault"
	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
)

// A client that keeps its credential itself sends it as a bearer token (RFC
// 6750, section 2.1). The token is a reference, sealed for another purpose than
// the cookie, so that one cannot be used as the other: a credential used as
// both would rotate in two places, which looks like theft. A request with a
// token neither reads nor sets cookies.

const (
	tokenPrefix = "sjn_" // for programs that search for leaked secrets
	// TokenHeader is the response field that has a new token; an empty one
	// means that the client's token is no longer valid.
	TokenHeader = "Sojourn-Token"
)

// bearer returns a request's token with the manager's prefix, without that prefix.
func bearer(in http.Header) (token string, ok bool) {
	for _, line := range in["Authorization"] {
		scheme, token, _ := strings.Cut(line, " ")
		if token, ok = strings.CutPrefix(strings.TrimLeft(token, " "), tokenPrefix); ok && strings.EqualFold(scheme, "Bearer") {
			return token, true
		}
	}
	return "", false
}

// token opens the request's token.
func (r *reader) token(value string) {
	r.Jar.token, r.Jar.Brought = true, true
	plain, stale, err := r.c.open(seal.Token, value)
	ref := Reference{Value: value, stale: stale}
	if err == nil {
		ref.Reference, err = wire.ParseReference(plain)
	}
	if err == nil && r.now.After(record.Time(ref.Expires)) {
		err = fault.Expired
	}
	if errors.Is(err, seal.ErrUnknownKey) {
		r.Foreign = append(r.Foreign, value)
	}
	if err != nil {
		r.reject("token", err)
		return
	}
	r.Jar.hasReference = true
	r.add(ref)
}

// Token reports whether the client keeps the session's credential as a token.
func (j *Jar) Token() bool { return j.token }

// UseToken makes the client keep a token from now on, and expires the session's
// cookies. undo reverts that.
func (j *Jar) UseToken() (undo func()) {
	before := *j
	before.lines = slices.Clone(j.lines)
	j.Forget()
	j.token = true
	return func() { *j = before }
}

// Issued returns the token for the session's reference.
func (j *Jar) Issued() (string, error) {
	if err := j.issue(&j.reference); err != nil {
		return "", err
	}
	j.tokenDue = false // the caller has it
	return j.issued, nil
}

// issue seals the token for a reference.
func (j *Jar) issue(ref *wire.Reference) error {
	value, err := j.c.seal(seal.Token, ref.Append(make([]byte, 0, 64)))
	if err != nil {
		return err
	}
	j.issued, j.tokenDue = tokenPrefix+value, true
	return nil
}

// flushToken puts a new token into a response header, and exposes it to scripts
// of other origins that the application allows to read the response (Fetch
// standard, section 3.3.3).
func (j *Jar) flushToken(h http.Header) {
	if !j.tokenDue {
		return
	}
	j.tokenDue = false
	h[TokenHeader] = []string{j.issued}
	const expose = "Access-Control-Expose-Headers"
	for _, line := range h[expose] {
		for name := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(name), TokenHeader) {
				return
			}
		}
	}
	h[expose] = append(h[expose][:len(h[expose]):len(h[expose])], TokenHeader)
}
