package main

import (
	"encoding/base64"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/sojourn-go/sojourn/internal/record"
)

// Kinds of sealed values.
const (
	kindReference = "reference" // the cookie that names a stored session
	kindInline    = "inline"    // the cookie that holds a session
	kindFloor     = "floor"     // the cookie with the newest version that a browser has seen
	kindRecord    = "record"    // a stored session
)

// finding is one opened value. Its JSON form is part of the command's
// interface: see README.md.
type finding struct {
	Kind       string    `json:"kind"`
	Cookie     string    `json:"cookie,omitempty"` // its name
	Handle     string    `json:"handle"`
	Generation *uint64   `json:"generation,omitempty"`
	Version    uint64    `json:"version,omitempty"`
	Expires    timestamp `json:"expires"`
	Key        string    `json:"key"`
	Stale      bool      `json:"stale"` // sealed with a key that no longer seals
	Record     *row      `json:"record,omitempty"`
	Session    *contents `json:"session,omitempty"`
}

// contents is the content of a session.
type contents struct {
	User       string    `json:"user"`
	LoggedIn   timestamp `json:"logged_in"`
	Created    timestamp `json:"created"`
	Seen       timestamp `json:"last_seen"`
	UserAgent  string    `json:"user_agent"`
	IP         string    `json:"ip"`
	Generation uint64    `json:"generation"`
	Idle       *float64  `json:"idle_seconds"` // this session's own setting; null = as configured
	Lifetime   *float64  `json:"lifetime_seconds"`
	Persist    string    `json:"persist"` // configured, always or browser
	Values     []value   `json:"values"`
	Flashes    []flash   `json:"flashes"` // pending messages, oldest first
}

// flash is a flash message.
type flash struct {
	Level string  `json:"level"`
	Text  *string `json:"text"` // nil if values are hidden
}

// flashField is the name of their field: see docs/wire-format.md.
const flashField = "_flash"

// flashes reads the messages of that field.
func (o *opener) flashes(field []byte) (list []flash, err error) {
	var entries []struct {
		_     struct{} `cbor:",toarray"`
		ID    uint64
		Level string
		Text  string
	}
	if err := cbor.Unmarshal(field, &entries); err != nil {
		return nil, err
	}
	for _, e := range entries {
		f := flash{Level: e.Level}
		if o.values {
			f.Text = &e.Text
		}
		list = append(list, f)
	}
	return list, nil
}

type value struct {
	Name       string    `json:"name"`
	Bytes      int       `json:"bytes"`
	ServerSide bool      `json:"server_side"`
	Volatile   bool      `json:"volatile"`
	Expires    timestamp `json:"expires"`
	// One of these, with --values: CBOR in diagnostic notation (RFC 8949,
	// section 8), or base64 of other bytes.
	CBOR string `json:"cbor,omitempty"`
	Raw  string `json:"base64,omitempty"`
}

func (o *opener) contents(r *record.Record) *contents {
	h := &r.Header
	c := &contents{
		User:       h.User,
		LoggedIn:   timestamp(record.Time(h.AuthTime)),
		Created:    timestamp(record.Time(h.Created)),
		Seen:       timestamp(record.Time(h.Seen)),
		UserAgent:  h.UserAgent,
		IP:         h.IP,
		Generation: h.Generation,
		Idle:       seconds(h.Idle),
		Lifetime:   seconds(h.Lifetime),
		Persist:    [...]string{"configured", "always", "browser"}[h.Persist],
		Values:     []value{},
		Flashes:    []flash{},
	}
	for _, f := range r.Fields() {
		if f.Name == flashField {
			if list, err := o.flashes(f.Value); err == nil {
				c.Flashes = append(c.Flashes, list...)
				continue
			}
		}
		v := value{
			Name:       f.Name,
			Bytes:      len(f.Value),
			ServerSide: f.Flags&record.ServerSide != 0,
			Volatile:   f.Flags&record.Volatile != 0,
			Expires:    timestamp(record.Time(f.Expiry)),
		}
		if o.values {
			var err error
			if v.CBOR, err = cbor.Diagnose(f.Value); err != nil {
				v.CBOR, v.Raw = "", base64.StdEncoding.EncodeToString(f.Value)
			}
		}
		c.Values = append(c.Values, v)
	}
	return c
}

