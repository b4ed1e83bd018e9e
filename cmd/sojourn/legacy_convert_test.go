package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/datastore"
	"github.com/valkey-io/valkey-go"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/adopt"
	"github.com/sojourn-go/sojourn/internal/test/servers"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/legacy"
	"github.com/sojourn-go/sojourn/legacy/appengine"
	"github.com/sojourn-go/sojourn/legacy/cookies"
	"github.com/sojourn-go/sojourn/legacy/engine/clouddatastore"
	legacyredis "github.com/sojourn-go/sojourn/legacy/engine/redis"
	"github.com/sojourn-go/sojourn/legacy/engine/sqldb"
	"github.com/sojourn-go/sojourn/legacy/filestore"
	"github.com/sojourn-go/sojourn/legacy/formats"
	"github.com/sojourn-go/sojourn/legacy/gaeutilities"
	"github.com/sojourn-go/sojourn/legacy/pickle"
	old "github.com/sojourn-go/sojourn/legacy/value"
	"github.com/sojourn-go/sojourn/legacy/vectors"
)

// inProcess runs the command in this process.
func inProcess(t *testing.T, args ...string) result {
	t.Helper()
	var out, messages bytes.Buffer
	status := run(t.Context(), args, terminal{in: strings.NewReader(""), out: &out, messages: &messages})
	return result{status, out.String(), messages.String()}
}

// configFile is a file with the configuration of an old application.
func configFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	write(t, path, text)
	return path
}

// oldSite is an old application's sessions in a store.
type oldSite struct {
	system, config, from string
	on                   backends
	more                 []string // flags
}

func (o *oldSite) flags(t *testing.T) []string {
	t.Helper()
	return append([]string{"--system", o.system, "--config", configFile(t, o.config), "--from", o.from}, o.more...)
}

func (o *oldSite) format(t *testing.T) legacy.Format {
	t.Helper()
	known, err := openLegacy(o.system, json.RawMessage(o.config), o.on)
	if err != nil {
		t.Fatal(err)
	}
	return known.(legacy.Format)
}

// visitor stores a session as the old application does, and returns its Cookie
// header.
func (o *oldSite) visitor(t *testing.T, user string, now time.Time) http.Header {
	t.Helper()
	s := &legacy.Session{Data: old.NewDict()}
	s.Data.Set("visits", int64(3))
	s.Data.Set("user_id", user)
	s.Data.Set("theme", "dark")
	lines, err := o.format(t).Write(t.Context(), s, now)
	if err != nil {
		t.Fatal(err)
	}
	var pairs []string
	for _, line := range lines {
		if name, value, removed := cookies.ParseSet(line); !removed {
			pairs = append(pairs, name+"="+value)
		}
	}
	return http.Header{"Cookie": {strings.Join(pairs, "; ")}}
}

const (
	scsTable    = `CREATE TABLE sessions (token TEXT PRIMARY KEY, data %s NOT NULL, expiry %s NOT NULL)`
	beakerTable = `CREATE TABLE beaker_cache (id %s, namespace VARCHAR(255) NOT NULL UNIQUE, accessed %[2]s NOT NULL, created %[2]s NOT NULL, data %[3]s NOT NULL)`
	pgstore     = `CREATE TABLE http_sessions (id BIGSERIAL PRIMARY KEY, key BYTEA, data BYTEA, created_on TIMESTAMPTZ, modified_on TIMESTAMPTZ, expires_on TIMESTAMPTZ)`
)

