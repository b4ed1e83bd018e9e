// Package vectors tests the readers and writers of this module with sessions
// recorded from the real libraries.
//
// A file of recorded sessions has cases: the configuration, the request's
// Cookie field, the stores' contents, the time, and the expected result of a
// careful reader. [Case.Check] returns a [Verdict] to compare, and
// [Case.Rewrite] returns the writer's result for the same data, to test with
// the real library.
package vectors

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/memcachevars"
	"github.com/sojourn-go/sojourn/legacy/pickle"
	"github.com/sojourn-go/sojourn/legacy/reason"
	"github.com/sojourn-go/sojourn/legacy/value"
)

// File is a file of recorded sessions.
type File struct {
	System string `json:"system"`
	Cases  []Case `json:"cases"`
}

// Case is one recorded session.
type Case struct {
	Name         string          `json:"name"`
	System       string          `json:"system"`
	Engine       string          `json:"engine_key"`
	Config       json.RawMessage `json:"config"`
	Now          float64         `json:"now"` // time of the read, in Unix seconds
	CookieHeader *string         `json:"cookie_header"`
	SetCookie    []string        `json:"set_cookie"`
	Storage      []Entry         `json:"storage"`
	Expect       Expectation     `json:"expect"`
	Optional     bool            `json:"optional"` // both verdicts are accepted
	Pickle       *string         `json:"pickle_base64"`
}

// Expectation is the expected result of a careful reader.
type Expectation struct {
	Valid  bool            `json:"valid"`
	Data   json.RawMessage `json:"data"` // tagged JSON
	SID    *string         `json:"sid"`
	Reason *reason.Reason  `json:"reason"`

	Meta        json.RawMessage `json:"meta"`
	Expires     *int64          `json:"expires"`
	SSLOnly     *bool           `json:"ssl_only"`
	SessionKey  *string         `json:"session_key"`
	TokensAfter []string        `json:"tokens_after"`
	Rotated     *bool           `json:"rotated"`
	Flash       json.RawMessage `json:"flash"`
	CookieData  json.RawMessage `json:"cookie_data"`
}

// Entry is an entry of a store: App Engine's memcache or datastore, a file,
// memcached, Redis, or a database row.
type Entry struct {
	Backend    string              `json:"backend"`
	Key        any                 `json:"key"` // text, or a number where KeyIs is "id"
	KeyIs      string              `json:"key_is,omitempty"`
	Namespace  string              `json:"namespace"`
	Kind       string              `json:"kind,omitempty"`
	Table      string              `json:"table,omitempty"`
	EncodedKey string              `json:"encoded_key,omitempty"`
	Value      []byte              `json:"value_base64"`
	Flags      *uint32             `json:"flags"`
	ExpiresAt  *int64              `json:"expires_at"`
	TTL        *int64              `json:"ttl,omitempty"` // seconds, -1 = none
	Properties map[string]Property `json:"properties,omitempty"`
}

// Property is one property of a datastore entity.
type Property struct {
	Type   string `json:"type"` // blob, datetime, string, bool, list, key, null
	Value  any    `json:"value,omitempty"`
	Base64 []byte `json:"value_base64,omitempty"`
}

// Parse reads a file of recorded sessions.
func Parse(data []byte) (*File, error) {
	var f File
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, fmt.Errorf("recorded sessions: %w", err)
	}
	if f.Cases == nil {
		return nil, errors.New("recorded sessions: there are no cases in it")
	}
	for i := range f.Cases {
		if c := &f.Cases[i]; c.System == "" {
			c.System = f.System
		}
	}
	return &f, nil
}

// Check reads a file of recorded sessions and writes the [Verdict] of each case
// as one line of JSON. It only returns an error if the file cannot be parsed or
// w fails.
func Check(ctx context.Context, file []byte, w io.Writer) error {
	return eachLine(file, w, func(c *Case) any { return c.Check(ctx) })
}

// Rewrite reads a file of recorded sessions and writes each case's [Written] as
// one line of JSON. Cases with nothing to write are left out.
func Rewrite(ctx context.Context, file []byte, w io.Writer) error {
	return eachLine(file, w, func(c *Case) any {
		written, err := c.Rewrite(ctx)
		switch {
		case errors.Is(err, ErrNotShared):
			return nil
		case err != nil:
			return &Written{Name: c.Name, System: c.System, Config: c.Config, Now: c.Now, Error: err.Error()}
		}
		return written
	})
}

