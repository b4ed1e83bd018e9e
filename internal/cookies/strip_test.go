package cookies

import (
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/sojourn-go/sojourn/internal/rules"
)

func TestStripRemovesTheManagersCookiesAndNoOthers(t *testing.T) {
	c := New(Options{
		Name: "session", Now: Attributes{Prefix: "__Host-", Path: "/"}, Limits: &rules.Limits{},
		Former: []Attributes{{Prefix: "__Secure-", Path: "/", Domain: "shop.example"}, {Prefix: "__Host-", Path: "/", Partitioned: true}},
	})
	for what, test := range map[string]struct{ before, after []string }{
		"no cookies":                  {nil, nil},
		"none of the manager's":       {[]string{"theme=dark;lang=de ; a"}, []string{"theme=dark;lang=de ; a"}},
		"the reference alone":         {[]string{"__Host-session=abc"}, nil},
		"both of them":                {[]string{"__Host-session=abc; __Host-session-state=def"}, nil},
		"among others":                {[]string{"theme=dark; __Host-session=abc; lang=de; __Host-session-state=def; a=b"}, []string{"theme=dark; lang=de; a=b"}},
		"numbered state cookies":      {[]string{"__Host-session-state=2.a; __Host-session-state-1=b; x=1; __Host-session-state-3=c"}, []string{"x=1"}},
		"a number that is never used": {[]string{"__Host-session-state-99=a"}, []string{"__Host-session-state-99=a"}},
		"former attributes":           {[]string{"__Secure-session=abc; a=b; __Secure-session-state-2=x"}, []string{"a=b"}},
		"another prefix":              {[]string{"session=abc; __Host-session=def"}, []string{"session=abc"}},
		"names that begin like it":    {[]string{"__Host-session2=a; __Host-session=b; __Host-session-statement=c; __Host-sessio=d"}, []string{"__Host-session2=a; __Host-session-statement=c; __Host-sessio=d"}},
		"names in other cases":        {[]string{"__host-session=a; __Host-session=b"}, []string{"__host-session=a"}},
		"several lines": {
			[]string{"a=1; __Host-session=abc", "__Host-session-state=def", "b=2", "__Host-session=ghi; c=3"},
			[]string{"a=1", "b=2", "c=3"},
		},
		"several of one name":         {[]string{"__Host-session=a; x=1; __Host-session=b"}, []string{"x=1"}},
		"quoted values":               {[]string{`__Host-session="abc"; a="b c"; __Host-session-state="d"`}, []string{`a="b c"`}},
		"one within another's quotes": {[]string{`a="x; __Host-session=abc; y"`}, []string{`a="x; y"`}},
		"values with equals signs":    {[]string{"a=b=__Host-session=c; __Host-session=d=e"}, []string{"a=b=__Host-session=c"}},
		"white space":                 {[]string{"a=1 ;\t__Host-session = abc\t;  b=2"}, []string{"a=1; b=2"}},
		"no value":                    {[]string{"__Host-session; __Host-session-state=; a"}, []string{"a"}},
		"empty pairs":                 {[]string{";; __Host-session=a;;", "; ;"}, []string{"; ;"}},
	} {
		t.Run(what, func(t *testing.T) {
			h := http.Header{"Cookie": test.before, "Accept": {"text/html"}}
			if test.before == nil {
				delete(h, "Cookie")
			}
			before := slices.Clone(test.before)
			c.Strip(h)
			if got, there := h["Cookie"]; !slices.Equal(got, test.after) || there != (test.after != nil) {
				t.Errorf("got %q, want %q", got, test.after)
			}
			if !slices.Equal(test.before, before) {
				t.Errorf("the slice that the header had is now %q", test.before)
			}
			if got := slices.Sorted(maps.Keys(h)); !slices.Contains(got, "Accept") {
				t.Errorf("the header has %q", got)
			}
		})
	}
	c.Strip(nil)
}

// The manager must find no credential in the result of Strip.
func TestAStrippedHeaderBringsNoSession(t *testing.T) {
	c := New(Options{Name: "session", Now: Attributes{Prefix: "__Host-", Path: "/"}, Former: []Attributes{{Path: "/"}}, Limits: &rules.Limits{}})
	for _, line := range []string{
		"__Host-session=a", " __Host-session=a", ";__Host-session=a;", "\t__Host-session=a\t;b", `x="__Host-session=a"; "__Host-session=a"`,
		"x; __Host-session=a", "session=1;session-state=2;session-state-1=3", `__Host-session="a";__Host-session-state=""`, "__Host-session=a=b", "a=;__Host-session=;b",
	} {
		h := http.Header{"Cookie": {line, "z=1", line}}
		c.Strip(h)
		c.all(func(n *names) {
			for _, name := range append([]string{n.reference}, n.state[:]...) {
				if left := find(nil, h, name); len(left) != 0 {
					t.Errorf("of %q, %q is left, which brings %q", line, h["Cookie"], name)
				}
			}
		})
		if find(nil, h, "z") == nil {
			t.Errorf("of %q, another cookie is gone", line)
		}
	}
}
