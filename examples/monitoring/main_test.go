package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
)

// visited returns the content of /metrics after a visitor has signed in and
// out, and another one has sent an invalid cookie.
func visited(t *testing.T) string {
	t.Helper()
	handler, closeAll, err := newApp()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closeAll(); err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	client := server.Client()
	if client.Jar, err = cookiejar.New(nil); err != nil {
		t.Fatal(err)
	}
	do := func(method, path, cookie string) string {
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if cookie != "" {
			r.Header.Set("Cookie", cookie)
		}
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s %s: %s (%v)", method, path, res.Status, err)
		}
		return string(body)
	}
	do("GET", "/", "__Host-session=garbage")
	do("GET", "/", "")
	do("POST", "/login", "")
	if page := do("GET", "/", ""); !strings.Contains(page, "of ada") {
		t.Errorf("after signing in: %s", page)
	}
	do("POST", "/logout", "")
	return do("GET", "/metrics", "")
}

// TestTheDashboardAsksForWhatIsExported also holds the alerts to it.
func TestTheDashboardAsksForWhatIsExported(t *testing.T) {
	metrics := visited(t)
	known := map[string]bool{}
	for _, sample := range regexp.MustCompile(`(?m)^(sojourn_\w+)(?:\{(.*)\})? `).FindAllStringSubmatch(metrics, -1) {
		known[sample[1]] = true
		for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(sample[2], -1) {
			known[label[1]] = true
		}
	}
	text, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Title  string
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr, RefID string }
		}
		Templating struct {
			List []struct {
				Name  string
				Query any
			}
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatalf("the dashboard: %v", err)
	}
	if len(dashboard.Panels) < 10 || dashboard.Title == "" {
		t.Errorf("%q has %d panels", dashboard.Title, len(dashboard.Panels))
	}
	queries := map[string]string{}
	ids := map[int]bool{}
	for _, p := range dashboard.Panels {
		if ids[p.ID] || len(p.Targets) == 0 {
			t.Errorf("panel %q has the id %d and %d queries", p.Title, p.ID, len(p.Targets))
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			queries["panel "+p.Title+" "+target.RefID] = target.Expr
		}
	}
	for _, v := range dashboard.Templating.List {
		if q, ok := v.Query.(map[string]any); ok {
			queries["variable "+v.Name], _ = q["query"].(string)
		}
	}
	alerts, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, expr := range regexp.MustCompile(`expr: (.*)`).FindAllStringSubmatch(string(alerts), -1) {
		queries["alert "+expr[1]] = expr[1]
	}
	if len(queries) < 20 {
		t.Errorf("only %d queries were found", len(queries))
	}
	for where, query := range queries {
		names := regexp.MustCompile(`\bsojourn_\w+`).FindAllString(query, -1)
		if len(names) == 0 {
			t.Errorf("%s: no metric in %q", where, query)
		}
		for _, name := range names {
			if !known[name] {
				t.Errorf("%s asks for %s, which is not exported", where, name)
			}
		}
		if strings.Count(query, "(") != strings.Count(query, ")") {
			t.Errorf("%s: %q", where, query)
		}
	}
}

func TestMetricsTellNobody(t *testing.T) {
	if metrics := visited(t); regexp.MustCompile(`\bada\b`).MatchString(metrics) {
		t.Error("the metrics contain the user's name")
	}
}
