package admin

import "github.com/sojourn-go/sojourn/ops"

// StatNames counts how often each counter is shown.
func StatNames(s ops.Stats) map[string]int {
	shown := map[string]int{}
	for _, g := range statGroups(s) {
		for _, c := range g.Stats {
			shown[c.Name]++
		}
	}
	return shown
}
