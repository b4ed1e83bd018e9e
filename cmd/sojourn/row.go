package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/store"
)

// row is the data about a session that is readable without keys, and its user.
// Its JSON form is part of the command's interface: see README.md.
type row struct {
	Handle   string    `json:"handle"`
	State    string    `json:"state"` // live, expired or ended
	Version  uint64    `json:"version"`
	LoggedIn bool      `json:"logged_in"`
	User     *string   `json:"user"` // "" = none; null = unknown, because no keys were given or they do not open it
	Created  timestamp `json:"created"`
	Seen     timestamp `json:"last_seen"`
	Deadline timestamp `json:"deadline"` // when it expires if it is not used; for a tombstone, until when it is kept
	Expires  timestamp `json:"expires"`
	Ended    timestamp `json:"ended"`
	Bytes    int       `json:"bytes"`
	Key      string    `json:"key"` // public id of the key that sealed it
}

func rowOf(rec store.Record, now time.Time) row {
	r := row{
		Handle:   rec.ID.String(),
		State:    "live",
		Version:  rec.Version,
		LoggedIn: rec.User != store.UserHash{},
		Created:  timestamp(rec.Created),
		Seen:     timestamp(rec.Seen),
		Deadline: timestamp(rec.Deadline),
		Expires:  timestamp(rec.Expires),
		Ended:    timestamp(rec.Ended),
		Bytes:    len(rec.Data),
		Key:      keyID(rec.Data),
	}
	switch {
	case rec.IsEnd():
		r.State = "ended"
	case rec.Expired(now):
		r.State = "expired"
	}
	return r
}

// keyID returns the public id of the key that sealed a value.
func keyID(sealed []byte) string {
	if len(sealed) < seal.Overhead {
		return ""
	}
	return hex.EncodeToString(sealed[:4])
}

// print writes the row as lines of text.
func (r row) print(w io.Writer, now time.Time) {
	list := newList(w)
	defer list.Flush()
	list.line("handle", r.Handle)
	list.line("state", r.State)
	list.line("version", r.Version)
	list.line("logged in", yesNo(r.LoggedIn))
	list.line("created", r.Created.at(now))
	list.line("last seen", r.Seen.at(now))
	if r.State == "ended" {
		list.line("ended", r.Ended.at(now))
		list.line("tombstone kept until", r.Deadline.at(now))
		return
	}
	list.line("expires if idle", r.Deadline.at(now))
	list.line("expires at the latest", r.Expires.at(now))
	list.line("bytes", r.Bytes)
	list.line("sealed with key", r.Key)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// list is a column of names and one of values.
type list struct{ *tabwriter.Writer }

func newList(w io.Writer) list { return list{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

func (l list) line(name string, value any) { fmt.Fprintf(l, "%s\t%v\n", name, value) }

// timestamp is a time in UTC; zero means unknown, and is null in JSON.
type timestamp time.Time

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

func (t timestamp) MarshalJSON() ([]byte, error) {
	if time.Time(t).IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(time.Time(t).UTC().Format(timeLayout))
}

func (t timestamp) String() string {
	if time.Time(t).IsZero() {
		return "-"
	}
	return time.Time(t).UTC().Format("2006-01-02 15:04:05Z")
}

// at returns the time together with its distance from now.
func (t timestamp) at(now time.Time) string {
	if time.Time(t).IsZero() {
		return "-"
	}
	d := time.Time(t).Sub(now)
	if d < 0 {
		return fmt.Sprintf("%v (%s ago)", t, rough(-d))
	}
	return fmt.Sprintf("%v (in %s)", t, rough(d))
}

// rough formats a duration in one unit, rounded: a session that was used a moment
// ago expires in 7 days, not in 6.
func rough(d time.Duration) string {
	in := func(unit time.Duration) time.Duration { return d.Round(unit) / unit }
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", in(time.Second))
	case d < time.Hour:
		return fmt.Sprintf("%d min", in(time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", in(time.Hour))
	default:
		return fmt.Sprintf("%d days", in(24*time.Hour))
	}
}

// printJSON writes v as indented JSON.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
