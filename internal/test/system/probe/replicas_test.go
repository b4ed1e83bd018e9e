package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/system/client"
)

// replicas starts two probes on one database, and returns one visitor at each.
func replicas(t *testing.T) (one, two *browser) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"-insecure", "-store", "sqlite:" + filepath.Join(dir, "sessions.db"), "-keys", filepath.Join(dir, "keys")}
	one = newBrowser(t, startProcess(t, args...).Base)
	two = one.at(startProcess(t, args...).Base)
	return one, two
}

func TestTwoReplicasLoseNoIncrement(t *testing.T) {
	t.Parallel()
	one, two := replicas(t)
	one.mustPost("/set-serverside?key=k&value=v")
	const n = 24
	together(2*n, func(i int) {
		b := one
		if i%2 == 1 {
			b = two
		}
		b.mustPost(fmt.Sprintf("/incr?key=n&delay=%d", 5*(i%4)))
		b.mustPost(fmt.Sprintf("/append?key=l&value=v%d.&delay=%d", i, 5*(i%3)))
	})
	list := two.get("/get?key=l").Text()
	for i := range 2 * n {
		if !strings.Contains(list, fmt.Sprintf(`"v%d."`, i)) {
			t.Errorf("the value of request %d is missing", i)
		}
	}
	for name, b := range map[string]*browser{"one": one, "two": two} {
		if r := b.get("/get?key=n"); r.Text() != fmt.Sprint(2*n) {
			t.Errorf("at replica %s, %d increments made %s", name, 2*n, r.Text())
		}
	}
}

func TestALogoutInOneReplicaIsFinalInTheOther(t *testing.T) {
	t.Parallel()
	one, two := replicas(t)
	one.mustPost("/login?user=ada")
	slow := two.copied()
	answer := make(chan client.Answer)
	loads := two.stats()["loads"]
	go func() { answer <- slow.post("/set?key=k&value=late&delay=300") }()
	client.Eventually(t, "the slow request has loaded its session", func() bool { return two.stats()["loads"] > loads })
	replayed := two.copied()

	one.mustPost("/logout")

	if r := replayed.get("/info"); r.User != "" || r.Placement != "none" {
		t.Errorf("a copied cookie leads to %s", r.Body)
	}
	if r := <-answer; r.Status != http.StatusConflict || len(r.Header["Set-Cookie"]) > 0 {
		t.Errorf("the slow request got %d %s with cookies %v", r.Status, r.Body, r.Header["Set-Cookie"])
	}
	if r := one.get("/info"); r.User != "" {
		t.Errorf("afterwards: %s", r.Body)
	}
}

func TestALoginInOneReplicaEndsTheSessionBeforeInTheOther(t *testing.T) {
	t.Parallel()
	one, two := replicas(t)
	one.mustPost("/set-serverside?key=cart&value=mug")
	before := two.copied()
	one.mustPost("/login?user=ada")
	if r := before.get("/get?key=cart"); r.Found {
		t.Errorf("the identifier from before the login reads %s", r.Body)
	}
	if r := two.get("/get?key=cart"); r.Text() != "mug" {
		t.Errorf("the visitor has %s", r.Body)
	}
}

func TestOfParallelPopsAtTwoReplicasOneWins(t *testing.T) {
	t.Parallel()
	one, two := replicas(t)
	one.mustPost("/set-serverside?key=state&value=xyz")
	var won atomic.Int32
	together(16, func(i int) {
		b := one
		if i%2 == 1 {
			b = two
		}
		switch r := b.post("/pop?key=state&delay=20"); {
		case r.Status == 200 && r.Found:
			won.Add(1)
		case r.Status == 200, r.Status == http.StatusConflict:
		default:
			t.Errorf("got %d %s", r.Status, r.Body)
		}
	})
	if won.Load() != 1 {
		t.Errorf("%d requests got the value", won.Load())
	}
}
