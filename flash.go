package sojourn

import (
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"slices"
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
// "info", "success" or "error". At most 100 messages wait: another one takes the
// place of the oldest, as with a client that never asks for a page.
func (s *Session) Flash(level, text string) {
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	entry := flashEntry{ID: binary.LittleEndian.Uint64(id[:]), Level: level, Text: text}
	s.lock()
	defer s.mu.Unlock()
	_, err := s.update(slot{name: flashName}, func(raw []byte, ok bool) ([]byte, error) {
		list := decodeFlashes(raw, ok)
		if slices.ContainsFunc(list, func(e flashEntry) bool { return e.ID == entry.ID }) {
			return raw, nil
		}
		list = append(list, entry)
		return encodeValue(list[max(0, len(list)-maxFlashes):])
	})
	if err != nil {
		s.failLater(err)
	}
}

// Flashes returns the messages of the given levels, or all of them, oldest
// first, and removes them: each is handed out once. In a stored session two
// requests at once lose no message; each may see one that the other saw too.
//
// When their removal can no longer be kept, because the response has started
// and the session lives in the cookie, Flashes returns nothing and logs that:
// the messages wait for the next page. Call it before the first byte is
// written.
func (s *Session) Flashes(levels ...string) []Flash {
	s.lock()
	defer s.mu.Unlock()
	raw, ok := s.raw(flashName)
	if !ok {
		return nil
	}
	if s.phase == phaseOver || s.phase == phaseBody && s.last.placement != PlacementStored {
		s.m.log.Warn("flash messages were asked for after the response had started; they wait for the next page",
			slog.String("session", s.identity().id.String()))
		return nil
	}
	var out []Flash
	handed := map[uint64]bool{}
	for _, e := range decodeFlashes(raw, true) {
		if len(levels) == 0 || slices.Contains(levels, e.Level) {
			out = append(out, Flash{Level: e.Level, Text: e.Text})
			handed[e.ID] = true
		}
	}
	if len(out) == 0 {
		return nil
	}
	_, err := s.update(slot{name: flashName}, func(raw []byte, ok bool) ([]byte, error) {
		list := slices.DeleteFunc(decodeFlashes(raw, ok), func(e flashEntry) bool { return handed[e.ID] })
		if len(list) == 0 {
			return nil, nil
		}
		return encodeValue(list)
	})
	if err != nil {
		s.failLater(err)
	}
	return out
}

// decodeFlashes reads the kept list. One that does not decode, which only a
// newer version could have written, counts as empty.
func decodeFlashes(raw []byte, ok bool) []flashEntry {
	var list []flashEntry
	if !ok || decodeValue(raw, &list) != nil {
		return nil
	}
	return list
}
