package sojourn_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
)

func TestKeysAndAStoreAreEnough(t *testing.T) {
	m, err := sojourn.New(sojourn.Config{Keys: sitetest.Keys(t), Store: memory.New()})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestEachMistakeInTheConfigurationIsNamed(t *testing.T) {
	for name, test := range map[string]struct {
		edit func(*sojourn.Config)
		want string
	}{
		"no keys":               {func(c *sojourn.Config) { c.Keys = nil }, "Config.Keys is missing"},
		"zero keys":             {func(c *sojourn.Config) { c.Keys = new(sojourn.KeyRing) }, "Config.Keys is missing"},
		"no store":              {func(c *sojourn.Config) { c.Store = nil }, "Config.Store is missing"},
		"no store, StoredOnly":  {func(c *sojourn.Config) { c.Store, c.Mode = nil, sojourn.StoredOnly }, "Config.Store is missing"},
		"typed nil store":       {func(c *sojourn.Config) { c.Store = (*memory.Store)(nil) }, "Config.Store holds a nil *memory.Store"},
		"typed nil store, func": {func(c *sojourn.Config) { c.Store = funcStore(nil) }, "Config.Store holds a nil sojourn_test.funcStore"},
		"store and CookieOnly":  {func(c *sojourn.Config) { c.Mode = sojourn.CookieOnly }, "Config.Store is set"},
		"unknown mode":          {func(c *sojourn.Config) { c.Mode = 7 }, "Config.Mode 7"},
		"name with a space":     {func(c *sojourn.Config) { c.Name = "my session" }, "Config.Name"},
		"name with =":           {func(c *sojourn.Config) { c.Name = "a=b" }, "Config.Name"},
		"name with a prefix":    {func(c *sojourn.Config) { c.Name = "__Host-session" }, "Config.Name"},
		"name too long":         {func(c *sojourn.Config) { c.Name = strings.Repeat("n", 65) }, "Config.Name"},
		"name, not ASCII":       {func(c *sojourn.Config) { c.Name = "sitzung-ä" }, "Config.Name"},
		"name of a state cookie": {
			func(c *sojourn.Config) { c.Name = "session-state" }, `Config.Name "session-state"`,
		},
		"name of a numbered cookie": {
			func(c *sojourn.Config) { c.Name = "session-state-2" }, `Config.Name "session-state-2"`,
		},
		"inline limit, negative": {func(c *sojourn.Config) { c.InlineLimit = -1 }, "Config.InlineLimit -1"},
		"inline limit, too high": {func(c *sojourn.Config) { c.InlineLimit = 4097 }, "Config.InlineLimit 4097"},
		"inline limit, CookieOnly": {
			func(c *sojourn.Config) { sitetest.CookieOnly(c); c.InlineLimit = 15001 }, "Config.InlineLimit 15001: use 1 to 15000 bytes, or 0 for 2048",
		},
		"size, negative":       {func(c *sojourn.Config) { c.MaxSize = -1 }, "Config.MaxSize -1"},
		"lifetime, too long":   {func(c *sojourn.Config) { c.Lifetime = 400*24*time.Hour + 1 }, "Config.Lifetime"},
		"timeout, negative":    {func(c *sojourn.Config) { c.Timeout = -1 }, "Config.Timeout"},
		"path, relative":       {func(c *sojourn.Config) { c.Cookie.Path = "app" }, "Config.Cookie.Path"},
		"path with ;":          {func(c *sojourn.Config) { c.Cookie.Path = "/a;b" }, "Config.Cookie.Path"},
		"path, two lines":      {func(c *sojourn.Config) { c.Cookie.Path = "/a\r\nb" }, "Config.Cookie.Path"},
		"path, too long":       {func(c *sojourn.Config) { c.Cookie.Path = "/" + strings.Repeat("a", 1024) }, "Config.Cookie.Path"},
		"domain with a scheme": {func(c *sojourn.Config) { c.Cookie.Domain = "https://example.com" }, "Config.Cookie.Domain"},
		"domain with a port":   {func(c *sojourn.Config) { c.Cookie.Domain = "example.com:443" }, "Config.Cookie.Domain"},
		"domain with ;":        {func(c *sojourn.Config) { c.Cookie.Domain = "example.com; Secure" }, "Config.Cookie.Domain"},
		"domain of a dot":      {func(c *sojourn.Config) { c.Cookie.Domain = "." }, "Config.Cookie.Domain"},
		"domain, too long":     {func(c *sojourn.Config) { c.Cookie.Domain = strings.Repeat("a", 254) }, "Config.Cookie.Domain"},
		"SameSite, unknown":    {func(c *sojourn.Config) { c.Cookie.SameSite = 9 }, "Config.Cookie.SameSite 9"},
		"None and insecure": {
			func(c *sojourn.Config) { c.Cookie.SameSite, c.Cookie.Insecure = http.SameSiteNoneMode, true }, "Config.Cookie.SameSite=None",
		},
		"Partitioned and insecure": {
			func(c *sojourn.Config) { c.Cookie.Partitioned, c.Cookie.Insecure = true, true }, "Config.Cookie.Partitioned",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := sojourn.Config{Keys: sitetest.Keys(t), Store: memory.New()}
			test.edit(&c)
			m, err := sojourn.New(c)
			if err == nil || m != nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("New: %v, %v, want an error with %q", m, err, test.want)
			}
			if n := strings.Count(err.Error(), "sojourn: "); n != 1 {
				t.Errorf("%d mistakes: %v", n, err)
			}
		})
	}
}

