// Package realbrowser starts the real browser for tests. It fails the test if
// there is none, so that tests are not skipped silently.
package realbrowser

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// Profile returns a folder for a browser's profile, until the test ends.
func Profile(t testing.TB) string {
	t.Helper()
	dir, remove, err := profile()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	return dir
}

func profile() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp("", "sojourn-chromium-")
	return dir, func() {
		// Chromium's helpers may still be writing when the main process is gone.
		for range 20 {
			if os.RemoveAll(dir) == nil {
				break
			}
			<-time.After(50 * time.Millisecond)
		}
	}, err
}

// Start starts a headless Chromium with a profile, and with further options. It
// ends with the test.
func Start(t testing.TB, profile string, more ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	ctx, stop, err := start(browsers, profile, more...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return ctx
}

// Shared is one headless Chromium for all tests of a package, because starting
// one takes seconds. It uses Chromium's headless shell if that is installed:
// the same engine without the browser's windows, which take two thirds of all
// processor time. Each test needs its own browser context, which shares no
// cookies and no cache with the others. The zero value is ready.
type Shared struct {
	once sync.Once
	ctx  context.Context
	err  error
	stop []func()
}

// Context returns the browser, which starts with the first call.
func (s *Shared) Context(t testing.TB) context.Context {
	t.Helper()
	s.once.Do(func() {
		dir, remove, err := profile()
		if s.err = err; err != nil {
			return
		}
		s.stop = append(s.stop, remove)
		ctx, stop, err := start(append([]string{"chromium-headless-shell"}, browsers...), dir)
		if s.ctx, s.err = ctx, err; err == nil {
			s.stop = append(s.stop, stop)
		}
	})
	if s.err != nil {
		t.Fatal(s.err)
	}
	return s.ctx
}

// Main runs the tests, ends the browser, and returns the exit status: what a
// TestMain does.
func (s *Shared) Main(m *testing.M) int {
	defer func() {
		for _, stop := range slices.Backward(s.stop) {
			stop()
		}
	}()
	return m.Run()
}

func start(names []string, profile string, more ...chromedp.ExecAllocatorOption) (_ context.Context, stop func(), err error) {
	path, err := program(names)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(path), chromedp.UserDataDir(profile), chromedp.Headless, chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("disable-background-timer-throttling", true),
		chromedp.Flag("disable-backgrounding-occluded-windows", true), chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.Flag("force-color-profile", "srgb"),
	}, more...)...)
	ctx, cancelBrowser := chromedp.NewContext(ctx)
	stop = func() { cancelBrowser(); cancel() }
	if err := chromedp.Do(ctx); err != nil {
		stop()
		return nil, nil, fmt.Errorf("starting Chromium: %w", err)
	}
	return ctx, stop, nil
}

// browsers are programs that are a whole Chromium.
var browsers = []string{"chromium", "chromium-browser", "google-chrome"}

func program(names []string) (string, error) {
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("this test drives a real browser, and there is no chromium on the PATH.\n" +
		"Install it: apt-get install chromium (Debian), apk add chromium (Alpine), brew install chromium (macOS)")
}
