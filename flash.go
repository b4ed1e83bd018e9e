package sojourn

import (
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"slices"

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
	// maxFlashes is how many messages wait for a page that shows them.
	maxFlashes = 100
)

// flashEntry is a kept message. Its random ID lets two requests that read and
// add messages at once remove exactly those that were handed out.
type flashEntry struct {
	_     struct{} `cbor:",toarray"`
	ID    uint64
	Level string
	Text  string
}

// Flash adds a message for the visitor's next page, with a level such as
// "info" or "error". One that [Session.Flashes] has returned in this request
// is kept instead of added again. At most 100 messages wait: another one
// replaces the oldest.
func (s *Session) Flash(level, text string) {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	entry := flashEntry{ID: binary.LittleEndian.Uint64(id[:]), Level: level, Text: text}
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
// first, and removes them: each is handed out once. In a stored session two
// requests at once lose no message; each may see one that the other saw too.
//
// It returns nothing, and the messages wait, in a request that nobody sees:
// HEAD, prefetch and prerender (Sec-Purpose and its like), the background.
// Messages also stay if the response is not shown (204, 205, 304, a redirect)
// or keeps nothing. Call it before the first byte: in the cookie, it returns
// nothing after that.
func (s *Session) Flashes(levels ...string) []Flash {
	s.lock()
	defer s.mu.Unlock()
	raw, ok := s.raw(flashName)
	if !ok || !s.seen() {
		return nil
	}
	if s.phase == phaseOver || s.phase == phaseDraft || s.phase == phaseBody && s.last.Where != rules.Stored {
		s.m.log.Warn("flash messages were asked for after the response had started; they wait for the next page",
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

// removeHanded removes the messages that were handed out, if the response is
// shown.
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

// decodeFlashes reads the kept list. One that does not decode, which only a
// newer version could have written, counts as empty.
func decodeFlashes(raw []byte, ok bool) []flashEntry {
	var list []flashEntry
	if !ok || values.Decode(raw, &list) != nil {
		return nil
	}
	return list
}
