package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/sojourn-go/sojourn/internal/record"
	"github.com/sojourn-go/sojourn/internal/seal"
	"github.com/sojourn-go/sojourn/internal/wire"
	"github.com/sojourn-go/sojourn/store"
)

type inspect struct {
	storeFlag
	keysFlags
	File   string `placeholder:"PATH" help:"Read the cookie from this file."`
	Values bool   `help:"Also show the values. They may be personal data or secrets."`
	JSON   bool   `name:"json" help:"Print JSON."`
	Handle string `arg:"" optional:"" help:"The handle of a stored session. Without it, a cookie is read from standard input."`
}

func (inspect) Help() string {
	return `Opens what the keys have sealed, and prints its header and the names and sizes of its values. The identifier, which is the visitor's credential, is never printed.

Pass a cookie on standard input or in a file: its value, or one or several Cookie or Set-Cookie header lines. Pass a token (sjn_…) in the same way, alone or as an Authorization header line. Both are secrets, so they are never arguments, which the shell's history and the list of processes would show. With --store, the stored session of the cookie is also opened.

Examples:

    sojourn inspect hviqnsuzpvktywiydtsrqst62q --store sqlite:data/sessions.db --keys data/session.keys
    sojourn inspect --keys data/session.keys < cookie.txt
    sojourn inspect --file cookie.txt --values --json
`
}

func (c *inspect) Run(ctx context.Context, term terminal) (err error) {
	if c.Handle != "" && c.File != "" {
		return usagef("give either a handle, or a cookie with --file")
	}
	if c.Handle != "" && c.Handle != "-" {
		if _, err := parseHandle(c.Handle); err != nil {
			return err
		}
		if c.Store == "" {
			return usagef("a handle names a stored session: give its store with --store, or in the environment variable %s", storeVariable)
		}
	}
	ring, err := c.ring(term)
	if err != nil {
		return err
	}
	o := opener{ring: ring, tenant: c.Tenant, values: c.Values, now: time.Now(), messages: term.messages}
	if c.Store != "" {
		var closeStore func() error
		if o.store, closeStore, err = c.open(ctx); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, closeStore()) }()
	}

	var found []finding
	if c.Handle != "" && c.Handle != "-" {
		f, err := o.record(ctx, c.Name, c.Handle)
		if err != nil {
			return err
		}
		found = []finding{f}
	} else {
		text, err := cookieText(ctx, c.File, term)
		if err != nil {
			return err
		}
		if found, err = o.cookies(ctx, c.Name, text); err != nil {
			return err
		}
	}
	if c.JSON {
		return printJSON(term.out, found)
	}
	for i, f := range found {
		if i > 0 {
			fmt.Fprintln(term.out)
		}
		f.print(term.out, o.now)
	}
	return nil
}

// maxInput is far above the size of a browser's cookies.
const maxInput = 1 << 20

// cookieText reads a cookie from a file, or from standard input if file is "".
func cookieText(ctx context.Context, file string, term terminal) (string, error) {
	in := term.in
	switch {
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return "", fileError("the file of the cookie", err)
		}
		defer f.Close()
		in = f
	case term.typing:
		fmt.Fprintln(term.messages, "paste the cookie, then press Enter and Ctrl+D")
	}
	text, err := readAll(ctx, in, maxInput)
	if err != nil {
		return "", fmt.Errorf("reading the cookie: %w", err)
	}
	if len(strings.TrimSpace(string(text))) == 0 {
		return "", usagef("there is no cookie in the input")
	}
	return string(text), nil
}

// opener opens sealed values.
type opener struct {
	ring   *seal.Ring
	tenant string
	store  store.Store // nil = none
	values bool
	now    time.Time

	messages io.Writer
}

