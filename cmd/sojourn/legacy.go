package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/reason"
	old "github.com/sojourn-go/sojourn/legacy/value"
	"github.com/sojourn-go/sojourn/legacy/vectors"
)

// legacyCommands are about the sessions of other libraries.
type legacyCommands struct {
	Inspect legacyInspect `cmd:"" help:"Decode one session of another library."`
	Check   legacyCheck   `cmd:"" help:"Run recorded sessions through the readers."`
	Write   legacyWrite   `cmd:"" help:"Write recorded sessions again, for the old libraries to read."`
	Count   legacyCount   `cmd:"" help:"Count what is left in another library's store."`
	Convert legacyConvert `cmd:"" help:"Turn another library's sessions into Sojourn's, all at once."`
}

type legacyInspect struct {
	System string    `required:"" enum:"webapp2-securecookie,webapp2-memcache,webapp2-ndb,gae-sessions,beaker-cookie,beaker-session,gaeutilities,diy-memcache,gorilla,scs" placeholder:"SYSTEM" help:"What wrote the session: webapp2-securecookie, webapp2-memcache, webapp2-ndb, gae-sessions, beaker-cookie, beaker-session, gaeutilities (of which data cookies can be read), diy-memcache, gorilla or scs."`
	Config string    `required:"" placeholder:"FILE" help:"The old application's configuration: a file with a JSON object. It holds a secret, so it is no argument itself."`
	File   string    `placeholder:"PATH" help:"Read the cookie from this file instead of standard input."`
	At     time.Time `placeholder:"TIME" help:"Read it as of this time, such as 2026-11-20T15:00:00Z; now if not given."`
	Values bool      `help:"Also show the values. They may be personal data or secrets."`
	JSON   bool      `name:"json" help:"Print JSON."`
}

func (legacyInspect) Help() string {
	return `Decodes the session in a Cookie header (or in Set-Cookie header lines), and prints the verdict, when the session was issued and expires, and the names and kinds of its values. Identifiers and secrets are never printed.

The verdict is valid; refused, with a reason such as bad_signature or expired; or elsewhere: nothing is wrong with the cookie's signature, if it has one, but the data is kept on a server, and this command asks none. The exit status is 0 for each of them. A data cookie of gaeutilities is not signed: valid only means that it can be read.

The configuration has the fields that the system has in files of recorded sessions; the command's README.md lists them.

Examples:

    sojourn legacy inspect --system webapp2-securecookie --config webapp2.json < cookie.txt
    sojourn legacy inspect --system beaker-cookie --config beaker.json --file cookie.txt --values --json
    sojourn legacy inspect --system gae-sessions --config gae.json --at 2026-11-01T00:00:00Z < cookie.txt
`
}

// Verdicts of legacy inspect.
const (
	verdictValid     = "valid"
	verdictRefused   = "refused"
	verdictElsewhere = "elsewhere" // on a server
)

// legacyFinding is the result of legacy inspect. Its JSON form is part of the
// command's interface: see README.md.
type legacyFinding struct {
	System  string          `json:"system"`
	Verdict string          `json:"verdict"`
	Reason  *string         `json:"reason"` // null if valid
	Detail  string          `json:"detail,omitempty"`
	Cookies []string        `json:"cookies"` // names
	Issued  timestamp       `json:"issued"`
	Expires timestamp       `json:"expires"`
	Values  []legacyValue   `json:"values"`
	Data    json.RawMessage `json:"data,omitempty"` // tagged JSON, if values must be shown
}

type legacyValue struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
	text string
}

func (c *legacyInspect) Run(ctx context.Context, term terminal) error {
	config, err := legacyConfig(c.Config)
	if err != nil {
		return err
	}
	text, err := cookieText(ctx, c.File, term)
	if err != nil {
		return err
	}
	if c.At.IsZero() {
		c.At = time.Now()
	}
	header := cookieHeader(text)
	found := legacyFinding{System: c.System, Verdict: verdictValid, Cookies: []string{}, Values: []legacyValue{}}
	session, err := c.read(ctx, config, header)
	switch why := reason.Of(err); {
	case err == nil:
		found.Cookies = append(found.Cookies, session.Cookies...)
		found.Issued, found.Expires = timestamp(session.Issued), timestamp(session.Expires)
		for key, v := range session.Data.All() {
			found.Values = append(found.Values, legacyValue{legacyName(key), legacyKind(v), string(old.MarshalTagged(v))})
		}
		if c.Values {
			found.Data = old.MarshalTagged(session.Data)
		}
	case why == "":
		return err // no store can fail here, so the configuration is wrong
	default:
		found.Verdict = verdictRefused
		if why == reason.NotFound {
			found.Verdict = verdictElsewhere
		}
		code := string(why)
		found.Reason, found.Detail = &code, err.Error()
	}
	if c.JSON {
		return printJSON(term.out, found)
	}
	found.print(term.out, c.At, c.Values)
	return nil
}

// read decodes a Cookie header, without the stores of the old application.
func (c *legacyInspect) read(ctx context.Context, config json.RawMessage, header string) (*legacy.Session, error) {
	if c.System != systemGorilla && c.System != systemSCS {
		recorded := vectors.Case{
			Name: "the configuration", System: c.System, Config: config,
			Now: float64(c.At.UnixMicro()) / 1e6, CookieHeader: &header,
		}
		return recorded.Read(ctx)
	}
	format, err := openLegacy(c.System, config, emptyBackends())
	if err != nil {
		return nil, err
	}
	return format.Read(ctx, http.Header{"Cookie": {header}}, c.At)
}

