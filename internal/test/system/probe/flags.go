package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/keys"
)

// noStore is the -store of a probe whose sessions live in cookies only.
const noStore = "none"

type options struct {
	listen         string
	store          string
	caches         []string
	maxStale       time.Duration
	inline         int
	idle, lifetime time.Duration
	rotate, grace  time.Duration
	timeout        time.Duration
	maxPerUser     int
	keys           string
	reload         time.Duration
	insecure       bool

	given map[string]bool // the flags that were on the command line
}

// parseFlags reads the command line. Its errors are usageErrors, or
// flag.ErrHelp once the help was printed.
func parseFlags(args []string, stderr io.Writer) (options, error) {
	opts := options{given: map[string]bool{}}
	flags := flag.NewFlagSet("probe", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // run prints errors, on one line
	flags.StringVar(&opts.listen, "listen", "127.0.0.1:0", "`address` to listen on")
	flags.StringVar(&opts.store, "store", "memory:", "where sessions are kept: memory:, sqlite:PATH, postgres://USER@HOST/DATABASE, redis://HOST:PORT, another `URL` of a store, or none for cookies only")
	flags.Func("cache", "a cache in front of the store: memory:BYTES, memcached://HOST:PORT, redis://HOST:PORT, another `URL` of a cache; may be given again, nearest first", func(url string) error {
		opts.caches = append(opts.caches, url)
		return nil
	})
	flags.DurationVar(&opts.maxStale, "max-stale", 0, "how old the copies in a shared cache may be; 0 = the library's default (in process: always the default)")
	flags.IntVar(&opts.inline, "inline", 0, "most `bytes` of a session in the cookie; 0 = all sessions are stored (default: the library's)")
	flags.DurationVar(&opts.idle, "idle", 0, "end a session that was not used for this long (default: the library's)")
	flags.DurationVar(&opts.lifetime, "lifetime", 0, "end a session this long after it began (default: the library's)")
	flags.DurationVar(&opts.rotate, "rotate", 0, "renew the credential of a stored session this often; 0 = only on request")
	flags.DurationVar(&opts.grace, "grace", 0, "how long a renewed credential still counts after its successor came back (default: the library's)")
	flags.DurationVar(&opts.timeout, "timeout", 0, "how long one load or one commit may take (default: the library's)")
	flags.IntVar(&opts.maxPerUser, "max-per-user", 0, "most live sessions of one user, a login beyond it ends the oldest; 0 = any `number`")
	flags.StringVar(&opts.keys, "keys", "", "key `file`, made when missing and read again when it changes (default: a new key, forgotten at the end)")
	flags.DurationVar(&opts.reload, "reload", 0, "how often to look for a change of the key file (default: the library's)")
	flags.BoolVar(&opts.insecure, "insecure", false, "cookies without Secure and without the __Host- prefix, for plain HTTP clients")

	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stderr, "probe offers every session operation over plain HTTP, for tests.\n\nUsage: probe [flags]\n\n")
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return opts, err
	case err != nil:
		return opts, usageError{err}
	case flags.NArg() > 0:
		return opts, usageError{fmt.Errorf("unexpected argument %q", flags.Arg(0))}
	}
	flags.Visit(func(f *flag.Flag) { opts.given[f.Name] = true })
	return opts, opts.check()
}

// check finds the mistakes that sojourn.New cannot see.
func (o *options) check() error {
	storeAll := o.given["inline"] && o.inline == 0
	switch {
	case len(o.caches) > 0 && o.store == noStore:
		return usageError{errors.New("-cache: with -store none there is nothing to put it in front of")}
	case o.maxStale < 0:
		return usageError{fmt.Errorf("-max-stale %v is negative", o.maxStale)}
	case o.reload < 0:
		return usageError{fmt.Errorf("-reload %v is negative", o.reload)}
	case o.reload > 0 && o.keys == "":
		return usageError{errors.New("-reload: without -keys there is no file to read again")}
	case storeAll && o.store == noStore:
		return usageError{errors.New("-inline 0 keeps every session in the store, and -store none has none")}
	}
	return nil
}

// config returns the flags' settings for sessions, except the store. The key
// file is watched until ctx ends.
func (o *options) config(ctx context.Context, logger *slog.Logger) (sojourn.Config, error) {
	cfg := sojourn.Config{
		IdleTimeout: o.idle,
		Lifetime:    o.lifetime,
		Rotation:    sojourn.Rotation{Every: o.rotate, Grace: o.grace},
		Timeout:     o.timeout,
		Limit:       sojourn.Limit{Max: o.maxPerUser},
		Cookie:      sojourn.Cookie{Insecure: o.insecure},
		Logger:      logger,
	}
	switch {
	case o.store == noStore:
		cfg.Mode = sojourn.CookieOnly
		cfg.InlineLimit = o.inline
	case o.given["inline"] && o.inline == 0:
		cfg.Mode = sojourn.StoredOnly
	default:
		cfg.InlineLimit = o.inline
	}
	var err error
	if o.keys != "" {
		cfg.Keys, err = keys.WatchFile(ctx, o.keys, o.reload, logger)
	} else {
		cfg.Keys, err = sojourn.ParseKeys(keys.Generate())
	}
	return cfg, err
}
