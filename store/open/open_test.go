package open

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/store"
	"github.com/sojourn-go/sojourn/store/memory"
	"github.com/sojourn-go/sojourn/store/tiered"
)

// trial is an engine whose stores have the schema version in the URL. "trial:2"
// is up to date.
func init() {
	version := func(url string) (n int, err error) {
		if _, err := fmt.Sscanf(url, "trial:%d", &n); err != nil {
			return 0, fmt.Errorf("%w: a number is wanted", ErrURL)
		}
		return n, nil
	}
	Register(Engine{
		Schemes: []string{"trial"},
		Forms:   []string{"trial:VERSION"},
		Store: func(_ context.Context, url string) (store.Store, io.Closer, error) {
			n, err := version(url)
			if err == nil && n > 2 {
				err = errors.New("it is newer than this program")
			}
			if err != nil {
				return nil, nil, err
			}
			return memory.New(), io.NopCloser(nil), nil
		},
		Schema: func(_ context.Context, url string) (int, int, error) {
			n, err := version(url)
			return n, 2, err
		},
	})
	Register(Engine{
		Schemes: []string{"copies", "copies2"},
		Forms:   []string{"copies://HOST"},
		Cache:   func(string) (store.Cache, io.Closer, error) { return tiered.NewMemory(1000), io.NopCloser(nil), nil },
	})
}

type opening func(context.Context, string) (store.Store, io.Closer, error)

func TestAURLOpensTheEngineThatIsRegistered(t *testing.T) {
	for _, url := range []string{"memory:", "trial:0", "trial:1", "trial:2"} {
		if s, closer, err := Store(t.Context(), url); err != nil || s == nil || closer == nil {
			t.Errorf("Store(%s): %v", url, err)
		}
	}
	for _, url := range []string{"memory:1000000", "copies://host", "copies2://host"} {
		if c, closer, err := Cache(url); err != nil || c == nil || closer == nil {
			t.Errorf("Cache(%s): %v", url, err)
		}
	}
}

func TestExistingMakesAndChangesNothing(t *testing.T) {
	for url, want := range map[string]error{"memory:": ErrMissing, "trial:0": ErrMissing, "trial:1": ErrSchema, "trial:2": nil, "trial:x": ErrURL, "memory:x": ErrURL} {
		if _, _, err := Existing(t.Context(), url); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", url, err, want)
		}
	}
	if _, _, err := Existing(t.Context(), "trial:3"); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("a newer schema: %v, want what Store says", err)
	}
}

func TestSchemaIsThatOfTheEngine(t *testing.T) {
	if version, newest, err := Schema(t.Context(), "trial:1"); version != 1 || newest != 2 || err != nil {
		t.Errorf("%d of %d, %v; want 1 of 2", version, newest, err)
	}
	for url, want := range map[string]error{"memory:": errors.ErrUnsupported, "copies://a": ErrURL, "": ErrURL, "floppy:a": ErrURL} {
		if _, _, err := Schema(t.Context(), url); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", url, err, want)
		}
	}
}

func TestWhatNoEngineOpensIsRefusedWithAListOfWhatOneDoes(t *testing.T) {
	for name, open := range map[string]opening{"Store": Store, "Existing": Existing} {
		for _, url := range []string{"", ":", "sessions.db", "mysql://root:hunter2@db/sessions", "copies://host", "Trial:2", "hunter2:x", "hunter2://u@host"} {
			_, _, err := open(t.Context(), url)
			if !errors.Is(err, ErrURL) || !strings.HasSuffix(err.Error(), "; use memory: or trial:VERSION") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s(%q): %v", name, url, err)
			}
		}
	}
	for _, url := range []string{"", "memory", "trial:2", "mysql://root:hunter2@db/sessions", "hunter2:x"} {
		_, _, err := Cache(url)
		if !errors.Is(err, ErrURL) || !strings.HasSuffix(err.Error(), "; use memory:BYTES or copies://HOST") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Cache(%q): %v", url, err)
		}
	}
	for _, url := range []string{"memory:x", "memory:1000"} {
		if _, _, err := Store(t.Context(), url); !errors.Is(err, ErrURL) {
			t.Errorf("Store(%s): %v", url, err)
		}
	}
	for _, url := range []string{"memory:", "memory:0", "memory:-1", "memory:64MB"} {
		if _, _, err := Cache(url); !errors.Is(err, ErrURL) {
			t.Errorf("Cache(%s): %v", url, err)
		}
	}
}

