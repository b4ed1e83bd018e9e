package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/sojourn-go/sojourn"
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
	keys           string
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
	flags.DurationVar(&opts.maxStale, "max-stale", 0, "how old the copies in a shared cache may be; 0 = the library's default (in process: always 1s)")
	flags.IntVar(&opts.inline, "inline", 0, "most `bytes` of a session in the cookie; 0 = all sessions are stored (default: the library's)")
	flags.DurationVar(&opts.idle, "idle", 0, "end a session that was not used for this long (default: the library's)")
	flags.DurationVar(&opts.lifetime, "lifetime", 0, "end a session this long after it began (default: the library's)")
	flags.StringVar(&opts.keys, "keys", "", "key `file`, made when missing (default: a new key, forgotten at the end)")
	flags.BoolVar(&opts.insecure, "insecure", false, "cookies without Secure and without the __Host- prefix, for plain HTTP clients")
	later := laterFlags(flags)

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
	flags.Visit(func(f *flag.Flag) {
		opts.given[f.Name] = true
		if later[f.Name] && f.Value.String() != "0" && f.Value.String() != "0s" && err == nil {
			err = usageError{fmt.Errorf("-%s is not available yet", f.Name)}
		}
	})
	switch {
	case err != nil:
	case len(opts.caches) > 0 && opts.store == noStore:
		err = usageError{errors.New("-cache: with -store none there is nothing to put it in front of")}
	case opts.maxStale < 0:
		err = usageError{fmt.Errorf("-max-stale %v is negative", opts.maxStale)}
	}
	if opts.given["inline"] && opts.inline == 0 && opts.store == noStore && err == nil {
		err = usageError{errors.New("-inline 0 keeps every session in the store, and -store none has none")}
	}
	return opts, err
}

// laterFlags declares the flags of the probe's interface whose part of the
// library does not exist yet. Zero switches each of them off, which is what
// happens anyway.
func laterFlags(flags *flag.FlagSet) map[string]bool {
	flags.Duration("rotate", 0, "renew credentials this often (not available yet)")
	flags.Duration("grace", 0, "how long a renewed credential still counts (not available yet)")
	flags.Int("max-per-user", 0, "most stored sessions of one user (not available yet)")
	return map[string]bool{"rotate": true, "grace": true, "max-per-user": true}
}

// config returns what the flags say about sessions, all but the store.
func (o *options) config(logger *slog.Logger) (sojourn.Config, error) {
	cfg := sojourn.Config{
		IdleTimeout: o.idle,
		Lifetime:    o.lifetime,
		Cookie:      sojourn.Cookie{Insecure: o.insecure},
		Logger:      logger,
	}
	switch {
	case o.store == noStore:
		cfg.Placement = sojourn.CookieOnly
		cfg.InlineLimit = o.inline
	case o.given["inline"] && o.inline == 0:
		cfg.Placement = sojourn.StoredOnly
	default:
		cfg.InlineLimit = o.inline
	}
	var err error
	if o.keys != "" {
		cfg.Keys, err = sojourn.LoadKeyFile(o.keys)
	} else {
		cfg.Keys, err = sojourn.ParseKeys(sojourn.GenerateKey())
	}
	return cfg, err
}
