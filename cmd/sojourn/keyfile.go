package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/keyfile"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/keys"
)

// A keyFile is the text of a key file, with information about each key. A
// change edits the text, so that the rest of it is preserved.
type keyFile struct {
	path    string // as given; "" for keys from the environment
	text    string
	info    fs.FileInfo // nil for keys from the environment
	keys    []fileKey   // in the order of the text, without the index entry
	indexed bool        // the file has an index entry
}

// A span is a range of a text.
type span struct{ start, end int }

type fileKey struct {
	keys.Info
	span // its entry in the text

	// When its state changed, from the notes that these commands write into the
	// text; zero = unknown.
	published, activated, retired time.Time
}

// note is a comment with the time of a key's change of state. It has the key's
// public ID.
var note = regexp.MustCompile(`(?m)^# key ([0-9a-f]{8}) (published|activated|retired) (\d{8}T\d{6}Z)[ \t\r]*\n?`)

const noteTime = "20060102T150405Z"

// readKeys reads a key file, or the keys in the environment.
func readKeys(path string) (*keyFile, error) {
	f := &keyFile{path: path}
	if path == "" {
		if f.text = os.Getenv(keysVariable); f.text == "" {
			return nil, usagef("which keys? Give the key file, or the keys in the environment variable %s", keysVariable)
		}
		return f, f.parse()
	}
	var err error
	if f.info, f.text, err = readKeyFile(path); err != nil {
		return nil, err
	}
	return f, f.parse()
}

// readKeyFile reads a possible key file, without a check of its access rights.
func readKeyFile(path string) (fs.FileInfo, string, error) {
	text, info, err := keyfile.Read(path)
	if err != nil {
		return nil, "", fileError("the key file", err)
	}
	return info, text, nil
}

func (f *keyFile) name() string {
	if f.path == "" {
		return "the environment variable " + keysVariable
	}
	return f.path
}

func (f *keyFile) parse() error {
	ring, err := sojourn.ParseKeys(f.text)
	if err != nil {
		return fmt.Errorf("%s: %w", f.name(), err)
	}
	infos := ring.Keys()
	f.keys, f.indexed = nil, false
	for _, at := range fieldSpans(f.text) {
		switch field := f.text[at.start:at.end]; {
		case seal.IsCount(field):
		case strings.HasPrefix(field, "index:"):
			f.indexed = true
		default:
			f.keys = append(f.keys, fileKey{Info: infos[len(f.keys)], span: at})
		}
	}
	for _, m := range note.FindAllStringSubmatch(f.text, -1) {
		at, err := time.Parse(noteTime, m[3])
		i := slices.IndexFunc(f.keys, func(k fileKey) bool { return k.ID == m[1] })
		if err != nil || i < 0 {
			continue // a comment like any other
		}
		switch k := &f.keys[i]; m[2] {
		case "published":
			k.published = at
		case "activated":
			k.activated = at
		case "retired":
			k.retired = at
		}
	}
	return nil
}

// fieldSpans returns the spans of the number of entries and of the entries of a
// text, in order, like sojourn.ParseKeys.
func fieldSpans(text string) (spans []span) {
	offset := 0
	for line := range strings.Lines(text) {
		content, _, _ := strings.Cut(line, "#")
		begin := -1
		for i, c := range content + "\n" {
			if separates := c == ',' || unicode.IsSpace(c); separates && begin >= 0 {
				spans = append(spans, span{offset + begin, offset + i})
				begin = -1
			} else if !separates && begin < 0 {
				begin = i
			}
		}
		offset += len(line)
	}
	return spans
}

// sealing returns the key that seals.
func (f *keyFile) sealing() *fileKey {
	return &f.keys[slices.IndexFunc(f.keys, func(k fileKey) bool { return k.Seals })]
}

