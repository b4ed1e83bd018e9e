//go:build linux

package servers_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/sojourn-go/sojourn/internal/test/servers"
)

func TestAPackageTellsWhatFailsAndStopsInReverse(t *testing.T) {
	p := &servers.Package{}
	var stopped []int
	if err := p.Try(func() {
		p.Cleanup(func() { stopped = append(stopped, 1) })
		p.Cleanup(func() { stopped = append(stopped, 2) })
	}); err != nil {
		t.Errorf("what works fails: %v", err)
	}
	if err := p.Try(func() { p.Fatalf("there is no %s", "server") }); err == nil || err.Error() != "there is no server" {
		t.Errorf("Fatalf: %v", err)
	}
	if err := p.Try(func() { p.Fatal("none ", 1) }); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("Fatal: %v", err)
	}
	func() {
		defer func() {
			if recover() != "a mistake" {
				t.Error("a panic of something else is hidden")
			}
		}()
		_ = p.Try(func() { panic("a mistake") })
	}()
	p.Close()
	p.Close()
	if !slices.Equal(stopped, []int{2, 1}) {
		t.Errorf("stopped %v", stopped)
	}
}