// oldSites are old applications on every kind of store that can be listed.
func oldSites(t *testing.T) map[string]*oldSite {
	t.Helper()
	sites := map[string]*oldSite{}
	add := func(name string, o *oldSite, fill func(*backends)) {
		o.on = emptyBackends()
		fill(&o.on)
		sites[name] = o
	}
	const beakerConfig = `{"options": {"type": %q, "secret": "a secret", "timeout": 3600}}`
	const gorillaKeys = `{"name": "s", "backend": %q, "keys": [{"hash": "a secret of the old application!"}]}`
	files := func(config, system string) {
		folder := t.TempDir()
		store, err := filestore.Open(folder)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = store.Close() })
		add(system+" in files", &oldSite{system: system, config: config, from: "file:" + folder}, func(on *backends) { on.Store = store })
	}
	files(fmt.Sprintf(beakerConfig, "file"), "beaker-session")
	files(fmt.Sprintf(gorillaKeys, "filesystem"), systemGorilla)

	redis := servers.Redis(t)
	client, err := valkey.NewClient(valkey.ClientOption{InitAddress: []string{redis.Addr}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	entries := legacyredis.New(client)
	for system, config := range map[string]string{
		"beaker-session": fmt.Sprintf(beakerConfig, "ext:redis"),
		systemGorilla:    fmt.Sprintf(gorillaKeys, "redis"),
		systemSCS:        `{}`,
	} {
		add(system+" in Redis", &oldSite{system: system, config: config, from: "redis://" + redis.Addr}, func(on *backends) {
			on.Store, on.tokens = entries, tokensIn{entries}
		})
	}

	postgres := postgres().NewDatabase(t)
	sqlite := filepath.Join(t.TempDir(), "old.db")
	for name, database := range map[string]struct {
		driver, name, url string
		dialect           sqldb.Dialect
		tables            []string
	}{
		"SQLite": {"sqlite", sqlite, "sqlite:" + sqlite, sqldb.SQLite, []string{
			fmt.Sprintf(scsTable, "BLOB", "REAL"), fmt.Sprintf(beakerTable, "INTEGER PRIMARY KEY", "DATETIME", "BLOB"),
		}},
		"PostgreSQL": {"pgx", postgres, postgres, sqldb.Postgres, []string{
			fmt.Sprintf(scsTable, "BYTEA", "TIMESTAMPTZ"), fmt.Sprintf(beakerTable, "BIGSERIAL PRIMARY KEY", "TIMESTAMP", "BYTEA"), pgstore,
		}},
	} {
		db, err := sql.Open(database.driver, database.name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = db.Close() })
		for _, table := range database.tables {
			if _, err := db.Exec(table); err != nil {
				t.Fatal(err)
			}
		}
		add("beaker-session in "+name, &oldSite{system: "beaker-session", config: fmt.Sprintf(beakerConfig, "ext:database"), from: database.url}, func(on *backends) {
			on.Store = sqldb.NewBeaker(db, database.dialect, "")
		})
		add("scs in "+name, &oldSite{system: systemSCS, config: `{}`, from: database.url}, func(on *backends) {
			if on.tokens, err = sqldb.NewSCS(db, database.dialect); err != nil {
				t.Fatal(err)
			}
		})
		if name == "PostgreSQL" {
			add("gorilla in PostgreSQL", &oldSite{system: systemGorilla, config: fmt.Sprintf(gorillaKeys, "postgres"), from: database.url}, func(on *backends) {
				on.Store = sqldb.NewGorilla(db)
			})
		}
	}

	if !servers.WithoutGoogle() {
		emulator() // where the client looks for it
		project := own("old-shop")
		client, err := datastore.NewClient(t.Context(), project)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		for system, config := range map[string]string{
			"webapp2-ndb":    `{"secret": "a secret", "session_max_age": 3600}`,
			"gae-sessions":   `{"secret": "a secret of at least 32 bytes, for it is", "cookie_only_threshold": 0, "lifetime": 3600}`,
			"beaker-session": fmt.Sprintf(beakerConfig, "ext:google"),
		} {
			add(system+" in Datastore", &oldSite{system: system, config: config, from: "datastore://" + project}, func(on *backends) {
				on.App = "s~" + project
				on.Datastore = clouddatastore.New(client, on.App, "")
			})
		}
	}
	return sites
}

// adopting is the new service, which also adopts.
func adopting(t *testing.T, known legacy.Known) *service {
	t.Helper()
	return newService(t, sojourn.Config{Adopt: &sojourn.Adopt{
		From:  []adopt.Format{formats.From(known)},
		Map:   func(*adopt.Session, *sojourn.Session) error { return nil }, // maps no values
		Until: time.Now().Add(time.Hour),
	}})
}

