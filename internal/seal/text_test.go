package seal

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// line returns an entry with a secret of 32 times b.
func line(state, created string, b byte) string {
	return state + ":" + created + ":" + base64.RawURLEncoding.EncodeToString(bytes.Repeat([]byte{b}, SecretSize))
}

const noon = "20261120T120000Z"

func TestParseKeysReadsEveryLayout(t *testing.T) {
	active, published, retired := line("active", noon, 'a'), line("published", noon, 'b'), line("retired", noon, 'c')
	index := line("index", noon, 'd')
	for _, c := range []struct {
		name, text string
		want       []KeyState
	}{
		{"one entry", active, []KeyState{Active}},
		{"lines", active + "\n" + published + "\n", []KeyState{Active, Published}},
		{"lines that end in CR LF", active + "\r\n" + published + "\r\n", []KeyState{Active, Published}},
		{"commas", active + "," + published + "," + retired, []KeyState{Active, Published, Retired}},
		{"blanks", "\t " + active + "  \t" + published + " ", []KeyState{Active, Published}},
		{"separators of all kinds around it", ",,\n ," + active + ",\n,", []KeyState{Active}},
		{"comments", "# " + retired + "\n" + active + "# now\n#\n" + published, []KeyState{Active, Published}},
		{"an index key among them", published + " " + index + " " + active, []KeyState{Published, Active}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := ParseKeys(c.text)
			if err != nil {
				t.Fatal(err)
			}
			var got []KeyState
			for _, k := range r.keys {
				got = append(got, k.State)
				if want := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC); !k.Created.Equal(want) {
					t.Errorf("created %v, want %v", k.Created, want)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func TestParseKeysRefuses(t *testing.T) {
	active := line("active", noon, 'a')
	secret := active[strings.LastIndex(active, ":")+1:]
	with := func(created, secret string) string { return "active:" + created + ":" + secret }
	var many []string
	for i := range MaxKeys + 1 {
		many = append(many, line("active", noon, byte(i)))
	}
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "there is no key"},
		{"comments only", "# " + active, "there is no key"},
		{"an index key only", line("index", noon, 'a'), "there is no key"},
		{"no active key", line("published", noon, 'a') + " " + line("retired", noon, 'b'), "there is no active key"},
		{"a bare secret", secret, "entry 1: it is not of the form STATE:CREATED:SECRET"},
		{"a fourth part", active + ":x", "entry 1: it is not of the form STATE:CREATED:SECRET"},
		{"an unknown state", active + "\n" + line("aktiv", noon, 'b'), "entry 2: its state is not published, active, retired or index"},
		{"a state in capitals", line("ACTIVE", noon, 'b'), "entry 1: its state is not published, active, retired or index"},
		{"no state", line("", noon, 'b'), "entry 1: its state is not published, active, retired or index"},
		{"a date only", with("20261120", secret), "entry 1: its time is not of the form 20261120T131500Z"},
		{"the extended time format", with("2026-11-20T12", secret), "entry 1: its time is not of the form 20261120T131500Z"},
		{"no such day", with("20261131T120000Z", secret), "entry 1: its time is not of the form 20261120T131500Z"},
		{"a local time", with("20261120T120000", secret), "entry 1: its time is not of the form 20261120T131500Z"},
		{"a fraction of a second", with("20261120T120000.5Z", secret), "entry 1: its time is not of the form 20261120T131500Z"},
		{"a short secret", with(noon, secret[:42]), "entry 1: its secret is not 32 bytes in base64url without padding"},
		{"a long secret", with(noon, secret+"YWFh"), "entry 1: its secret is not 32 bytes in base64url without padding"},
		{"no secret", with(noon, ""), "entry 1: its secret is not 32 bytes in base64url without padding"},
		{"padding", with(noon, secret+"="), "entry 1: its secret is not 32 bytes in base64url without padding"},
		{"the standard alphabet", with(noon, "++++"+secret[4:]), "entry 1: its secret is not 32 bytes in base64url without padding"},
		{"bits that say nothing", with(noon, secret[:42]+"F"), "entry 1: its secret is not 32 bytes in base64url without padding"},
		{"a secret twice", active + " " + line("retired", noon, 'b') + " " + line("retired", noon, 'a'), "entry 3: it has the same secret as entry 1"},
		{"the index key as a key", active + " " + line("index", noon, 'a'), "entry 2: it has the same secret as entry 1"},
		{"two index keys", active + " " + line("index", noon, 'i') + " " + line("index", noon, 'j'), "entry 3: it is the second index key; there can be one"},
		{"65 keys", strings.Join(many, "\n"), "entry 65: there are more than 64 keys"},
		{"too much text", active + strings.Repeat(" ", MaxText), "the text is longer than 65536 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseKeys(c.text)
			if err == nil || err.Error() != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestParseKeysTakesAsMuchAsItSays(t *testing.T) {
	entries := []string{line("index", noon, 255)}
	for i := range MaxKeys {
		entries = append(entries, line("active", noon, byte(i)))
	}
	text := strings.Join(entries, "\n")
	text += strings.Repeat(" ", MaxText-len(text))
	r, err := ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.keys) != MaxKeys {
		t.Errorf("got %d keys, want %d", len(r.keys), MaxKeys)
	}
}

func TestTheIndexKeyComesFromItsEntry(t *testing.T) {
	hash := func(text string) string {
		t.Helper()
		r, err := ParseKeys(text)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(r.UserHash("session", "alice"))
	}
	index, a, b := line("index", noon, 'i'), line("active", noon, 'a'), line("active", noon, 'b')
	if hash(index+" "+a) != hash(b+" "+index) {
		t.Error("the user hash changes with the keys")
	}
	if hash(index+" "+a) == hash(line("index", noon, 'j')+" "+a) {
		t.Error("the user hash does not change with the index key")
	}
}

func TestWithoutAnIndexEntryTheOldestKeyStandsIn(t *testing.T) {
	hash := func(text string) string {
		t.Helper()
		r, err := ParseKeys(text)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(r.UserHash("session", "alice"))
	}
	oldest := line("retired", "20250101T000000Z", 'a')
	newer, newest := line("active", "20260101T000000Z", 'b'), line("active", "20260201T000000Z", 'c')
	if hash(oldest+" "+newer) != hash(newest+" "+newer+" "+oldest) {
		t.Error("the user hash changes with a newer key")
	}
	if hash(oldest+" "+newer) == hash(newer) {
		t.Error("the user hash does not depend on the oldest key")
	}
	if hash(oldest+" "+newer) == hash(newer+" "+line("index", noon, 'a')) {
		t.Error("the oldest key itself is the index key")
	}
	sameAge := line("active", "20250101T000000Z", 'd')
	if hash(oldest+" "+sameAge) != hash(oldest+" "+newer) {
		t.Error("the user hash changes with an equally old key that is listed later")
	}
}

func TestGeneratedKeysParse(t *testing.T) {
	before := time.Now().Truncate(time.Second)
	for _, c := range []struct {
		name string
		text string
		want []KeyState
	}{
		{"a key", GenerateKey(), []KeyState{Active}},
		{"a key file", GenerateKeyFile(), []KeyState{userIndex, Active}},
	} {
		entries, err := parseEntries(c.text)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var states []KeyState
		for _, e := range entries {
			states = append(states, e.state)
			if e.created.Before(before) || e.created.After(time.Now()) {
				t.Errorf("%s: made at %v", c.name, e.created)
			}
		}
		if !slices.Equal(states, c.want) {
			t.Errorf("%s: entries %v, want %v", c.name, states, c.want)
		}
		if _, err := ParseKeys(c.text); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if one, another := GenerateKey(), GenerateKey(); one == another {
		t.Error("two keys are the same")
	}
}

func TestAKeyFileExplainsItself(t *testing.T) {
	text := GenerateKeyFile()
	for _, want := range []string{"# Sojourn session keys", "never commit", "sojourn keys add"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
}

// FuzzParseKeys looks for texts that break the parser, or that it does not
// write back with the same meaning.
func FuzzParseKeys(f *testing.F) {
	active, index := line("active", noon, 'a'), line("index", noon, 'b')
	for _, seed := range []string{
		"", active, index, active + "," + index, active + "\r\n" + line("retired", noon, 'c') + " # " + index,
		line("published", "00000101T000000Z", 0) + "\n" + line("active", "99991231T235959Z", 255),
		active + active, "active::", "::", "#", ",", keyFile,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseKeys(text)
		if err != nil {
			return
		}
		entries, err := parseEntries(text)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, e := range entries {
			b.WriteString(e.text() + "\n")
		}
		again, err := parseEntries(b.String())
		if err != nil || !slices.Equal(again, entries) {
			t.Fatalf("%q means something else after %q: %v", b.String(), text, err)
		}
		other, err := ParseKeys(b.String())
		if err != nil {
			t.Fatal(err)
		}
		wantOpen(t, other, State, mustSeal(t, r, State, "text", ""), "", "text")
		if other.UserHash("session", "alice") != r.UserHash("session", "alice") {
			t.Error("the index key differs")
		}
	})
}