// find returns the key with that id.
func (f *keyFile) find(id string) (*fileKey, error) {
	i := slices.IndexFunc(f.keys, func(k fileKey) bool { return k.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("%s has no key of that id: sojourn keys list shows the ids", f.name())
	}
	return &f.keys[i], nil
}

// oldest returns the key that replaces a missing index entry.
func (f *keyFile) oldest() *fileKey {
	oldest := &f.keys[0]
	for i := range f.keys {
		if f.keys[i].Created.Before(oldest.Created) {
			oldest = &f.keys[i]
		}
	}
	return oldest
}

// since returns when the key got its state; if unknown, the time of the file's
// last change.
func (f *keyFile) since(k *fileKey) time.Time {
	at := map[string]time.Time{"published": k.published, "active": k.activated, "retired": k.retired}[k.State]
	if !at.IsZero() {
		return at
	}
	if k.State == "retired" && f.info != nil {
		return f.info.ModTime()
	}
	return k.Created
}

// append adds an entry at the end.
func (f *keyFile) append(entry string) {
	if f.text != "" && !strings.HasSuffix(f.text, "\n") {
		f.text += "\n"
	}
	f.text += entry + "\n"
	f.count()
}

// count makes the text start with the number of its entries. A text of a single
// entry may omit it, and then gets a line before that entry.
func (f *keyFile) count() {
	spans := fieldSpans(f.text)
	if first := spans[0]; seal.IsCount(f.text[first.start:first.end]) {
		f.text = f.text[:first.start] + seal.Count(len(spans)-1) + f.text[first.end:]
		return
	}
	line := strings.LastIndexByte(f.text[:spans[0].start], '\n') + 1
	f.text = f.text[:line] + seal.Count(len(spans)) + "\n" + f.text[line:]
}

// setState changes a key's state and adds a note with the time.
func (f *keyFile) setState(k *fileKey, state, verb string, now time.Time) {
	line := strings.LastIndexByte(f.text[:k.start], '\n') + 1
	f.text = f.text[:line] +
		fmt.Sprintf("# key %s %s %s\n", k.ID, verb, now.UTC().Format(noteTime)) +
		f.text[line:k.start] + state + f.text[k.start+len(k.State):]
}

// remove removes a key and its notes.
func (f *keyFile) remove(k *fileKey) {
	before, after := f.text[:k.start], f.text[k.end:]
	line := strings.LastIndexByte(before, '\n') + 1
	rest, following, _ := strings.Cut(after, "\n")
	if blank := func(s string) bool { return strings.Trim(s, ", \t\r") == "" }; blank(before[line:]) && blank(rest) {
		before, after = before[:line], following
	}
	f.text = before + after
	f.text = note.ReplaceAllStringFunc(f.text, func(s string) string {
		if strings.HasPrefix(s, "# key "+k.ID+" ") {
			return ""
		}
		return s
	})
	f.count()
}

// save replaces the file atomically, with its mode and owner. A symbolic link
// to the file stays one. before is the text from which the change was made: if
// the file has changed since, save fails.
func (f *keyFile) save(before string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("changing %s: %w; it is as it was", f.path, err)
		}
	}()
	ring, err := sojourn.ParseKeys(before)
	if err != nil {
		return err
	}
	if err := ring.Replace(f.text); err != nil { // as services do
		return err
	}
	path, err := filepath.EvalSymlinks(f.path)
	if err != nil {
		return err
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), ".session-keys-*") // with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) // fails after the rename
	_, err = temporary.WriteString(f.text)
	if err == nil {
		err = keepOwner(temporary, f.info)
	}
	if err == nil {
		err = temporary.Chmod(f.info.Mode().Perm())
	}
	if err = errors.Join(err, temporary.Sync(), temporary.Close()); err != nil {
		return err
	}
	if _, now, err := readKeyFile(path); err != nil || now != before {
		return errors.Join(errors.New("somebody else has changed it meanwhile"), err)
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return err
	}
	if runtime.GOOS != "windows" {
		if folder, err := os.Open(filepath.Dir(path)); err == nil {
			_ = folder.Sync() // the file is in place even if this fails
			folder.Close()
		}
	}
	return f.parse()
}