// legacyConfig returns the JSON object in the file that --config names.
func legacyConfig(path string) (json.RawMessage, error) {
	if strings.HasPrefix(strings.TrimSpace(path), "{") {
		return nil, usagef("--config: name a file that holds the JSON object: a secret in an argument ends up in the shell's history and in the list of processes")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fileError("--config", err)
	}
	if !json.Valid(text) || !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return nil, fmt.Errorf("--config: %s holds no JSON object", path)
	}
	return text, nil
}

// cookieHeader makes one Cookie header of the lines of a text. The attributes
// of a Set-Cookie line then look like other cookies, which are ignored.
func cookieHeader(text string) string {
	var pairs []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(headerName.ReplaceAllString(line, "")); line != "" {
			pairs = append(pairs, line)
		}
	}
	return strings.Join(pairs, "; ")
}

// legacyName is the name of a value. A key that is not text is in tagged JSON.
func legacyName(key any) string {
	if name, ok := old.TextOf(key); ok {
		return name
	}
	return string(old.MarshalTagged(key))
}

// legacyKind names the type of a value.
func legacyKind(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case bool:
		return "bool"
	case int64, *big.Int:
		return "int"
	case float64:
		return "float"
	case string, old.Surrogates:
		return "text"
	case []byte:
		return "bytes"
	case []any:
		return "list"
	case old.Tuple:
		return "tuple"
	case *old.Dict:
		return "dict"
	case old.Set:
		if v.Frozen {
			return "frozenset"
		}
		return "set"
	case old.DateTime:
		return "datetime"
	case old.Date:
		return "date"
	case old.Time:
		return "time"
	case old.TimeDelta:
		return "timedelta"
	case old.Decimal:
		return "decimal"
	case old.UUID:
		return "uuid"
	case complex128:
		return "complex"
	default:
		return "object"
	}
}

func (f *legacyFinding) print(w io.Writer, now time.Time, values bool) {
	list := newList(w)
	list.line("system", f.System)
	list.line("verdict", f.Verdict)
	if f.Reason != nil {
		list.line("reason", *f.Reason)
		list.line("detail", printable(f.Detail))
		list.Flush()
		if f.Verdict == verdictElsewhere {
			fmt.Fprintln(w, "nothing is wrong with the signature, if there is one; the data is kept on a server, which was not asked")
		}
		return
	}
	for _, name := range f.Cookies {
		list.line("cookie", printable(name))
	}
	list.line("issued", f.Issued.at(now))
	list.line("expires", f.Expires.at(now))
	list.Flush()
	if len(f.Values) == 0 {
		fmt.Fprintln(w, "no values")
		return
	}
	fmt.Fprintln(w)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tKIND\tVALUE")
	for _, v := range f.Values {
		text := hidden
		if values {
			text = v.text
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", printable(v.Name), v.Kind, text)
	}
	table.Flush()
}

type legacyCheck struct {
	Files []string `arg:"" name:"file" help:"Files of recorded sessions; - is standard input."`
}

func (legacyCheck) Help() string {
	return `Reads every case of files in the recorded-session format, and prints one line of JSON for each: {"name","valid","data","sid","reason"}, with the data in tagged JSON. The exit status is 0 for any results, and 1 if a file cannot be read or has no recorded sessions; the other files are still checked.

Examples:

    sojourn legacy check webapp2_ndb.json gae_sessions.json
    sojourn legacy check - < beaker_cookie.json | jq -c 'select(.valid | not)'
`
}

func (c *legacyCheck) Run(ctx context.Context, term terminal) error {
	return eachRecording(ctx, c.Files, term, func(file []byte) error { return vectors.Check(ctx, file, term.out) })
}

type legacyWrite struct {
	Files []string `arg:"" name:"file" help:"Files of recorded sessions; - is standard input."`
}

func (legacyWrite) Help() string {
	return `Prints, for every valid case of a system whose sessions are shared, what this module's writer makes of its data, as one line of JSON: {"name","system","config","now","set_cookie","storage"}, in the fields of the recorded-session format. A case that cannot be written also has "error". The lines hold the secrets of the configurations and the data of the sessions.

Examples:

    sojourn legacy write webapp2_ndb.json gae_sessions.json > written.jsonl
    sojourn legacy write - < beaker_cookie.json | jq -r '.set_cookie[]'
`
}

func (c *legacyWrite) Run(ctx context.Context, term terminal) error {
	return eachRecording(ctx, c.Files, term, func(file []byte) error { return vectors.Rewrite(ctx, file, term.out) })
}

// eachRecording calls do with the content of every file. A file that fails does
// not stop the others.
func eachRecording(ctx context.Context, names []string, term terminal, do func(file []byte) error) error {
	var errs []error
	for i, name := range names {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		read := func() ([]byte, error) { return os.ReadFile(name) }
		if name == "-" {
			name = "standard input"
			read = func() ([]byte, error) { return readAll(ctx, term.in, math.MaxInt64) }
		}
		file, err := read()
		if err != nil {
			errs = append(errs, fileError(fmt.Sprintf("file %d of recorded sessions", i+1), err))
			continue
		}
		if err := do(file); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
