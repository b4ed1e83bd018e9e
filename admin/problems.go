package admin

import "strconv"

// problem is a problem, for operators.
type problem struct {
	Title string
	Text  string // what it means
	Do    string // what to do about it
}

// problems lists the problems: first current failures, then the counters that
// should be 0.
func problems(p overviewPage) []problem {
	var all []problem
	for _, t := range p.Tiers {
		if t.Problem.Title != "" {
			all = append(all, t.Problem)
		}
	}
	if p.Counted.Failed {
		all = append(all, problem{"The sessions could not be counted.", "The store did not answer within " + probeTimeout.String() + ".", "If this stays, look at the load of the store, or set CountEvery to a negative duration."})
	}
	for _, g := range p.Stats {
		for _, s := range g.Stats {
			if s.Alarm {
				all = append(all, problem{s.Label + ": " + group(strconv.FormatUint(s.Value, 10)) + " since this process started.", s.Text + ".", s.Do})
			}
		}
	}
	return all
}