func eachLine(file []byte, w io.Writer, line func(*Case) any) error {
	f, err := Parse(file)
	if err != nil {
		return err
	}
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	for i := range f.Cases {
		v := line(&f.Cases[i])
		if v == nil {
			continue
		}
		if err := out.Encode(v); err != nil {
			return fmt.Errorf("recorded sessions: %w", err)
		}
	}
	return nil
}

// Verdict is a reader's result for a case.
type Verdict struct {
	Name   string          `json:"name"`
	Valid  bool            `json:"valid"`
	Data   json.RawMessage `json:"data"`   // tagged JSON, null if not valid
	SID    *string         `json:"sid"`    // null if there is none, or it changes with this request
	Reason *string         `json:"reason"` // null if valid
}

// Check reads the case.
func (c *Case) Check(ctx context.Context) Verdict {
	v := Verdict{Name: c.Name, Data: json.RawMessage("null")}
	data, sid, err := c.read(ctx)
	if err != nil {
		text := string(reason.Of(err))
		if text == "" {
			text = "error: " + err.Error()
		}
		v.Reason = &text
		return v
	}
	v.Valid, v.Data = true, value.MarshalTagged(data)
	if sid != "" {
		v.SID = &sid
	}
	return v
}

func (c *Case) read(ctx context.Context) (data any, sid string, err error) {
	if c.Pickle != nil {
		raw, err := base64.StdEncoding.DecodeString(*c.Pickle)
		if err != nil {
			return nil, "", fmt.Errorf("recorded sessions: %w", err)
		}
		data, err = pickle.Decode(raw)
		return data, "", err
	}
	s, err := c.Read(ctx)
	if err != nil {
		return nil, "", err
	}
	return s.Data, stableID(s), nil
}

// Read returns the whole session of a case.
func (c *Case) Read(ctx context.Context) (*legacy.Session, error) {
	r, err := c.reader(newStores(c).backends(c))
	if err != nil {
		return nil, err
	}
	return r.Read(ctx, c.header(), c.now())
}

// Setup returns the format of the case's configuration, on the case's own
// stores, the request's header, and the time of the read.
func (c *Case) Setup() (format legacy.Known, header http.Header, now time.Time, err error) {
	format, err = c.FormatOn(newStores(c).backends(c))
	return format, c.header(), c.now(), err
}

func (c *Case) header() http.Header {
	h := http.Header{}
	if c.CookieHeader != nil {
		h["Cookie"] = []string{*c.CookieHeader}
	}
	return h
}

// app is the application in which a case was recorded, from its keys.
func (c *Case) app() string {
	for _, e := range c.Storage {
		if key, err := appengine.ParseKey(e.EncodedKey); err == nil {
			return key.App
		}
	}
	return "s~legacy-app"
}

func (c *Case) now() time.Time {
	return time.UnixMicro(int64(c.Now * 1e6)).UTC()
}

// Written is a writer's result for a case's data.
type Written struct {
	Name      string          `json:"name"`
	System    string          `json:"system"`
	Config    json.RawMessage `json:"config"`
	Now       float64         `json:"now"`
	SetCookie []string        `json:"set_cookie"`
	Storage   []Entry         `json:"storage"`
	Error     string          `json:"error,omitempty"` // the writer's error
}

// ErrNotShared means that a case has nothing to write: it is invalid, or its
// format is read-only.
var ErrNotShared = errors.New("recorded sessions: nothing to write")

// Rewrite reads the case, writes the same session with its library's format
// into empty stores at the case's clock, and returns the result.
func (c *Case) Rewrite(ctx context.Context) (*Written, error) {
	if !c.Expect.Valid || c.Pickle != nil || c.System == "gaeutilities" {
		return nil, ErrNotShared
	}
	r, err := c.reader(newStores(c).backends(c))
	if err != nil {
		return nil, err
	}
	s, err := r.Read(ctx, c.header(), c.now())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	if _, ok := s.Detail.(*memcachevars.Detail); ok {
		// The stores are empty, so everything is new, including the cookie.
		s.Detail, s.Cookies = nil, nil
	}
	empty := newStores(nil)
	empty.now, empty.app = c.now(), c.app()
	w, err := c.reader(empty.backends(c))
	if err != nil {
		return nil, err
	}
	fields, err := w.(legacy.Writer).Write(ctx, s, c.now())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.Name, err)
	}
	if fields == nil {
		fields = []string{}
	}
	return &Written{Name: c.Name, System: c.System, Config: c.Config, Now: c.Now, SetCookie: fields, Storage: empty.entries()}, nil
}
