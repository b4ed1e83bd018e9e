package main

import (
	"encoding/base64"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// try10k sends 10,000 requests, some at once, with the cookies that f makes up.
func try10k(t *testing.T, b *browser, f func(i int, rnd *rand.Rand) (method, path, cookie string)) {
	t.Helper()
	const workers, each = 8, 1250
	together(workers, func(w int) {
		rnd := rand.New(rand.NewPCG(uint64(w), 7))
		anonymous := &client.Browser{HTTP: &http.Client{Transport: b.HTTP.Transport, Timeout: client.Patience}}
		for i := range each {
			method, path, cookie := f(w*each+i, rnd)
			req, err := http.NewRequest(method, b.base+path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header["Cookie"] = []string{cookie}
			r, err := anonymous.Do(req)
			if err != nil || r.Status != http.StatusOK {
				t.Errorf("%s %s with %q: %d %s %v", method, path, cookie, r.Status, r.Body, err)
				return
			}
			if method == http.MethodGet && (!r.New || r.User != "" || r.Placement != "none") {
				t.Errorf("the cookie %q leads to a session: %s", cookie, r.Body)
				return
			}
		}
	})
}

func TestTenThousandGarbageCookiesNeverReachTheStore(t *testing.T) {
	t.Parallel()
	p := startProcess(t, "-insecure")
	b := newBrowser(t, p.Base)
	b.mustPost("/login?user=ada")
	valid := b.Cookies()[0].Value
	foreign := newBrowser(t, startProcess(t, "-insecure").Base)
	foreign.mustPost("/login?user=ada")
	sealedElsewhere := foreign.Cookies()[0].Value
	before := b.stats()

	try10k(t, b, func(i int, rnd *rand.Rand) (method, path, cookie string) {
		bytes := make([]byte, rnd.IntN(300))
		for j := range bytes {
			bytes[j] = byte(rnd.Uint32())
		}
		name := []string{"session", "session-state"}[rnd.IntN(2)]
		value := base64.RawURLEncoding.EncodeToString(bytes)
		switch i % 8 {
		case 0: // damaged: one character of a real one is another
			j := rnd.IntN(len(valid))
			value = valid[:j] + string(rune('a'+(int(valid[j])-'a'+1+26*8+rnd.IntN(24))%26)) + valid[j+1:]
		case 1:
			value = valid[:rnd.IntN(len(valid))]
		case 2:
			value = valid + value + "A"
		case 3:
			value = sealedElsewhere
		case 4: // the right key id, and then anything
			value = valid[:5] + value
		case 5: // a real one under the other name
			name, value = "session-state", valid
		case 6:
			value = strings.Repeat("A", 4000)
		case 7: // not even base64
			value = strings.Map(func(r rune) rune { return '!' + r%80 }, value)
			value = strings.NewReplacer(";", "", `"`, "", `\`, "", ",", "").Replace(value)
		}
		if i%2 == 0 {
			return http.MethodGet, "/info", name + "=" + value
		}
		return http.MethodPost, "/set?key=k&value=v", name + "=" + value
	})

	after := b.stats()
	if after["loads"] != before["loads"] || after["saves"] != before["saves"] {
		t.Errorf("the store was used: before %v, after %v", before, after)
	}
	// An empty cookie is not worth counting; nearly all others were garbage.
	if n := after["rejected_cookies"] - before["rejected_cookies"]; n < 9900 {
		t.Errorf("%d cookies were counted as rejected", n)
	}
	if r := b.get("/info"); r.User != "ada" {
		t.Errorf("the real visitor is now %s", r.Body)
	}
	if log := p.Log.String(); strings.Contains(log, "panic") || strings.Contains(log, valid) {
		t.Errorf("the log has a panic or the cookie: %s", log)
	}
}

func TestEveryFlippedBitOfACookieMakesItWorthless(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	b.mustPost("/login?user=ada")
	cookie := b.Cookies()[0]
	sealed, err := base64.RawURLEncoding.DecodeString(cookie.Value)
	if err != nil {
		t.Fatal(err)
	}
	loads := b.stats()["loads"]
	anonymous := &client.Browser{HTTP: &http.Client{Transport: b.HTTP.Transport, Timeout: client.Patience}}
	for i := range sealed {
		for bit := range 8 {
			flipped := append([]byte(nil), sealed...)
			flipped[i] ^= 1 << bit
			req, err := http.NewRequest("GET", b.base+"/info", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Cookie", cookie.Name+"="+base64.RawURLEncoding.EncodeToString(flipped))
			r, err := anonymous.Do(req)
			if err != nil || r.Status != 200 || !r.New || r.Placement != "none" {
				t.Fatalf("byte %d, bit %d: %d %s %v", i, bit, r.Status, r.Body, err)
			}
		}
	}
	if n := b.stats()["loads"] - loads; n != 0 {
		t.Errorf("%d of them were looked up in the store", n)
	}
}

func TestARealCookieIsFoundAmongPlantedOnes(t *testing.T) {
	t.Parallel()
	b := newBrowser(t, startInside(t, "-insecure"))
	b.mustPost("/login?user=ada")
	cookie := b.Cookies()[0]
	anonymous := &client.Browser{HTTP: &http.Client{Transport: b.HTTP.Transport, Timeout: client.Patience}}
	req, err := http.NewRequest("GET", b.base+"/info", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", "session=planted; session=; other=1; "+cookie.Name+"="+cookie.Value)
	if r, err := anonymous.Do(req); err != nil || r.User != "ada" {
		t.Errorf("got %s %v", r.Body, err)
	}
}