// cookies opens every cookie in the text that the keys open.
func (o *opener) cookies(ctx context.Context, name, text string) ([]finding, error) {
	var found []finding
	var refused []error
	for _, c := range parseCookies(text, name) {
		f, err := o.cookie(c)
		if err != nil {
			refused = append(refused, fmt.Errorf("%s: %w", c, err))
			continue
		}
		found = append(found, f)
		if f.Kind != kindReference || o.store == nil {
			continue
		}
		rec, err := o.record(ctx, c.session, f.Handle)
		switch {
		case errors.Is(err, store.ErrNotFound):
			fmt.Fprintf(o.messages, "warning: %v\n", err)
		case err != nil:
			return nil, err
		default:
			found = append(found, rec)
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case len(refused) > 0:
		return nil, fmt.Errorf("nothing opens: %w", errors.Join(refused...))
	default:
		return nil, fmt.Errorf("the input has no cookie of a session named %q: give the service's Config.Name with --name", name)
	}
}

func (o *opener) cookie(c cookie) (finding, error) {
	sealed, err := wire.Text.DecodeString(c.value)
	if err != nil {
		return finding{}, errors.New("it is not base64url: it was damaged, or another program has set it")
	}
	f := finding{Cookie: c.name, Key: keyID(sealed)}
	aad := wire.Bind(wire.Scope(c.session, o.tenant))
	var plain []byte
	for _, purpose := range c.purposes {
		if plain, f.Stale, err = o.ring.Open(nil, purpose, sealed, aad); err == nil {
			if purpose != seal.State {
				return o.reference(f, plain)
			}
			return o.state(f, plain)
		}
	}
	return f, explain(err, c.session, f.Key)
}

// explain turns a seal's error into advice.
func explain(err error, session, key string) error {
	switch {
	case errors.Is(err, seal.ErrUnknownKey):
		return fmt.Errorf("the key %s is not among the keys: it was sealed by another service, or its key has been removed (%w)", key, err)
	case errors.Is(err, seal.ErrOpen):
		return fmt.Errorf("it does not open: it was damaged, or it does not belong to a session named %q (see --name)", session)
	default:
		return err
	}
}

func (o *opener) reference(f finding, plain []byte) (finding, error) {
	ref, err := wire.ParseReference(plain)
	if err != nil {
		return f, err
	}
	f.Kind = kindReference
	f.Handle = store.HashIdentifier(ref.Identifier).String()
	f.Generation = &ref.Generation
	f.Expires = timestamp(record.Time(ref.Expires))
	return f, nil
}

func (o *opener) state(f finding, plain []byte) (finding, error) {
	if len(plain) == 0 {
		return f, wire.ErrFormat
	}
	switch plain[0] {
	case wire.StateFloor, wire.StateFloorVolatile:
		floor, err := wire.ParseFloor(plain[0], plain[1:])
		if err != nil {
			return f, err
		}
		f.Kind, f.Handle, f.Version = kindFloor, floor.ID.String(), floor.Version
		return f, nil
	case wire.StateInline:
		rec, err := record.Parse(plain[1:])
		if err != nil {
			return f, err
		}
		f.Kind = kindInline
		f.Handle = store.HashIdentifier(rec.Header.Identifier).String()
		f.Version = rec.Header.Counter
		f.Expires = timestamp(record.Time(rec.Header.Expires))
		f.Session = o.contents(&rec)
		return f, nil
	default:
		return f, wire.ErrFormat
	}
}

// record opens a stored session.
func (o *opener) record(ctx context.Context, name, handle string) (finding, error) {
	rec, err := load(ctx, o.store, handle)
	if err != nil {
		return finding{}, err
	}
	r := rowOf(rec, o.now)
	f := finding{Kind: kindRecord, Handle: handle, Version: rec.Version, Expires: r.Expires, Key: r.Key, Record: &r}
	if rec.IsEnd() {
		return f, nil
	}
	u := unsealer{o.ring, name, o.tenant}
	inside, stale, err := u.open(&rec)
	if err != nil {
		if wrong := checkFit(ctx, o.store, u); wrong != nil {
			return f, wrong
		}
		return f, fmt.Errorf("the record of %s: %w", handle, explain(err, name, r.Key))
	}
	f.Stale, f.Session = stale, o.contents(&inside)
	return f, nil
}
