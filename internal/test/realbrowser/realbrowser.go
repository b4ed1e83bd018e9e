// Package realbrowser starts the real browser that tests drive. Where there is none
// it fails the test: what the browser would have shown must not pass unnoticed.
package realbrowser

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// Profile returns a folder for what a browser keeps on disk, until the test ends.
func Profile(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sojourn-chromium-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Chromium's helpers may still be writing when the main process is gone.
		for range 20 {
			if os.RemoveAll(dir) == nil {
				break
			}
			<-time.After(50 * time.Millisecond)
		}
	})
	return dir
}

// Start starts a headless Chromium with what is in the profile, and with further
// options if the test needs them. It ends with the test.
func Start(t testing.TB, profile string, more ...chromedp.ExecAllocatorOption) context.Context {
	t.Helper()
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), append([]chromedp.ExecAllocatorOption{
		chromedp.ExecPath(program(t)), chromedp.UserDataDir(profile), chromedp.Headless, chromedp.NoSandbox,
		chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("disable-background-timer-throttling", true),
		chromedp.Flag("disable-backgrounding-occluded-windows", true), chromedp.Flag("disable-renderer-backgrounding", true),
		chromedp.Flag("hide-scrollbars", true), chromedp.Flag("force-color-profile", "srgb"),
	}, more...)...)
	ctx, cancelBrowser := chromedp.NewContext(ctx)
	t.Cleanup(func() { cancelBrowser(); cancel() })
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting Chromium: %v", err)
	}
	return ctx
}

func program(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("this test drives a real browser, and there is no chromium on the PATH.\n" +
		"Install it: apt-get install chromium (Debian), apk add chromium (Alpine), brew install chromium (macOS).")
	return ""
}
