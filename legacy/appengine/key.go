package appengine

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"unicode/utf8"
)

// ErrBadKey means that a text is not an encoded datastore key.
var ErrBadKey = errors.New("appengine: not an encoded datastore key")

// Key names a datastore entity as App Engine's SDKs did.
type Key struct {
	App       string // with its partition, such as "s~myapp"
	Namespace string
	Path      []Element // from the root entity down; never empty
}

// Element is one step of a key's path. ID is used if Name is empty.
type Element struct {
	Kind string
	ID   int64
	Name string
}

// Tags of the Reference protocol buffer.
const (
	tagApp       = 13<<3 | 2
	tagPath      = 14<<3 | 2
	tagNamespace = 20<<3 | 2
	tagElement   = 1<<3 | 3 // a group
	tagEnd       = 1<<3 | 4
	tagKind      = 2<<3 | 2
	tagID        = 3 << 3
	tagName      = 4<<3 | 2
)

// Encode returns the key's text form, str(key) in Python.
func (k Key) Encode() string {
	var path []byte
	for _, e := range k.Path {
		path = append(path, tagElement)
		path = appendBytes(path, tagKind, e.Kind)
		if e.Name != "" {
			path = appendBytes(path, tagName, e.Name)
		} else {
			path = binary.AppendUvarint(path, tagID)
			path = binary.AppendUvarint(path, uint64(e.ID))
		}
		path = append(path, tagEnd)
	}
	b := appendBytes(nil, tagApp, k.App)
	b = appendBytes(b, tagPath, string(path))
	if k.Namespace != "" {
		b = appendBytes(b, tagNamespace, k.Namespace)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func appendBytes(b []byte, tag uint64, s string) []byte {
	b = binary.AppendUvarint(b, tag)
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// maxKeyText is longer than any key the datastore accepts.
const maxKeyText = 8192

// ParseKey parses the result of [Key.Encode]. It returns [ErrBadKey] for
// anything else, including incomplete keys.
func ParseKey(text string) (Key, error) {
	if len(text) > maxKeyText {
		return Key{}, ErrBadKey
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return Key{}, ErrBadKey
	}
	var k Key
	r := wire{b}
	for len(r.b) > 0 {
		var field string
		tag, ok := r.uvarint()
		if ok {
			field, ok = r.text()
		}
		switch {
		case !ok:
			return Key{}, ErrBadKey
		case tag == tagApp && k.App == "":
			k.App = field
		case tag == tagNamespace && k.Namespace == "":
			k.Namespace = field
		case tag == tagPath && k.Path == nil:
			if k.Path, ok = parsePath(field); !ok {
				return Key{}, ErrBadKey
			}
		default:
			return Key{}, ErrBadKey
		}
	}
	if k.App == "" || len(k.Path) == 0 || !utf8.ValidString(k.App+k.Namespace) || k.Encode() != text {
		return Key{}, ErrBadKey
	}
	return k, nil
}

func parsePath(s string) ([]Element, bool) {
	var path []Element
	r := wire{[]byte(s)}
	for len(r.b) > 0 {
		if tag, ok := r.uvarint(); !ok || tag != tagElement {
			return nil, false
		}
		var e Element
		for {
			tag, ok := r.uvarint()
			if !ok {
				return nil, false
			}
			if tag == tagEnd {
				break
			}
			switch tag {
			case tagKind:
				e.Kind, ok = r.text()
			case tagName:
				e.Name, ok = r.text()
			case tagID:
				var id uint64
				id, ok = r.uvarint()
				e.ID = int64(id)
			default:
				return nil, false
			}
			if !ok {
				return nil, false
			}
		}
		if e.Kind == "" || (e.Name == "") == (e.ID == 0) || !utf8.ValidString(e.Kind+e.Name) {
			return nil, false
		}
		path = append(path, e)
	}
	return path, true
}

// wire reads protocol buffer primitives off a byte slice.
type wire struct{ b []byte }

func (r *wire) uvarint() (uint64, bool) {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		return 0, false
	}
	r.b = r.b[size:]
	return n, true
}

func (r *wire) text() (string, bool) {
	n, ok := r.uvarint()
	if !ok || n > uint64(len(r.b)) {
		return "", false
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s, true
}
