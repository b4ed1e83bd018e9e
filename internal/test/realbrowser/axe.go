package realbrowser

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"

	"github.com/chromedp/chromedp"
)

// axe is axe-core, the accessibility checker of Deque Systems. See axe/README.md.
//
//go:embed axe/axe.min.js
var axe string

// Accessibility returns what axe-core finds on the page in the tab of ctx that
// has a serious or a critical impact: one text for each element. With no rules
// all of them run.
func Accessibility(ctx context.Context, rules ...string) ([]string, error) {
	// preload would fetch stylesheets by script, which the pages' policies forbid.
	options := map[string]any{"resultTypes": []string{"violations"}, "preload": false}
	if len(rules) > 0 {
		options["runOnly"] = rules
	}
	text, err := json.Marshal(options)
	if err != nil {
		return nil, err
	}
	there, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("typeof axe == 'object'"))
	if err == nil && !there {
		_, err = chromedp.Run(ctx, chromedp.Evaluate[bool](axe+"; true"))
	}
	if err != nil {
		return nil, fmt.Errorf("loading axe-core: %w", err)
	}
	return chromedp.Run(ctx, chromedp.Evaluate[[]string](fmt.Sprintf(`axe.run(%s).then(found => found.violations
		.filter(v => ['serious', 'critical'].includes(v.impact))
		.flatMap(v => v.nodes.map(n => v.impact + ', ' + v.id + ': ' + n.target.join(' ') + ': ' + n.failureSummary)))`, text), chromedp.EvalAwaitPromise))
}
