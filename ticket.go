package sojourn

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/record"
)

// Ticket is a kind of value that leaves the site and comes back once, in the
// same session: the state of an OAuth login with its PKCE verifier, or a
// WebAuthn challenge. Tickets are always in the store, and each can be redeemed
// once. Make kinds once, as package variables.
//
// Do not use tickets for forms, or for links in e-mails, which another browser
// may open. A provider must return by GET: with form_post, or under
// SameSite=Strict, the browser withholds the session's cookie.
type Ticket[T any] struct{ of *ticket }

type ticket struct {
	*key
	prefix string
}

const (
	mostTickets = 8 // of a kind in one session
	nonceSize   = 16
)

// NewTicket returns a kind of ticket. A ticket is valid for ttl, but not longer
// than its session. NewTicket panics where [NewKey] and [TTL] would, and for a
// name of more than 200 bytes.
func NewTicket[T any](name string, ttl time.Duration) Ticket[T] {
	if len(name) > 200 {
		panic(fmt.Sprintf("sojourn: NewTicket(%.40q…): use at most 200 bytes", name))
	}
	k := NewKey[T](name, ServerSide, TTL(ttl)).of
	return Ticket[T]{&ticket{k, "_ticket." + name + "."}}
}

// Issue stores v and returns the nonce for it: 22 letters, digits, '-', and
// '_'. A session holds eight tickets of a kind; another one replaces the
// oldest. A value that cannot be stored (see NewKey) fails the commit.
func (t Ticket[T]) Issue(s *Session, v T) (nonce string) { return t.of.issue(s, &v) }

func (t *ticket) issue(s *Session, from any) string {
	var b [nonceSize]byte
	_, _ = rand.Read(b[:]) // never fails
	nonce := base64.RawURLEncoding.EncodeToString(b[:])
	raw, err := t.write(from)
	s.lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failLater(err)
		return nonce
	}
	var issued []record.Field
	for _, f := range s.draft.View().Frames() {
		// A longer name belongs to another kind, such as "a.b" for "a".
		if nonce, ok := strings.CutPrefix(f.Name, t.prefix); ok && !strings.Contains(nonce, ".") {
			issued = append(issued, f)
		}
	}
	slices.SortFunc(issued, func(a, b record.Field) int { return cmp.Compare(a.Expiry, b.Expiry) })
	for len(issued) >= mostTickets {
		s.draft.Remove(issued[0].Name)
		issued = issued[1:]
	}
	s.put(t.slot(nonce), raw)
	return nonce
}

func (t *ticket) slot(nonce string) draft.Slot {
	return draft.Slot{Name: t.prefix + nonce, Flags: t.Flags, TTL: t.TTL}
}

// Lookup returns a ticket's value and leaves the ticket valid, for a page that
// asks for confirmation. Errors are those of Redeem.
func (t Ticket[T]) Lookup(s *Session, nonce string) (v T, err error) {
	_, err = t.of.find(s, nonce, &v)
	return v, err
}

// Redeem takes a ticket's value and saves at once, with other pending changes.
// Only one of several requests gets the value. Call it before Login, which
// replaces the session.
//
// [ErrTaken] means that another request has redeemed the ticket, for example
// after a second click: redirect the visitor (303) as the winner does.
// [ErrNoValue] means that this session never had the ticket, or that it has
// expired. After an error of Save, it is still valid.
func (t Ticket[T]) Redeem(ctx context.Context, s *Session, nonce string) (T, error) {
	v := new(T)
	if err := t.of.redeem(ctx, s, nonce, v); err != nil {
		v = new(T)
		return *v, err
	}
	return *v, nil
}

func (t *ticket) redeem(ctx context.Context, s *Session, nonce string, to any) error {
	raw, err := t.find(s, nonce, to)
	if err != nil {
		return err
	}
	s.lock()
	defer s.mu.Unlock()
	kept := s.draft.Clone()
	if !s.draft.Take(t.prefix+nonce, raw) {
		return t.taken()
	}
	s.changing()
	s.put(t.slot(nonce), redeemed) // so that a later request gets ErrTaken
	if err := s.save(ctx); err != nil {
		s.draft = kept
		if errors.Is(err, ErrTaken) {
			return t.taken()
		}
		return err
	}
	return nil
}

// redeemed is the value of a redeemed ticket. No value has an empty encoding.
var redeemed = []byte{}

func (t *ticket) taken() error {
	return fmt.Errorf("%w: the ticket %q was redeemed already", ErrTaken, t.Name)
}

// find returns a ticket's encoded value, and decodes it into to.
func (t *ticket) find(s *Session, nonce string, to any) ([]byte, error) {
	if b, err := base64.RawURLEncoding.Strict().DecodeString(nonce); err != nil || len(b) != nonceSize {
		return nil, fmt.Errorf("%w: no ticket %q with this nonce", ErrNoValue, t.Name)
	}
	s.lock()
	raw, ok := s.raw(t.prefix + nonce)
	// A login by the winner has replaced the session of this request's cookie.
	replaced := s.jar.Refused()
	s.mu.Unlock()
	switch {
	case !ok && replaced, ok && raw != nil && len(raw) == 0:
		return nil, t.taken()
	case !ok:
		return nil, fmt.Errorf("%w: no ticket %q with this nonce", ErrNoValue, t.Name)
	}
	reflect.ValueOf(to).Elem().SetZero()
	return raw, t.read(raw, to)
}
