package sojournotel

import "github.com/sojourn-go/sojourn/ops"

// Counters returns what would be exported of some Stats, by name.
func Counters(stats *ops.Stats) map[string]uint64 {
	values := map[string]uint64{}
	for _, c := range counters {
		values[c.name] = c.value(stats)
	}
	return values
}