// funcStore is a store of a kind that is not a pointer and may be nil.
type funcStore func()

func (funcStore) Load(context.Context, store.ID) (store.Record, error) { panic("nil") }
func (funcStore) Save(context.Context, store.Record, store.Base) error { panic("nil") }
func (funcStore) Delete(context.Context, store.ID, time.Time) error    { panic("nil") }

func TestEveryMistakeIsReportedAtOnce(t *testing.T) {
	_, err := sojourn.New(sojourn.Config{
		Name: "a b", Store: (*memory.Store)(nil), InlineLimit: -1, MaxSize: -1, Lifetime: 500 * 24 * time.Hour, Timeout: -1,
		Cookie: sojourn.Cookie{Domain: "a b", Path: "x", SameSite: http.SameSiteNoneMode, Insecure: true, Partitioned: true},
	})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"Config.Name", "Config.Keys", "Config.Store", "Config.InlineLimit", "Config.MaxSize", "Config.Lifetime", "Config.Timeout",
		"Config.Cookie.Domain", "Config.Cookie.Path", "Config.Cookie.SameSite", "Config.Cookie.Partitioned",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not mentioned in:\n%v", want, err)
		}
	}
}

func TestTheLimitsOfTheConfigurationAreAccepted(t *testing.T) {
	for name, edit := range map[string]func(*sojourn.Config){
		"longest name":         func(c *sojourn.Config) { c.Name = strings.Repeat("n", 64) },
		"odd name":             func(c *sojourn.Config) { c.Name = "_my-Session_2" },
		"largest inline limit": func(c *sojourn.Config) { c.InlineLimit = 4096 },
		"everything is stored": func(c *sojourn.Config) { c.InlineLimit = 1 },
		"cookies only":         func(c *sojourn.Config) { sitetest.CookieOnly(c); c.InlineLimit = 15000 },
		"longest lifetime":     func(c *sojourn.Config) { c.Lifetime = 400 * 24 * time.Hour },
		"no limits in time":    func(c *sojourn.Config) { c.Lifetime, c.IdleTimeout = -1, -1 },
		"empty logger":         func(c *sojourn.Config) { c.Logger = slog.New(slog.NewTextHandler(io.Discard, nil)) },
	} {
		c := sojourn.Config{Keys: sitetest.Keys(t), Store: memory.New()}
		edit(&c)
		if _, err := sojourn.New(c); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheCallersConfigurationIsNotChanged(t *testing.T) {
	c := sojourn.Config{Keys: sitetest.Keys(t), Store: memory.New(), Cookie: sojourn.Cookie{Domain: ".example.com"}}
	before := c
	if _, err := sojourn.New(c); err != nil {
		t.Fatal(err)
	}
	if c.Cookie != before.Cookie || c.Name != "" || c.MaxSize != 0 {
		t.Errorf("changed to %+v", c)
	}
}
