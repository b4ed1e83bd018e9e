package protokey_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sojourn-go/sojourn"
	"github.com/sojourn-go/sojourn/internal/test/sitetest"
	"github.com/sojourn-go/sojourn/protokey"
	"github.com/sojourn-go/sojourn/sojourntest"
)

var (
	prefs = protokey.New[*structpb.Struct]("prefs")
	visit = protokey.New[*wrapperspb.Int64Value]("visits", sojourn.ServerSide)
	title = protokey.New[*wrapperspb.StringValue]("title")
)

// everywhere runs a test with sessions in the cookie and in the store.
func everywhere(t *testing.T, f func(t *testing.T, b *sojourntest.Browser, m *sojourn.Manager)) {
	for name, mode := range map[string]sojourn.Mode{"inline": sojourn.Auto, "stored": sojourn.StoredOnly} {
		t.Run(name, func(t *testing.T) {
			m := sojourntest.NewManager(t, sojourn.Config{Mode: mode})
			f(t, sojourntest.NewBrowser(t, http.NotFoundHandler()), m)
		})
	}
}

func TestAMessageComesBackAsItWasSet(t *testing.T) {
	everywhere(t, func(t *testing.T, b *sojourntest.Browser, m *sojourn.Manager) {
		want, err := structpb.NewStruct(map[string]any{"theme": "dark", "size": 2.5, "tags": []any{"a", true, nil}})
		if err != nil {
			t.Fatal(err)
		}
		b.Prepare(m, func(s *sojourn.Session) { prefs.Set(s, want) })
		got, err := prefs.Lookup(b.Session(m))
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("got %v %v", got, err)
		}
	})
}

func TestAValueIsACopy(t *testing.T) {
	everywhere(t, func(t *testing.T, b *sojourntest.Browser, m *sojourn.Manager) {
		message := wrapperspb.String("before")
		b.Prepare(m, func(s *sojourn.Session) {
			title.Set(s, message)
			message.Value = "changed after Set"
			title.Get(s).Value = "changed after Get"
		})
		if got := title.Get(b.Session(m)).GetValue(); got != "before" {
			t.Errorf("the session has %q", got)
		}
	})
}

func TestAMissingMessageIsNilAndMayBeUpdated(t *testing.T) {
	m := sojourntest.NewManager(t, sojourn.Config{})
	b := sojourntest.NewBrowser(t, http.NotFoundHandler())
	if got := visit.Get(b.Session(m)); got != nil || got.GetValue() != 0 {
		t.Errorf("got %v", got)
	}
	for range 3 {
		b.Prepare(m, func(s *sojourn.Session) {
			visit.Update(s, func(n *wrapperspb.Int64Value) *wrapperspb.Int64Value { return wrapperspb.Int64(n.GetValue() + 1) })
		})
	}
	if got := visit.Get(b.Session(m)).GetValue(); got != 3 {
		t.Errorf("three visits were counted as %d", got)
	}
}

func TestANilMessageIsKeptAsAnEmptyOne(t *testing.T) {
	everywhere(t, func(t *testing.T, b *sojourntest.Browser, m *sojourn.Manager) {
		b.Prepare(m, func(s *sojourn.Session) { title.Set(s, nil) })
		if got, err := title.Lookup(b.Session(m)); err != nil || got == nil || got.GetValue() != "" {
			t.Errorf("got %v %v", got, err)
		}
	})
}

func TestUnknownFieldsSurvive(t *testing.T) {
	everywhere(t, func(t *testing.T, b *sojourntest.Browser, m *sojourn.Manager) {
		// A newer program's message, with a field that is unknown here.
		newer := wrapperspb.String("old text")
		unknown := protowire.AppendString(protowire.AppendTag(nil, 1000, protowire.BytesType), "from the future")
		newer.ProtoReflect().SetUnknown(unknown)
		b.Prepare(m, func(s *sojourn.Session) { title.Set(s, newer) })

		b.Prepare(m, func(s *sojourn.Session) {
			title.Update(s, func(v *wrapperspb.StringValue) *wrapperspb.StringValue {
				v.Value = "new text"
				return v
			})
		})
		got := title.Get(b.Session(m))
		if got.GetValue() != "new text" || string(got.ProtoReflect().GetUnknown()) != string(unknown) {
			t.Errorf("got %v with unknown fields %q", got, got.ProtoReflect().GetUnknown())
		}
	})
}

func TestSettingAnEqualMessageIsNoChange(t *testing.T) {
	m := sojourntest.NewManager(t, sojourn.Config{Mode: sojourn.StoredOnly})
	b := sojourntest.NewBrowser(t, http.NotFoundHandler())
	fields := map[string]any{}
	for _, name := range strings.Split("abcdefghijklmnop", "") {
		fields[name] = name
	}
	for range 5 {
		// Go's maps have another order each time.
		message, err := structpb.NewStruct(fields)
		if err != nil {
			t.Fatal(err)
		}
		b.Prepare(m, func(s *sojourn.Session) { prefs.Set(s, message) })
	}
	if v := b.Session(m).Info().Version; v != 1 {
		t.Errorf("the session was saved %d times", v)
	}
}

func TestBytesThatAreNoMessageAreReported(t *testing.T) {
	m := sojourntest.NewManager(t, sojourn.Config{})
	b := sojourntest.NewBrowser(t, http.NotFoundHandler())
	b.Prepare(m, func(s *sojourn.Session) { s.Set("title", "\xff\xff not a message") })
	if got, err := title.Lookup(b.Session(m)); !errors.Is(err, sojourn.ErrBadValue) || got != nil {
		t.Errorf("got %v %v", got, err)
	}
}

func TestAMessageThatCannotBeEncodedFailsTheCommit(t *testing.T) {
	m := sojourntest.NewManager(t, sojourn.Config{})
	s, _, err := sitetest.Begin(t.Context(), m, http.Header{})
	if err != nil {
		t.Fatal(err)
	}
	title.Set(s, wrapperspb.String("secret \xff"))
	err = s.Save(t.Context())
	if !errors.Is(err, sojourn.ErrBadValue) || !strings.Contains(err.Error(), `"title"`) || strings.Contains(err.Error(), "secret") {
		t.Errorf("got %v", err)
	}
}

func TestTypesThatSayNothingAreRefused(t *testing.T) {
	for name, f := range map[string]func(){
		"the interface":     func() { protokey.New[proto.Message]("cart") },
		"a dynamic message": func() { protokey.New[*dynamicpb.Message]("cart") },
		"a reserved name":   func() { protokey.New[*structpb.Struct]("_cart") },
	} {
		func() {
			defer func() {
				if p, ok := recover().(string); !ok || !strings.Contains(p, "cart") {
					t.Errorf("%s: panics with %v", name, p)
				}
			}()
			f()
			t.Errorf("%s is accepted", name)
		}()
	}
}