// finds opens the session of a visitor with an old cookie.
func (s *service) finds(t *testing.T, header http.Header) *sojourn.Session {
	t.Helper()
	session, _, err := sitetest.Begin(t.Context(), s.sessions, header)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func (s *service) convert(t *testing.T, o *oldSite, more ...string) (n converted) {
	t.Helper()
	args := append([]string{
		"legacy", "convert", "--json", "--store", s.store, "--keys", s.keys, "--user", "user_id", "--rename", "visits=count", "--drop", "theme",
	}, o.flags(t)...)
	r := inProcess(t, append(args, more...)...)
	r.json(t, &n)
	if left := n.Read == 0 || n.Unreadable+n.Refused > int64(n.Reasons["empty"]); left != (r.status == exitFailed) || left != (r.stderr != "") {
		t.Errorf("exit status %d, %q after %+v", r.status, r.stderr, n)
	}
	return n
}

func TestConvertedSessionsWaitForTheirVisitors(t *testing.T) {
	t.Parallel()
	for name, o := range oldSites(t) {
		t.Run(name, func(t *testing.T) {
			ada := o.visitor(t, "ada", time.Now().Add(-time.Minute))
			ben := o.visitor(t, "", time.Now())
			s := adopting(t, o.format(t))

			var counted legacyTally
			inProcess(t, append([]string{"legacy", "count", "--json"}, o.flags(t)...)...).ok(t).json(t, &counted)
			if counted.Live != 2 || counted.Expired != 0 || counted.Unreadable != 0 {
				t.Errorf("count: %+v", counted)
			}
			if n := s.convert(t, o, "--dry-run"); n.Converted != 2 || n.LoggedIn != 1 || n.Read != 2 {
				t.Errorf("dry run: %+v", n)
			}
			if !s.finds(t, ada).IsNew() {
				t.Fatal("the dry run has converted a session")
			}
			if n := s.convert(t, o); n.Converted != 2 || n.LoggedIn != 1 || n.Already != 0 {
				t.Errorf("first run: %+v", n)
			}
			if n := s.convert(t, o); n.Converted != 0 || n.Already != 2 {
				t.Errorf("second run: %+v", n)
			}

			session := s.finds(t, ada)
			var visits int
			if err := session.Get("count", &visits); err != nil || visits != 3 || session.User() != "ada" || session.Has("theme") || session.Has("user_id") {
				t.Errorf("ada finds %v, user %q: %v", session.Names(), session.User(), err)
			}
			before, err := o.format(t).Read(t.Context(), ada, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if end := session.Info().IdleExpires; end.Sub(before.Expires).Abs() > 2*time.Second {
				t.Errorf("it is over at %v, and the old one at %v", end, before.Expires)
			}
			if other := s.finds(t, ben); other.User() != "" || !other.Has("count") {
				t.Errorf("ben finds %v, user %q", other.Names(), other.User())
			}

			session.Logout()
			if err := session.Save(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := s.convert(t, o); n.Converted != 0 || n.Already != 1 {
				t.Errorf("after a logout: %+v", n)
			}
			if !s.finds(t, ada).IsNew() {
				t.Error("the logout was not final")
			}
		})
	}
}

// Go never writes sessions of gaeutilities: these entities have Python's form.
func TestSessionsOfGaeutilitiesAreConverted(t *testing.T) {
	t.Parallel()
	servers.NeedsGoogle(t)
	emulator() // where the client looks for it
	project := own("old-shop")
	client, err := datastore.NewClient(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	app := "s~" + project
	token := func(id int64, n int) string {
		key := appengine.Key{App: app, Path: []appengine.Element{{Kind: gaeutilities.Kind, ID: id}}}
		return fmt.Sprintf("%s_%032x", key.Encode(), n)
	}
	put := func(id int64, active time.Time, name string, content any) {
		t.Helper()
		session := datastore.IDKey(gaeutilities.Kind, id, nil)
		blob, err := pickle.Encode(content)
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.PutMulti(t.Context(), []*datastore.Key{session, datastore.IncompleteKey(gaeutilities.DataKind, nil)}, []any{
			&datastore.PropertyList{
				{Name: "sid", Value: []any{token(id, 1), token(id, 2)}}, {Name: "last_activity", Value: active}, {Name: "deleted", Value: false},
			},
			&datastore.PropertyList{
				{Name: "keyname", Value: name},
				{Name: "content", Value: blob, NoIndex: true},
				{Name: "session", Value: session},
				{Name: "deleted", Value: false},
			},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	put(1, time.Now().Add(-time.Minute), "visits", int64(3))
	put(2, time.Now().Add(-25*time.Hour), "visits", int64(9))

	o := &oldSite{system: "gaeutilities", config: `{}`, from: "datastore://" + project, more: []string{"--app", app}, on: emptyBackends()}
	o.on.Entities = clouddatastore.NewGaeutilities(client, app, "")
	known, err := openLegacy(o.system, json.RawMessage(o.config), o.on)
	if err != nil {
		t.Fatal(err)
	}
	s := adopting(t, known)
	if n := s.convert(t, o); n.Converted != 1 || n.Over != 1 || n.Unreadable != 0 {
		t.Errorf("%+v", n)
	}
	for n := 1; n <= 2; n++ { // with the token before the newest
		session := s.finds(t, http.Header{"Cookie": {gaeutilities.DefaultName + "=" + token(1, n)}})
		var visits int
		if err := session.Get("count", &visits); err != nil || visits != 3 {
			t.Errorf("token %d finds %v: %v", n, session.Names(), err)
		}
	}
}

func TestKeysOfOthersInRedisAreNoSessions(t *testing.T) {
	t.Parallel()
	o := oldSites(t)["beaker-session in Redis"]
	o.visitor(t, "ada", time.Now())
	for _, key := range []string{"beaker_cache:abcdefabcdefabcdefabcdefabcdefab:page", "other:abc:session"} {
		if err := o.on.Store.Set(t.Context(), key, legacy.Entry{Value: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	var counted legacyTally
	inProcess(t, append([]string{"legacy", "count", "--json"}, o.flags(t)...)...).ok(t).json(t, &counted)
	if counted.Live != 1 || counted.Unreadable != 0 {
		t.Errorf("%+v", counted)
	}
}

func TestWhatHasExpiredOrIsBrokenIsCountedAndNotConverted(t *testing.T) {
	t.Parallel()
	o := oldSites(t)["beaker-session in files"]
	o.visitor(t, "ada", time.Now().Add(-2*time.Hour))
	o.visitor(t, "ben", time.Now())
	folder := filepath.Join(strings.TrimPrefix(o.from, "file:"), "container_file/d/de")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "deadbeef.cache"), []byte("no pickle"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := inProcess(t, append([]string{"legacy", "count"}, o.flags(t)...)...).ok(t)
	for _, want := range []string{"live", "1", "expired, and still stored", "unreadable", "decode_error"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%q is not in\n%s", want, r.stdout)
		}
	}
	n := adopting(t, o.format(t)).convert(t, o)
	if n.Read != 3 || n.Converted != 1 || n.Over != 1 || n.Unreadable != 1 || n.Reasons["decode_error"] != 1 {
		t.Errorf("%+v", n)
	}
}

// Sessions and cookies from the real Beaker.
func TestRecordedSessionsAreConverted(t *testing.T) {
	t.Parallel()
	tested := 0
	for _, c := range recordedCases(t) {
		var config struct {
			Options struct {
				Type    string   `json:"type"`
				Timeout *float64 `json:"timeout"`
			} `json:"options"`
		}
		if err := json.Unmarshal(c.Config, &config); err != nil || c.System != "beaker-session" ||
			config.Options.Type != "file" || config.Options.Timeout != nil || !c.Expect.Valid || c.Optional {
			continue
		}
		tested++
		t.Run(c.Name, func(t *testing.T) {
			o := &oldSite{system: c.System, config: string(c.Config), from: "file:" + t.TempDir(), more: []string{"--until", "2099-01-01T00:00:00Z"}}
			recordedFiles(t, strings.TrimPrefix(o.from, "file:"), &c)
			folder, err := filestore.Open(strings.TrimPrefix(o.from, "file:"))
			if err != nil {
				t.Fatal(err)
			}
			defer folder.Close()
			on := emptyBackends()
			on.Store = folder
			known, err := openLegacy(o.system, c.Config, on)
			if err != nil {
				t.Fatal(err)
			}
			s := adopting(t, known)
			n := s.convert(t, o)
			if n.Converted == 0 && n.Reasons["empty"] == 0 && n.Reasons["unmapped"] == 0 {
				t.Fatalf("%+v", n)
			}
			if session := s.finds(t, http.Header{"Cookie": {*c.CookieHeader}}); session.IsNew() != (n.Converted == 0) {
				t.Errorf("converted %d, and the visitor's session is new: %v", n.Converted, session.IsNew())
			}
		})
	}
	if tested < 5 {
		t.Errorf("only %d recorded sessions", tested)
	}
}

// recordedFiles puts the files of a case into a folder.
func recordedFiles(t *testing.T, folder string, c *vectors.Case) {
	t.Helper()
	for _, e := range c.Storage {
		path := filepath.Join(folder, fmt.Sprint(e.Key))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, e.Value, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestConvertingGoesOnAfterAnInterruption(t *testing.T) {
	t.Parallel()
	o := oldSites(t)["beaker-session in files"]
	for range 20 {
		o.visitor(t, "ada", time.Now())
	}
	s := adopting(t, o.format(t))
	ctx, stop := context.WithCancel(t.Context())
	stop()
	var out, messages bytes.Buffer
	args := append([]string{"legacy", "convert", "--store", s.store, "--keys", s.keys}, o.flags(t)...)
	if status := run(ctx, args, terminal{in: strings.NewReader(""), out: &out, messages: &messages}); status != exitFailed {
		t.Fatalf("status %d: %s", status, messages.String())
	}
	if !strings.Contains(messages.String(), "interrupted") && !strings.Contains(messages.String(), "canceled") {
		t.Errorf("%s", messages.String())
	}
	if n := s.convert(t, o); n.Converted+n.Already != 20 {
		t.Errorf("%+v", n)
	}
}

func TestWhatCannotBeListedIsSaid(t *testing.T) {
	for _, c := range []struct{ system, config, from, says string }{
		{"webapp2-securecookie", `{"secret": "x"}`, "file:/tmp", "visitors' cookies"},
		{"webapp2-memcache", `{"secret": "x"}`, "memcached://localhost", "memcached cannot list"},
		{"beaker-session", `{"options": {"type": "ext:memcached", "secret": "x"}}`, "memcached://localhost", "memcached cannot list"},
		{"diy-memcache", `{"names": ["a"]}`, "memcached://localhost", "memcached cannot list"},
		{"beaker-session", `{"options": {"type": "file", "secret": "x"}}`, "redis://localhost", "--from"},
		{"gaeutilities", `{}`, "datastore://p", "--app"},
	} {
		t.Setenv(emulatorHost, "127.0.0.1:1")
		inProcess(t, "legacy", "count", "--system", c.system, "--config", configFile(t, c.config), "--from", c.from).refused(t, exitUsage, c.says)
	}
	keys := newService(t, sojourn.Config{})
	folder := "file:" + t.TempDir()
	inProcess(t, "legacy", "convert", "--system", "beaker-session", "--config", configFile(t, `{"options": {"type": "file", "secret": "x"}}`),
		"--from", folder, "--store", keys.store, "--keys", keys.keys).refused(t, exitUsage, "--until is missing")
	db := filepath.Join(t.TempDir(), "scs.db")
	if err := os.WriteFile(db, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	inProcess(t, "legacy", "convert", "--system", "scs", "--config", configFile(t, `{"hash_token": true}`),
		"--from", "sqlite:"+db, "--store", keys.store, "--keys", keys.keys).refused(t, exitUsage, "does not know the tokens")
	inProcess(t, "legacy", "count", "--system", "scs", "--config", configFile(t, `{}`), "--from", "sqlite:/nowhere/at/all.db").refused(t, exitFailed, "no such file")
	inProcess(t, "legacy", "count", "--system", "scs", "--config", configFile(t, `{}`), "--from", "postgres://u:hunter2@127.0.0.1:1/x").refused(t, exitFailed, "does not answer")
}

func TestInspectKnowsTheGoLibraries(t *testing.T) {
	t.Parallel()
	o := &oldSite{system: systemGorilla, config: `{"name": "s", "keys": [{"hash": "a secret of the old application!"}]}`, on: emptyBackends()}
	header := o.visitor(t, "ada", time.Now())
	var found map[string]any
	c := call{stdin: header.Get("Cookie")}
	c.run(t, "legacy", "inspect", "--json", "--system", systemGorilla, "--config", configFile(t, o.config)).ok(t).json(t, &found)
	if values, _ := found["values"].([]any); found["verdict"] != verdictValid || len(values) != 3 {
		t.Errorf("%+v", found)
	}
	found = nil
	c.stdin = "session=" + strings.Repeat("a", 43)
	c.run(t, "legacy", "inspect", "--json", "--system", systemSCS, "--config", configFile(t, `{}`)).ok(t).json(t, &found)
	if found["verdict"] != verdictElsewhere {
		t.Errorf("%+v", found)
	}
}