// seconds converts a header's milliseconds to seconds; 0 means that the session
// has no own setting. A negative result means no limit, or the maximum.
func seconds(ms int64) *float64 {
	if ms == 0 {
		return nil
	}
	s := float64(ms) / 1000
	return &s
}

func (f finding) title() string {
	title := ""
	switch f.Kind {
	case kindReference:
		title = "reference to a stored session"
	case kindInline:
		title = "session in the cookie"
	case kindFloor:
		title = "newest version that the browser has seen"
	case kindRecord:
		return "stored session"
	}
	if f.Cookie != "" {
		return f.Cookie + ": " + title
	}
	return title
}

func (f finding) print(w io.Writer, now time.Time) {
	fmt.Fprintln(w, f.title())
	if f.Record != nil {
		f.Record.print(w, now)
	} else {
		list := newList(w)
		list.line("handle", f.Handle)
		if f.Generation != nil {
			list.line("generation", *f.Generation)
		}
		if f.Version > 0 {
			list.line("version", f.Version)
		}
		if f.Kind != kindFloor {
			list.line("expires at the latest", f.Expires.at(now))
		}
		list.line("sealed with key", f.Key)
		list.Flush()
	}
	if f.Stale {
		fmt.Fprintln(w, "this key no longer seals: the next response seals the cookie again")
	}
	if f.Session != nil {
		f.Session.print(w, now)
	}
}

func (c *contents) print(w io.Writer, now time.Time) {
	list := newList(w)
	if c.User != "" {
		list.line("user", printable(c.User))
		list.line("logged in since", c.LoggedIn.at(now))
	} else {
		list.line("user", "nobody is logged in")
	}
	list.line("began", c.Created.at(now))
	if !time.Time(c.Seen).IsZero() {
		list.line("last seen", c.Seen.at(now))
	}
	if c.UserAgent != "" {
		list.line("browser", fmt.Sprintf("%q", c.UserAgent))
	}
	if c.IP != "" {
		list.line("address", printable(c.IP))
	}
	if c.Idle != nil {
		list.line("own idle timeout", setting(*c.Idle, "none"))
	}
	if c.Lifetime != nil {
		list.line("own lifetime", setting(*c.Lifetime, "the longest"))
	}
	switch c.Persist {
	case "always":
		list.line("cookie kept", "when the browser is closed")
	case "browser":
		list.line("cookie kept", "until the browser is closed")
	}
	for _, f := range c.Flashes {
		text := hidden
		if f.Text != nil {
			text = printable(*f.Text)
		}
		list.line("flash", printable(f.Level)+": "+text)
	}
	list.Flush()
	if len(c.Values) == 0 {
		fmt.Fprintln(w, "no values")
		return
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tBYTES\tKEPT\tEXPIRES\tVALUE")
	for _, v := range c.Values {
		fmt.Fprintf(table, "%s\t%d\t%s\t%v\t%s\n", printable(v.Name), v.Bytes, v.kept(), v.Expires, v.text())
	}
	table.Flush()
}

func setting(seconds float64, negative string) string {
	if seconds < 0 {
		return negative
	}
	return time.Duration(seconds * float64(time.Second)).String()
}

func (v value) kept() string {
	switch {
	case v.ServerSide && v.Volatile:
		return "server, volatile"
	case v.ServerSide:
		return "server"
	case v.Volatile:
		return "volatile"
	default:
		return "anywhere"
	}
}

func (v value) text() string {
	switch {
	case v.CBOR != "":
		return v.CBOR
	case v.Raw != "":
		return "base64 " + v.Raw
	default:
		return hidden
	}
}

// hidden replaces a value without --values.
const hidden = "(hidden; --values shows it)"

// printable quotes a text with control characters.
func printable(s string) string {
	if q := fmt.Sprintf("%q", s); q != `"`+s+`"` {
		return q
	}
	return s
}
