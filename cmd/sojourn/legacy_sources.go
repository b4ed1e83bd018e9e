package main

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"cloud.google.com/go/datastore"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/valkey-io/valkey-go"
	"google.golang.org/api/iterator"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/engine/clouddatastore"
	legacyredis "github.com/sojourn-go/sojourn/legacy/engine/redis"
	"github.com/sojourn-go/sojourn/legacy/engine/sqldb"
	"github.com/sojourn-go/sojourn/legacy/filestore"
	"github.com/sojourn-go/sojourn/legacy/gaesessions"
	"github.com/sojourn-go/sojourn/legacy/gaeutilities"
	"github.com/sojourn-go/sojourn/legacy/webapp2"
)

// legacyFlags are the flags for an old application's sessions.
type legacyFlags struct {
	System    string `required:"" enum:"webapp2-securecookie,webapp2-memcache,webapp2-ndb,gae-sessions,beaker-cookie,beaker-session,gaeutilities,diy-memcache,gorilla,scs" placeholder:"SYSTEM" help:"What wrote the sessions: webapp2-ndb, gae-sessions, beaker-session, gaeutilities, gorilla or scs. Sessions in cookies or memcached cannot be listed."`
	Config    string `required:"" placeholder:"FILE" help:"The old application's configuration, as for legacy inspect."`
	From      string `required:"" placeholder:"URL" help:"Where the sessions are: file:FOLDER, sqlite:PATH, postgres://USER@HOST/DATABASE, redis://HOST or datastore://PROJECT[/DATABASE]."`
	App       string `placeholder:"ID" help:"The App Engine application's identifier, such as s~myapp: for gaeutilities, whose keys hold it."`
	Namespace string `placeholder:"NAME" help:"The namespace in the datastore."`
}

// stored is one session in an old application's store.
type stored struct {
	id string    // a credential
	at time.Time // when its cookie was made, if the format's expiry depends on it
}

// source is an old application's store that can be walked.
type source struct {
	format legacy.Known
	// cookie makes the Cookie header of a session's visitor.
	cookie func(ctx context.Context, id string, at time.Time) (http.Header, error)
	list   iter.Seq2[stored, error]
	close  func() error
}

// read reads one session like a request of its visitor.
func (s *source) read(ctx context.Context, it stored, now time.Time) (*legacy.Session, http.Header, error) {
	header, err := s.cookie(ctx, it.id, it.at)
	if err != nil {
		return nil, nil, err
	}
	session, err := s.format.Read(ctx, header, now)
	return session, header, err
}

// layout is the part of a configuration with the sessions' location.
type layout struct {
	Options struct {
		Type      string `json:"type"`
		TableName string `json:"table_name"`
	} `json:"options"`
	Backend   string `json:"backend"`
	Prefix    string `json:"prefix"`
	MaxAge    int    `json:"max_age"`
	HashToken bool   `json:"hash_token"`
}

// kind is the system and its kind of store.
func (f *legacyFlags) kind(l layout) string {
	switch f.System {
	case "beaker-session":
		return "beaker " + strings.TrimPrefix(l.Options.Type, "ext:")
	case systemGorilla:
		return "gorilla " + cmp.Or(l.Backend, "cookie")
	}
	return f.System
}

