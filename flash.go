package sojourn

import (
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"slices"
	"strings"

	"github.com/sojourn-go/sojourn/internal/draft"
	"github.com/sojourn-go/sojourn/internal/rules"
	"github.com/sojourn-go/sojourn/internal/values"
)

// Flash is a message for the visitor's next page.
type Flash struct {
	Level string
	Text  string
}

const (
	flashName = "_flash"
	// maxFlashes is the largest number of pending messages.
	maxFlashes = 100
)

// flashEntry is a stored message. By its random ID, a request removes exactly
// the messages that it has returned, also while other requests add and remove
// messages.
type flashEntry struct {
	_     struct{} `cbor:",toarray"`
	ID    uint64
	Level string
	Text  string
}

// Flash adds a message for the visitor's next page, with a level such as "info"
// or "error". A message that [Session.Flashes] has returned in this request is
// kept instead of added again. Of more than 100 messages, the oldest is
// dropped.
func (s *Session) Flash(level, text string) {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	entry := flashEntry{ID: binary.LittleEndian.Uint64(id[:]), Level: strings.Clone(level), Text: strings.Clone(text)}
	s.lock()
	defer s.mu.Unlock()
	if len(s.handed) > 0 {
		raw, ok := s.raw(flashName)
		for _, e := range decodeFlashes(raw, ok) {
			if s.handed[e.ID] && e.Level == level && e.Text == text {
				delete(s.handed, e.ID)
				return
			}
		}
	}
	_, err := s.update(draft.Slot{Name: flashName}, func(raw []byte, ok bool) ([]byte, error) {
		list := decodeFlashes(raw, ok)
		if slices.ContainsFunc(list, func(e flashEntry) bool { return e.ID == entry.ID }) {
			return raw, nil
		}
		list = append(list, entry)
		return values.Encode(list[max(0, len(list)-maxFlashes):])
	})
	if err != nil {
		s.failLater(err)
	}
}

// Flashes returns the messages of the given levels, or all of them, oldest
// first, and removes them. In a stored session, concurrent requests lose none,
// but may return the same one. Call it before the first byte: later it returns
// nothing for a session in the cookie. It also returns nothing for HEAD,
// prefetch, and prerender requests (by Sec-Purpose and similar headers) and
// after [Session.Background]. Messages stay if the browser does not show the
// response (204, 205, 304, a redirect), or if it saves nothing.
func (s *Session) Flashes(levels ...string) []Flash {
	s.lock()
	defer s.mu.Unlock()
	raw, ok := s.raw(flashName)
	if !ok || !s.seen() {
		return nil
	}
	if s.phase == phaseOver || s.phase == phaseDraft || s.phase == phaseBody && s.last.Where != rules.Stored {
		s.m.log.Warn("Flashes was called after the response had started; the messages stay for the next page; call it before the handler writes, and pass its result to the template",
			slog.String("session", s.identity().ID.String()))
		return nil
	}
	var out []Flash
	for _, e := range decodeFlashes(raw, true) {
		if !s.handed[e.ID] && (len(levels) == 0 || slices.Contains(levels, e.Level)) {
			out = append(out, Flash{Level: e.Level, Text: e.Text})
			if s.handed == nil {
				s.handed = map[uint64]bool{}
			}
			s.handed[e.ID] = true
		}
	}
	return out
}

// removeHanded removes the messages that Flashes has returned, if the browser
// shows the response.
func (s *session) removeHanded() {
	handed := s.handed
	s.handed = nil
	if len(handed) == 0 || !s.seen() {
		return
	}
	_, err := s.update(draft.Slot{Name: flashName}, func(raw []byte, ok bool) ([]byte, error) {
		list := slices.DeleteFunc(decodeFlashes(raw, ok), func(e flashEntry) bool { return handed[e.ID] })
		if len(list) == 0 {
			return nil, nil
		}
		return values.Encode(list)
	})
	if err != nil {
		s.failLater(err)
	}
}

// decodeFlashes decodes the stored list. A list that does not decode, which
// only a newer version can have written, counts as empty.
func decodeFlashes(raw []byte, ok bool) []flashEntry {
	var list []flashEntry
	if !ok || values.Decode(raw, &list) != nil {
		return nil
	}
	return list
}