func TestAnEngineThatTheProgramDoesNotImportIsNamed(t *testing.T) {
	for _, p := range ours {
		for _, scheme := range p.schemes {
			url := scheme + "://root:hunter2@db/app"
			named := func(err error) bool {
				return strings.Contains(err.Error(), "import") && strings.Contains(err.Error(), " github.com/sojourn-go/sojourn/"+p.path+";")
			}
			_, _, errStore := Store(t.Context(), url)
			_, _, errSchema := Schema(t.Context(), url)
			_, _, errCache := Cache(url)
			for by, err := range map[string]error{"Store": errStore, "Schema": errSchema, "Cache": errCache} {
				if !errors.Is(err, ErrURL) || named(err) != (by != "Cache" || p.caches) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("%s of %s: %v", by, scheme, err)
				}
			}
		}
	}
}

// The packages named in errors exist, and register the named schemes.
func TestOurPackagesRegisterTheirSchemes(t *testing.T) {
	for _, p := range ours {
		source, err := os.ReadFile(filepath.Join("..", "..", p.path, "open.go"))
		if err != nil {
			t.Fatal(err)
		}
		if want := `Schemes: []string{"` + strings.Join(p.schemes, `", "`) + `"},`; !strings.Contains(string(source), want) {
			t.Errorf("%s does not register %s", p.path, want)
		}
		if strings.Contains(string(source), "Cache:") != p.caches {
			t.Errorf("%s: caches are %v here only", p.path, p.caches)
		}
	}
}

func TestRegisterRefusesMistakes(t *testing.T) {
	stores := func(context.Context, string) (store.Store, io.Closer, error) { return nil, nil, nil }
	for name, e := range map[string]Engine{
		"no scheme":           {Store: stores},
		"an empty scheme":     {Schemes: []string{""}, Store: stores},
		"a colon":             {Schemes: []string{"a:"}, Store: stores},
		"upper case":          {Schemes: []string{"Redis"}, Store: stores},
		"nothing to open":     {Schemes: []string{"nothing"}},
		"one that is taken":   {Schemes: []string{"fresh", "copies2"}, Store: stores},
		"what is in here":     {Schemes: []string{"memory"}, Store: stores},
		"one that is doubled": {Schemes: []string{"trial"}, Store: stores},
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("it is accepted")
				}
			}()
			Register(e)
		})
	}
	if _, _, err := Store(t.Context(), "fresh:"); !errors.Is(err, ErrURL) {
		t.Errorf("what was refused is registered: %v", err)
	}
}

func TestAContextThatIsOverOpensNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, open := range map[string]opening{"Store": Store, "Existing": Existing} {
		if _, _, err := open(ctx, "memory:"); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Engines use the first or the last @ as the end of the password, and report
// the following text as an unknown host.
func TestAPasswordWithAnAtSignIsRefusedBeforeAnEngineSeesIt(t *testing.T) {
	for _, url := range []string{"trial://u:p@hunter2@host/db", "trial://u@v:hunter2@host", "trial://:@hunter2@host?x=@", "copies://u:p@hunter2@host"} {
		_, _, errStore := Store(t.Context(), url)
		_, _, errSchema := Schema(t.Context(), url)
		_, _, errCache := Cache(url)
		for by, err := range map[string]error{"Store": errStore, "Schema": errSchema, "Cache": errCache} {
			if !errors.Is(err, ErrURL) || !strings.Contains(err.Error(), "%40") || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s(%q): %v", by, url, err)
			}
		}
	}
}
