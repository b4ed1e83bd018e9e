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

// A keyFile is the text of a key file, with what is known of each key in it. A
// change edits the text, so that everything else in it stays as somebody wrote
// it.
type keyFile struct {
	path    string // as given; "" for keys from the environment
	text    string
	info    fs.FileInfo // nil for keys from the environment
	keys    []fileKey   // in the order of the text, without the index entry
	indexed bool        // there is an index entry
}

// A span is where something begins and ends in a text.
type span struct{ start, end int }

type fileKey struct {
	keys.Info
	span // its entry in the text

	// When it came to its states, from the notes that these commands leave in
	// the text; zero = not noted.
	published, activated, retired time.Time
}

// note is a comment that says when a key came to a state. It names the key by
// its public id.
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

// readKeyFile reads what may be a key file, whoever else can.
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

// fieldSpans returns where the number of entries and the entries of a text are, in
// order, as sojourn.ParseKeys finds them.
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

// oldest returns the key that stands in for an index entry, where there is none.
func (f *keyFile) oldest() *fileKey {
	oldest := &f.keys[0]
	for i := range f.keys {
		if f.keys[i].Created.Before(oldest.Created) {
			oldest = &f.keys[i]
		}
	}
	return oldest
}

// since returns when the key came to its state, as far as that can be known:
// not later than the file was changed last.
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
// entry may lack it, and then gets a line in front of that entry's.
func (f *keyFile) count() {
	spans := fieldSpans(f.text)
	if first := spans[0]; seal.IsCount(f.text[first.start:first.end]) {
		f.text = f.text[:first.start] + seal.Count(len(spans)-1) + f.text[first.end:]
		return
	}
	line := strings.LastIndexByte(f.text[:spans[0].start], '\n') + 1
	f.text = f.text[:line] + seal.Count(len(spans)) + "\n" + f.text[line:]
}

// setState changes the state of the key with that id, and notes when.
func (f *keyFile) setState(k *fileKey, state, verb string, now time.Time) {
	line := strings.LastIndexByte(f.text[:k.start], '\n') + 1
	f.text = f.text[:line] +
		fmt.Sprintf("# key %s %s %s\n", k.ID, verb, now.UTC().Format(noteTime)) +
		f.text[line:k.start] + state + f.text[k.start+len(k.State):]
}

// remove takes out a key and the notes about it.
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

// save puts the text in the place of the file, all at once, with the file's mode
// and owner. A link to the file stays one. before is the text that the change
// was made from: if the file has another one by now, it is left alone.
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
	if err := ring.Replace(f.text); err != nil { // as services will
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
	defer os.Remove(temporary.Name()) // fails once it was renamed
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
			_ = folder.Sync() // the file is in place, whatever comes of this
			folder.Close()
		}
	}
	return f.parse()
}
