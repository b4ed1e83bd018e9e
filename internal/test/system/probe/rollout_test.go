package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/programs"
	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// machines are replicas with a key file each, as on machines of their own.
type machines struct {
	t       *testing.T
	master  string   // the key file that is changed
	files   []string // where each replica has its copy
	site    *site
	reloads []int // how often each replica must have reloaded its file
}

func newMachines(t *testing.T, e engine, store string) *machines {
	m := &machines{t: t, master: filepath.Join(t.TempDir(), "keys")}
	path, err := built.Program(filepath.Join("..", "..", "..", "..", "cmd", "sojourn"), "sojourn")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, "keygen", "--file", m.master).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var processes []*programs.Process
	for i := range e.replicas {
		file := filepath.Join(t.TempDir(), "keys")
		m.files, m.reloads = append(m.files, file), append(m.reloads, 0)
		m.copyTo(i)
		processes = append(processes, startProcess(t, "-insecure", "-store", store, "-keys", file, "-reload", "20ms"))
	}
	m.site = siteOf(t, processes)
	return m
}

// keys runs sojourn keys on the master file.
func (m *machines) keys(command string) {
	m.t.Helper()
	path, err := built.Program(filepath.Join("..", "..", "..", "..", "cmd", "sojourn"), "sojourn")
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := exec.Command(path, "keys", command, m.master, "--reload", "0s", "--lifetime", "0s").CombinedOutput()
	if err != nil {
		m.t.Fatalf("sojourn keys %s: %v: %s", command, err, out)
	}
}

func (m *machines) copyTo(i int) {
	m.t.Helper()
	text, err := os.ReadFile(m.master)
	if err == nil {
		err = os.WriteFile(m.files[i]+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(m.files[i]+".new", m.files[i])
	}
	if err != nil {
		m.t.Fatal(err)
	}
}

// deploy copies the master file to one replica, and waits until it is in use.
func (m *machines) deploy(i int) {
	m.t.Helper()
	m.copyTo(i)
	m.reloads[i]++
	client.Eventually(m.t, "a replica reloads its keys", func() bool {
		return strings.Count(m.site.processes[i].Log.String(), "session keys were reloaded") == m.reloads[i]
	})
}

// regular is a visitor who returns repeatedly, one request at a time.
type regular struct {
	*browser
	handle, user, placement string
	counted                 atomic.Int64
	failed                  atomic.Bool
}

// comes is one visit: it must be the session of the last one.
func (v *regular) comes() {
	n := v.post("/incr?key=n")
	who := v.get("/info")
	if want := int(v.counted.Add(1)); n.Status != http.StatusOK || n.Number() != want ||
		who.Handle != v.handle || who.User != v.user || who.Placement != v.placement {
		v.t.Errorf("visit %d of %q with a session that is %s: %d %s, then %s", want, v.user, v.placement, n.Status, n.Body, who.Body)
		v.failed.Store(true)
	}
}

func TestKeysRollOverWhileNobodyLosesTheirSession(t *testing.T) {
	t.Parallel()
	shared(t, func(t *testing.T, e engine, store string) {
		m := newMachines(t, e, store)
		var visitors []*regular
		for i := range 6 {
			v := &regular{browser: newBrowser(t, m.site.visitor.base), placement: "inline"}
			if i%2 == 0 {
				v.user, v.placement = fmt.Sprintf("user%d", i), "stored"
				v.mustPost("/login?user=" + v.user)
			} else {
				v.mustPost("/set?key=k&value=v")
			}
			v.handle = v.get("/info").Handle
			visitors = append(visitors, v)
		}
		leave := make(chan struct{})
		var busy sync.WaitGroup
		for _, v := range visitors {
			busy.Go(func() {
				for !v.failed.Load() {
					select {
					case <-leave:
						return
					default:
						v.comes()
					}
				}
			})
		}
		// everybodyComes waits until each visitor has been to each replica.
		everybodyComes := func() {
			t.Helper()
			for _, v := range visitors {
				want := v.counted.Load() + int64(2*e.replicas)
				client.Eventually(t, "a visitor comes", func() bool { return v.counted.Load() >= want || v.failed.Load() })
			}
		}
		everybodyComes()
		first := m.sealing()
		for _, stage := range []string{"add", "activate", "retire", "remove"} {
			m.keys(stage)
			for i := range m.files {
				m.deploy(i)
				everybodyComes()
			}
		}
		close(leave)
		busy.Wait()

		last := m.sealing()
		if last == first {
			t.Error("the key that seals is the one from the beginning: the test shows nothing")
		}
		for _, v := range visitors {
			for _, c := range v.Cookies() {
				if id := sealedWith(t, c); id != last {
					t.Errorf("the cookie %s of %q is sealed with %s, and %s is the key that seals", c.Name, v.user, id, last)
				}
			}
			for i, p := range m.site.processes {
				if r := v.at(p.Base).get("/info"); r.Handle != v.handle {
					t.Errorf("at replica %d %q has %s", i, v.user, r.Body)
				}
			}
			if v.user == "" {
				continue
			}
			// The index by user has not moved.
			if got := v.handles(v.user); len(got) != 1 || got[0] != v.handle {
				t.Errorf("the sessions of %s are %v", v.user, got)
			}
		}
		for _, b := range m.site.direct {
			if n := b.stats()["rejected_cookies"]; n != 0 {
				t.Errorf("a replica has rejected %d cookies", n)
			}
		}
	})
}

// sealing is the ID of the key that seals in the master file.
func (m *machines) sealing() string {
	m.t.Helper()
	path, err := built.Program(filepath.Join("..", "..", "..", "..", "cmd", "sojourn"), "sojourn")
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := exec.Command(path, "keys", "list", m.master, "--json").Output()
	var list struct {
		Keys []struct {
			ID    string
			Seals bool
		}
	}
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	if err != nil {
		m.t.Fatalf("sojourn keys list: %v", err)
	}
	for _, k := range list.Keys {
		if k.Seals {
			return k.ID
		}
	}
	return ""
}

// sealedWith returns the id of the key that sealed a cookie: its first bytes.
func sealedWith(t *testing.T, c *http.Cookie) string {
	t.Helper()
	sealed, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil || len(sealed) < 4 {
		t.Fatalf("the cookie %s: %v", c.Name, err)
	}
	return hex.EncodeToString(sealed[:4])
}
