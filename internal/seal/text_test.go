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

// several returns the text of several entries.
func several(entries ...string) string {
	return Count(len(entries)) + "\n" + strings.Join(entries, "\n")
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
		{"its number", "entries:1 " + active, []KeyState{Active}},
		{"lines", "entries:2\n" + active + "\n" + published + "\n", []KeyState{Active, Published}},
		{"lines that end in CR LF", "entries:2\r\n" + active + "\r\n" + published + "\r\n", []KeyState{Active, Published}},
		{"commas", "entries:3," + active + "," + published + "," + retired, []KeyState{Active, Published, Retired}},
		{"blanks", "\t entries:2 " + active + "  \t" + published + " ", []KeyState{Active, Published}},
		{"separators of all kinds around it", ",,\n ," + active + ",\n,", []KeyState{Active}},
		{"comments", "# " + retired + "\nentries:2 # " + retired + "\n" + active + "# now\n#\n" + published, []KeyState{Active, Published}},
		{"an index key among them", several(published, index, active), []KeyState{Published, Active}},
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
		{"no active key", several(line("published", noon, 'a'), line("retired", noon, 'b')), "there is no active key"},
		{"a bare secret", secret, "entry 1: it is not of the form STATE:CREATED:SECRET"},
		{"a fourth part", active + ":x", "entry 1: it is not of the form STATE:CREATED:SECRET"},
		{"an unknown state", several(active, line("aktiv", noon, 'b')), "entry 2: its state is not published, active, retired or index"},
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
		{"a secret twice", several(active, line("retired", noon, 'b'), line("retired", noon, 'a')), "entry 3: it has the same secret as entry 1"},
		{"the index key as a key", several(active, line("index", noon, 'a')), "entry 2: it has the same secret as entry 1"},
		{"two index keys", several(active, line("index", noon, 'i'), line("index", noon, 'j')), "entry 3: it is the second index key; there can be one"},
		{"65 keys", several(many...), "entry 65: there are more than 64 keys"},
		{"no number of entries", active + " " + line("retired", noon, 'b'), "there are 2 entries, and their number does not come first: write entries:2 before them, so that a text that was cut short can be told"},
		{"the number at the end", active + " entries:1", "there are 2 entries, and their number does not come first: write entries:2 before them, so that a text that was cut short can be told"},
		{"the number twice", "entries:2 entries:2 " + active, "entry 1: it is not of the form STATE:CREATED:SECRET"},
		{"only the number", "entries:3", "the text is incomplete, or its number of entries is wrong: it says 3, and 0 are there"},
		{"an entry too few", "entries:2 " + active, "the text is incomplete, or its number of entries is wrong: it says 2, and 1 are there"},
		{"an entry too many", several(active, line("retired", noon, 'b')) + " " + line("retired", noon, 'c'), "the text is incomplete, or its number of entries is wrong: it says 2, and 3 are there"},
		{"a number that is none", "entries:two " + active, "the number of entries is not of the form entries:3"},
		{"a number in another spelling", "entries:01 " + active, "the number of entries is not of the form entries:3"},
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
	text := maximal()
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
	if hash(several(index, a)) != hash(several(b, index)) {
		t.Error("the user hash changes with the keys")
	}
	if hash(several(index, a)) == hash(several(line("index", noon, 'j'), a)) {
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
	if hash(several(oldest, newer)) != hash(several(newest, newer, oldest)) {
		t.Error("the user hash changes with a newer key")
	}
	if hash(several(oldest, newer)) == hash(newer) {
		t.Error("the user hash does not depend on the oldest key")
	}
	if hash(several(oldest, newer)) == hash(several(newer, line("index", noon, 'a'))) {
		t.Error("the oldest key itself is the index key")
	}
	sameAge := line("active", "20250101T000000Z", 'd')
	if hash(several(oldest, sameAge)) != hash(several(oldest, newer)) {
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

// A program overwrites the text in place while another reads it, or the disk is full.
func TestATextThatWasCutShortIsOfNoUse(t *testing.T) {
	index, a, b, c := line("index", noon, 'i'), line("active", noon, 'a'), line("published", noon, 'b'), line("retired", noon, 'c')
	for name, text := range map[string]string{
		"a generated key":         GenerateKey(),
		"a generated file":        GenerateKeyFile(),
		"a key and its number":    "entries:1 " + a,
		"the index key first":     several(index, a, b),
		"the index key last":      several(a, b, index),
		"no index key":            several(a, c),
		"several active keys":     several(a, line("active", noon, 'd'), line("active", noon, 'e')),
		"in one line":             "entries:4," + a + "," + b + "," + c + "," + index,
		"comments in between":     "# keys\nentries:2 # of us\n" + a + " # active\n# older:\n" + c,
		"as many as there can be": maximal(),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseKeys(text); err != nil {
				t.Fatal(err)
			}
			entries, err := parseEntries(text)
			if err != nil {
				t.Fatal(err)
			}
			last := entries[len(entries)-1]
			end := strings.LastIndex(text, last.text()) + len(last.text())
			for n := range end {
				if len(text) > 1000 && n < end-100 && text[n] != '\n' {
					continue // the ends of lines will do, and those of the last line
				}
				if _, err := ParseKeys(text[:n]); err == nil {
					t.Errorf("the first %d of %d bytes are accepted", n, len(text))
				}
			}
			for n := end; n <= len(text); n++ { // what is missing is no key
				if part, err := parseEntries(text[:n]); err != nil || !slices.Equal(part, entries) {
					t.Errorf("the first %d of %d bytes are %d entries: %v", n, len(text), len(part), err)
				}
			}
		})
	}
}

// maximal returns a text with as many entries as there can be.
func maximal() string {
	entries := []string{line("index", noon, 255)}
	for i := range MaxKeys {
		entries = append(entries, line("active", noon, byte(i)))
	}
	return several(entries...)
}

// A template whose variable was empty, a merge that went wrong.
func TestATextThatLostAnEntryIsOfNoUse(t *testing.T) {
	entries := []string{line("index", noon, 'i'), line("active", noon, 'a'), line("retired", noon, 'b'), line("active", noon, 'c')}
	for i := range entries {
		text := strings.Replace(several(entries...), entries[i], "", 1)
		if _, err := ParseKeys(text); err == nil {
			t.Errorf("without entry %d it is accepted", i+1)
		}
	}
}

// FuzzParseKeys looks for texts that break the parser, or that change their
// meaning in a round trip.
func FuzzParseKeys(f *testing.F) {
	active, index := line("active", noon, 'a'), line("index", noon, 'b')
	for _, seed := range []string{
		"", active, index, active + "," + index, "entries:2 " + active + "," + index, "entries:2," + active + "\r\n" + line("retired", noon, 'c') + " # " + index,
		several(line("published", "00000101T000000Z", 0), line("active", "99991231T235959Z", 255)), "entries:1 " + active, "entries:",
		active + active, "active::", "::", "#", ",", keyFile,
	} {
		f.Add(seed, uint16(len(seed)/2))
	}
	f.Fuzz(func(t *testing.T, text string, cut uint16) {
		r, err := ParseKeys(text)
		if err != nil {
			return
		}
		entries, err := parseEntries(text)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		b.WriteString(Count(len(entries)) + "\n")
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
		// A text cut short is of no use, or means the same.
		part, err := parseEntries(text[:int(cut)%len(text)])
		if err == nil && len(part) > 0 && !slices.Equal(part, entries) {
			t.Fatalf("the first %d bytes of %q mean something else", int(cut)%len(text), text)
		}
		wantOpen(t, other, State, mustSeal(t, r, State, "text", ""), "", "text")
		if other.UserHash("session", "alice") != r.UserHash("session", "alice") {
			t.Error("the index key differs")
		}
	})
}
