package seal

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Limits of a key ring's text form.
const (
	MaxText = 64 << 10 // bytes
	MaxKeys = 64       // without the index key
)

// createdLayout is ISO 8601, basic format, in UTC, to the second.
const createdLayout = "20060102T150405Z"

// secretText is base64url without padding, in canonical form only.
var secretText = base64.RawURLEncoding.Strict()

// An entry is one key in the text form of a ring: STATE:CREATED:SECRET.
type entry struct {
	state   KeyState
	created time.Time
	secret  [SecretSize]byte
}

// newEntry returns an entry with a new secret.
func newEntry(state KeyState) entry {
	e := entry{state: state, created: time.Now()}
	rand.Read(e.secret[:])
	return e
}

// text returns the entry's text, with the secret.
func (e entry) text() string {
	return e.state.String() + ":" + e.created.UTC().Format(createdLayout) + ":" + secretText.EncodeToString(e.secret[:])
}

// GenerateKey returns the entry of a new active key, as text.
func GenerateKey() string { return newEntry(Active).text() }

// GenerateKeyFile returns the text of a new key file: a comment, an index key
// and an active key.
func GenerateKeyFile() string {
	return fmt.Sprintf(keyFile, Count(2), newEntry(userIndex).text(), newEntry(Active).text())
}

// countName begins the first field of a text of several entries.
const countName = "entries:"

// Count returns the first field of a text of n entries.
//
// The number comes first, so that truncating a text removes entries but keeps
// the number. At the end, it could not be mandatory for a text of one entry,
// and the first of several entries would be such a text.
func Count(n int) string { return countName + strconv.Itoa(n) }

// IsCount reports whether a field has the form of the number of entries.
func IsCount(field string) bool { return strings.HasPrefix(field, countName) }

const keyFile = `# Sojourn session keys. With them, anyone can read and forge your visitors'
# sessions. Without them, no session can be read: keep this file secret, keep a
# backup, and never commit it to version control.
#
# One entry per line, STATE:CREATED:SECRET. The states:
#   active     opens, and the newest active key seals
#   published  opens only: known to every process before one of them seals with it
#   retired    opens only, even if it is the newest
#   index      finds a user's sessions; it stays when the other keys change
#
# The first line that is no comment is the number of entries. A file with another
# number of them is refused, because it may be half written.
#
# What an older or retired key sealed moves to the active one: a cookie when it is
# used, a stored session when it is saved.
#
# To change the keys of a running service: sojourn keys add, activate, retire and
# remove, in this order. "sojourn keys list" says which comes next, and when.
%s
%s
%s
`

// ParseKeys reads the text form of a ring: entries separated by white space or
// commas, with comments from # to the end of the line, and their number first
// if there are several. An error gives the number of the entry, and never
// repeats any of the text.
//
// Without an index entry the index key is derived from the oldest key.
func ParseKeys(text string) (*Ring, error) {
	entries, err := parseEntries(text)
	if err != nil {
		return nil, err
	}

	var keys []Key
	var index, oldest *entry
	for i := range entries {
		e := &entries[i]
		if e.state == userIndex {
			index = e
			continue
		}
		key, err := NewKey(e.secret, e.state, e.created)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
		if oldest == nil || e.created.Before(oldest.created) {
			oldest = e
		}
	}
	if oldest == nil {
		return nil, errors.New("there is no key")
	}
	if index != nil {
		return NewRing(keys, index.secret)
	}
	secret, err := derive(oldest.secret, "index", SecretSize)
	if err != nil {
		return nil, err
	}
	return NewRing(keys, [SecretSize]byte(secret))
}

// parseEntries reads the entries of a ring, and checks their form.
func parseEntries(text string) ([]entry, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("the text is longer than %d bytes", MaxText)
	}
	fields, err := complete(fields(text))
	if err != nil {
		return nil, err
	}
	var entries []entry
	var keys, index int
	for _, field := range fields {
		number := len(entries) + 1
		e, err := parseEntry(field)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", number, err)
		}
		if same := slices.IndexFunc(entries, func(other entry) bool { return other.secret == e.secret }); same >= 0 {
			return nil, fmt.Errorf("entry %d: it has the same secret as entry %d", number, same+1)
		}
		if e.state == userIndex {
			index++
		} else {
			keys++
		}
		if index > 1 {
			return nil, fmt.Errorf("entry %d: it is the second index key; there can be one", number)
		}
		if keys > MaxKeys {
			return nil, fmt.Errorf("entry %d: there are more than %d keys", number, MaxKeys)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// complete returns the entries among the fields of a text, if none is missing.
func complete(fields []string) ([]string, error) {
	if len(fields) == 0 || !IsCount(fields[0]) {
		if len(fields) > 1 {
			return nil, fmt.Errorf("there are %d entries, and their number does not come first: write %s before them, so that a text that was cut short can be told", len(fields), Count(len(fields)))
		}
		return fields, nil
	}
	number, entries := fields[0], fields[1:]
	if number == Count(len(entries)) {
		return entries, nil
	}
	n, err := strconv.ParseUint(number[len(countName):], 10, 16)
	if err != nil || number != Count(int(n)) {
		return nil, fmt.Errorf("the number of entries is not of the form %s", Count(3))
	}
	return nil, fmt.Errorf("the text is incomplete, or its number of entries is wrong: it says %d, and %d are there", n, len(entries))
}

// fields returns the texts between separators, without comments.
func fields(text string) []string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		b.WriteString(line)
		b.WriteByte('\n')
	}
	return strings.FieldsFunc(b.String(), func(c rune) bool { return c == ',' || unicode.IsSpace(c) })
}

func parseEntry(text string) (entry, error) {
	part := strings.Split(text, ":")
	if len(part) != 3 {
		return entry{}, errors.New("it is not of the form STATE:CREATED:SECRET")
	}
	state, err := parseState(part[0])
	if err != nil {
		return entry{}, err
	}
	created, err := time.Parse(createdLayout, part[1])
	if err != nil || created.Format(createdLayout) != part[1] { // Parse allows fractions
		return entry{}, errors.New("its time is not of the form 20261120T131500Z")
	}
	secret, err := secretText.DecodeString(part[2])
	if err != nil || len(secret) != SecretSize {
		return entry{}, fmt.Errorf("its secret is not %d bytes in base64url without padding", SecretSize)
	}
	return entry{state, created, [SecretSize]byte(secret)}, nil
}

// parseState parses the result of KeyState.String.
func parseState(text string) (KeyState, error) {
	for s := range keyStates {
		if text == s.String() {
			return s, nil
		}
	}
	return 0, errors.New("its state is not published, active, retired or index")
}
