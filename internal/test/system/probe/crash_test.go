package main

import (
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

// TestAKilledProbeHasKeptEveryAcknowledgedWrite runs the probe on the embedded
// store, lets several visitors write as fast as they can, kills the process
// with SIGKILL at a random moment, starts it again on the same file, and looks:
// every write that was answered with 200 is there, a write that was under way
// is there completely or not at all, and nothing else is.
func TestAKilledProbeHasKeptEveryAcknowledgedWrite(t *testing.T) {
	t.Parallel()
	const (
		rounds   = 30
		visitors = 6
	)
	dir := t.TempDir()
	file := filepath.Join(dir, "sessions.db")
	args := []string{"-insecure", "-inline", "0", "-store", "sqlite:" + file, "-keys", filepath.Join(dir, "keys")}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))

	p := startProcess(t, args...)
	writers := make([]*writer, visitors)
	for i := range writers {
		writers[i] = newWriter(newBrowser(t, p.Base), seed, uint64(i))
	}
	total := int64(0)
	for round := range rounds {
		var acknowledged atomic.Int64
		// Some rounds end while the first writes are under way, others later,
		// when checkpoints and long write-ahead logs are about.
		enough := 1 + rnd.Int64N([]int64{3, 50, 800}[round%3])
		kill := sync.OnceFunc(func() { p.Signal(syscall.SIGKILL) })
		together(visitors, func(i int) {
			writers[i].write(func() {
				if acknowledged.Add(1) >= enough {
					kill()
				}
			})
		})
		<-p.Gone
		total += acknowledged.Load()

		p = startProcess(t, args...)
		together(visitors, func(i int) {
			w := writers[i]
			w.browser = w.browser.at(p.Base)
			if err := w.check(); err != nil {
				t.Errorf("round %d, visitor %d, killed after %d writes: %v", round, i, acknowledged.Load(), err)
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d rounds, %d acknowledged writes", rounds, total)
	if status := p.Terminate(t); status != 0 {
		t.Errorf("the last probe ended with status %d; it said: %s", status, p.Log)
	}
	checkIntegrity(t, file)
}

// writer is a visitor who writes and records acknowledged values. Each value
// lives in a stored session of its own visitor, so that at most one write has
// an unknown outcome: the one under way when the process died.
type writer struct {
	browser *browser
	rnd     *rand.Rand

	counter int
	text    string
	list    []string
	serial  int

	// The write whose answer never came: what these would be if it was kept.
	pending        string
	pendingCounter int
	pendingText    string
	pendingList    []string
}

func newWriter(b *browser, seed, number uint64) *writer {
	w := &writer{browser: b, rnd: rand.New(rand.NewPCG(seed, number+1))}
	w.text = w.newText()
	b.mustPost("/set?key=text&value=" + url.QueryEscape(w.text))
	return w
}

// write writes until the server is gone.
func (w *writer) write(acknowledged func()) {
	for {
		w.serial++
		w.pendingCounter, w.pendingText, w.pendingList = w.counter, w.text, w.list
		var path string
		switch w.rnd.IntN(3) {
		case 0:
			w.pendingCounter++
			path = "/incr?key=counter"
		case 1:
			w.pendingText = w.newText()
			path = "/set?key=text&value=" + url.QueryEscape(w.pendingText)
		case 2:
			item := strconv.Itoa(w.serial)
			w.pendingList = append(slices.Clone(w.list), item)
			path = "/append?key=list&value=" + item
		}
		w.pending = path
		r, err := w.browser.try("POST", path)
		if err != nil {
			return
		}
		if r.Status != 200 {
			w.browser.t.Errorf("%.40s: %d %s", path, r.Status, r.Body)
			return
		}
		w.counter, w.text, w.list = w.pendingCounter, w.pendingText, w.pendingList
		acknowledged()
	}
}

// newText returns up to some thousand characters that carry their own checksum.
func (w *writer) newText() string {
	body := fmt.Sprintf("%d:%s", w.serial, letters(w.rnd.IntN(6000)))
	sum := sha256.Sum256([]byte(body))
	return body + ":" + hex.EncodeToString(sum[:8])
}

func whole(text string) bool {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return false
	}
	sum := sha256.Sum256([]byte(text[:i]))
	return text[i+1:] == hex.EncodeToString(sum[:8])
}

// check compares the restarted server's values with the acknowledged ones, and
// continues from there.
func (w *writer) check() error {
	read := func(key string) string { return w.browser.get("/get?key=" + key).Text() }
	text := read("text")
	if !whole(text) {
		return fmt.Errorf("the text is torn: %d bytes: %.60q", len(text), text)
	}
	counter := 0
	if s := read("counter"); s != "" {
		var err error
		if counter, err = strconv.Atoi(s); err != nil {
			return err
		}
	}
	var list []string
	if s := read("list"); s != "" {
		if err := json.Unmarshal([]byte(s), &list); err != nil {
			return err
		}
	}
	before := counter == w.counter && text == w.text && slices.Equal(list, w.list)
	after := counter == w.pendingCounter && text == w.pendingText && slices.Equal(list, w.pendingList)
	if !before && !after {
		return fmt.Errorf("with %.20s under way: counter %d (acknowledged %d), text %.10q (%.10q), list of %d (%d)",
			w.pending, counter, w.counter, text, w.text, len(list), len(w.list))
	}
	w.counter, w.text, w.list = counter, text, list
	return nil
}

func checkIntegrity(t *testing.T, file string) {
	t.Helper()
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var result string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&result); err != nil || result != "ok" {
		t.Errorf("the database's integrity check says %q %v", result, err)
	}
}