// open opens the store, which the caller closes.
func (f *legacyFlags) open(ctx context.Context) (*source, error) {
	config, err := legacyConfig(f.Config)
	if err != nil {
		return nil, err
	}
	var l layout
	if err := json.Unmarshal(config, &l); err != nil {
		return nil, fmt.Errorf("the configuration: %w", err)
	}
	kind := f.kind(l)
	switch kind {
	case "webapp2-securecookie", "beaker-cookie", "gorilla cookie":
		return nil, usagef("--system %s: these sessions live in their visitors' cookies, and no store holds them: what Sojourn's AdoptStats count is all that there is to know", f.System)
	case "webapp2-memcache", "diy-memcache", "beaker memcached":
		return nil, usagef("--system %s: memcached cannot list what it holds: what Sojourn's AdoptStats count is all that there is to know", f.System)
	}
	scheme, rest, _ := strings.Cut(f.From, ":")
	s := &source{}
	on := emptyBackends()
	switch {
	case scheme == "file" && (kind == "beaker file" || kind == "gorilla filesystem"):
		err = s.openFiles(strings.TrimPrefix(rest, "//"), kind, &on)
	case (scheme == "sqlite" || scheme == "postgres" || scheme == "postgresql") &&
		(kind == "beaker database" || kind == "beaker sqla" || kind == "gorilla postgres" || kind == systemSCS):
		err = s.openSQL(ctx, f.From, kind, l, &on)
	case (scheme == "redis" || scheme == "rediss") && (kind == "beaker redis" || kind == "gorilla redis" || kind == systemSCS):
		err = s.openRedis(ctx, f.From, kind, l, &on)
	case scheme == "datastore" && (kind == "webapp2-ndb" || kind == "gae-sessions" || kind == "gaeutilities" || kind == "beaker google"):
		err = f.openDatastore(ctx, s, kind, l, &on)
	default:
		return nil, usagef("--from: %s sessions are not in a store of that kind, or its URL does not begin with file:, sqlite:, postgres:, redis: or datastore:", kind)
	}
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	if l.HashToken {
		// The store has only the tokens' hashes, so look these up.
		if config, err = withMember(config, "hash_token", false); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	if s.cookie, err = cookieMaker(f.System, config); err == nil {
		s.format, err = openLegacy(f.System, config, on)
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// openFiles walks Beaker's data_dir or gorilla's path.
func (s *source) openFiles(folder, kind string, on *backends) error {
	files, err := filestore.Open(folder)
	if err != nil {
		return err
	}
	on.Store, s.close = files, files.Close
	s.list = func(yield func(stored, error) bool) {
		err := fs.WalkDir(os.DirFS(folder), ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			it := stored{at: time.Now()}
			if kind == "gorilla filesystem" {
				id, ok := strings.CutPrefix(path, "session_")
				if !ok {
					return nil
				}
				it.id = id
				e, err := files.Get(context.Background(), path)
				if errors.Is(err, legacy.ErrNoEntry) {
					return nil
				}
				if err != nil {
					return err
				}
				it.at = securecookieTime(e.Value, it.at)
			} else {
				name, ok := strings.CutSuffix(filepath.Base(path), ".cache")
				if !ok || !strings.HasPrefix(path, "container_file/") {
					return nil
				}
				it.id = name
			}
			if !yield(it, nil) {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			yield(stored{}, err)
		}
	}
	return nil
}

// securecookieTime is when gorilla encoded a value. Reading the value verifies it.
func securecookieTime(encoded []byte, otherwise time.Time) time.Time {
	plain, err := base64.URLEncoding.DecodeString(string(encoded))
	if err != nil {
		return otherwise
	}
	stamp, _, _ := strings.Cut(string(plain), "|")
	n, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return otherwise
	}
	return time.Unix(n, 0)
}

// openSQL walks a table by its key.
func (s *source) openSQL(ctx context.Context, text, kind string, l layout, on *backends) error {
	driver, dialect, name := "pgx", sqldb.Postgres, text
	if path, ok := strings.CutPrefix(text, "sqlite:"); ok {
		if _, err := os.Stat(path); err != nil {
			return fileError("the database", err)
		}
		driver, dialect, name = "sqlite", sqldb.SQLite, path
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		return errors.New("the database's URL cannot be used") // the driver's error may repeat a password
	}
	if err := db.PingContext(ctx); err != nil {
		return errors.Join(errors.New("the database does not answer"), db.Close())
	}
	s.close = db.Close
	table, key, data := cmp.Or(l.Options.TableName, "beaker_cache"), "namespace", "''"
	switch kind {
	case "gorilla postgres":
		table, key, data = "http_sessions", "convert_from(key, 'UTF8')", "data"
		on.Store = sqldb.NewGorilla(db)
	case systemSCS:
		table, key = "sessions", "token"
		if on.tokens, err = sqldb.NewSCS(db, dialect); err != nil {
			return errors.Join(err, db.Close())
		}
	default:
		on.Store = sqldb.NewBeaker(db, dialect, table)
	}
	query := "SELECT " + key + ", " + data + " FROM " + table + " WHERE " + key + " > $1 ORDER BY 1 LIMIT " + strconv.Itoa(pageSize)
	s.list = func(yield func(stored, error) bool) {
		for last := ""; ; {
			page, err := sqlPage(ctx, db, query, last)
			if err != nil {
				yield(stored{}, fmt.Errorf("listing %s: %w", table, err))
				return
			}
			for _, it := range page {
				if !yield(it, nil) {
					return
				}
				last = it.id
			}
			if len(page) < pageSize {
				return
			}
		}
	}
	return nil
}

func sqlPage(ctx context.Context, db *sql.DB, query, last string) (page []stored, err error) {
	rows, err := db.QueryContext(ctx, query, last)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		it := stored{at: time.Now()}
		var data []byte
		if err := rows.Scan(&it.id, &data); err != nil {
			return nil, err
		}
		it.at = securecookieTime(data, it.at)
		page = append(page, it)
	}
	return page, rows.Err()
}

// openRedis walks the keys of one database.
func (s *source) openRedis(ctx context.Context, text, kind string, l layout, on *backends) error {
	options, err := valkey.ParseURL(text)
	if err != nil {
		return errors.New("the server's URL cannot be used") // the error may repeat a password
	}
	options.DisableCache = true
	client, err := valkey.NewClient(options)
	if err != nil {
		return fmt.Errorf("redis: %w", err)
	}
	s.close = func() error { client.Close(); return nil }
	entries := legacyredis.New(client)
	on.Store, on.tokens = entries, tokensIn{entries}
	prefix, suffix := "beaker_cache:", ":session"
	switch kind {
	case "gorilla redis":
		prefix, suffix = cmp.Or(l.Prefix, "session_"), ""
	case systemSCS:
		prefix, suffix = scsPrefix, ""
	}
	pattern := strings.NewReplacer("*", `\*`, "?", `\?`, "[", `\[`, `\`, `\\`).Replace(prefix) + "*" + suffix
	s.list = func(yield func(stored, error) bool) {
		seen := map[string]struct{}{} // a scan may return a key again
		for cursor := uint64(0); ; {
			page, err := client.Do(ctx, client.B().Scan().Cursor(cursor).Match(pattern).Count(pageSize).Build()).AsScanEntry()
			if err != nil {
				yield(stored{}, fmt.Errorf("listing keys: %w", err))
				return
			}
			for _, key := range page.Elements {
				if _, again := seen[key]; again {
					continue
				}
				seen[key] = struct{}{}
				it := stored{id: strings.TrimSuffix(strings.TrimPrefix(key, prefix), suffix), at: time.Now()}
				if kind == "gorilla redis" {
					left, err := client.Do(ctx, client.B().Pttl().Key(key).Build()).AsInt64()
					if err != nil {
						yield(stored{}, fmt.Errorf("asking for a key's age: %w", err))
						return
					}
					// The cookie and the entry were set together, with the same lifetime.
					age := cmp.Or(time.Duration(l.MaxAge)*time.Second, 30*24*time.Hour)
					if remaining := time.Duration(left) * time.Millisecond; left > 0 && remaining < age {
						it.at = it.at.Add(remaining - age)
					}
				}
				if !yield(it, nil) {
					return
				}
			}
			if cursor = page.Cursor; cursor == 0 {
				return
			}
		}
	}
	return nil
}

// openDatastore walks the entities of one kind.
func (f *legacyFlags) openDatastore(ctx context.Context, s *source, kind string, l layout, on *backends) error {
	u, err := url.Parse(f.From)
	if err != nil || u.Host == "" {
		return usagef("which project? Name it as in datastore://my-project")
	}
	client, err := datastore.NewClientWithDatabase(context.WithoutCancel(ctx), u.Host, strings.Trim(u.Path, "/"))
	if err != nil {
		return fmt.Errorf("datastore: %w", err)
	}
	s.close = client.Close
	entities := clouddatastore.New(client, f.App, f.Namespace)
	on.App, on.Datastore, on.Entities = f.App, entities, clouddatastore.NewGaeutilities(client, f.App, f.Namespace)
	of := map[string]string{
		"webapp2-ndb": webapp2.Kind, "gae-sessions": gaesessions.Kind, "gaeutilities": gaeutilities.Kind,
		"beaker google": cmp.Or(l.Options.TableName, "beaker_cache"),
	}[kind]
	if kind == "gaeutilities" && f.App == "" {
		return errors.Join(usagef("which application? Its identifier is in the sessions' keys: --app s~myapp"), client.Close())
	}
	s.list = func(yield func(stored, error) bool) {
		for it := client.Run(ctx, datastore.NewQuery(of).Namespace(f.Namespace)); ; {
			var properties datastore.PropertyList
			key, err := it.Next(&properties)
			if errors.Is(err, iterator.Done) {
				return
			}
			if err != nil {
				yield(stored{}, fmt.Errorf("listing %s: %w", of, err))
				return
			}
			if found, ok := entityOf(kind, key, properties); ok && !yield(found, nil) {
				return
			}
		}
	}
	return nil
}

// entityOf returns the session of an entity.
func entityOf(kind string, key *datastore.Key, properties datastore.PropertyList) (stored, bool) {
	it := stored{id: key.Name, at: time.Now()}
	for _, p := range properties {
		switch v := p.Value.(type) {
		case time.Time:
			if kind == "webapp2-ndb" && p.Name == "updated" { // written with each cookie
				it.at = v
			}
		case []any:
			if kind == "gaeutilities" && p.Name == "sid" && len(v) > 0 {
				it.id, _ = v[len(v)-1].(string) // the newest token
			}
		}
	}
	if kind == "beaker google" {
		id, ok := strings.CutPrefix(it.id, "p")
		it.id = id
		return it, ok
	}
	return it, it.id != ""
}
