package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"time"
)

func printMachine(dir string) error {
	d, err := syncTime(dir)
	if err != nil {
		return err
	}
	fmt.Printf("%s, %s/%s, %d cores; writing 4 KiB and syncing it to the disk takes %s.\n\n",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.GOMAXPROCS(0), nanos(float64(d.Nanoseconds())))
	return nil
}

// syncTime is the median time of a synced write.
func syncTime(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, "sync")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	block := make([]byte, 4096)
	var times []float64
	for range 101 {
		start := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		times = append(times, float64(time.Since(start)))
	}
	return time.Duration(spreadOf(times).median), nil
}

func printDirectHeader() {
	fmt.Println("| request | sessions | time | least–most | over the bare handler | bytes | allocations | Sojourn is faster |")
	fmt.Println("|---|---|---:|---:|---:|---:|---:|---:|")
}

func printDirect(title string, results []result) {
	byName := map[string][]float64{}
	for _, r := range results {
		byName[r.name] = each(r.costs, func(c cost) float64 { return c.ns })
	}
	for _, r := range results {
		t := spreadOf(byName[r.name])
		over := "–"
		if r.name != bare {
			extra := make([]float64, len(r.costs))
			for i := range extra {
				extra[i] = byName[r.name][i] - byName[bare][i]
			}
			over = "+ " + nanos(spreadOf(extra).median)
		}
		fmt.Printf("| %s | %s | %s | %s–%s | %s | %.0f | %.0f | %s |\n", title, r.name,
			nanos(t.median), nanos(t.min), nanos(t.max), over,
			spreadOf(each(r.costs, func(c cost) float64 { return c.bytes })).median,
			spreadOf(each(r.costs, func(c cost) float64 { return c.allocs })).median,
			factor(byName[r.name], byName[r.against]))
		title = ""
	}
}

func printLoadHeader(first, rate string) {
	fmt.Printf("| %s | sessions | %s | least–most | p50 | p99 | allocations | Sojourn is faster |\n", first, rate)
	fmt.Println("|---|---|---:|---:|---:|---:|---:|---:|")
}

func printLoads(title string, results []loadResult) {
	byName := map[string][]float64{}
	for _, r := range results {
		byName[r.name] = each(r.loads, func(l load) float64 { return l.perSecond })
	}
	for _, r := range results {
		s := spreadOf(byName[r.name])
		fmt.Printf("| %s | %s | %.0f | %.0f–%.0f | %s | %s | %.0f | %s |\n", title, r.name,
			s.median, s.min, s.max,
			nanos(spreadOf(each(r.loads, func(l load) float64 { return float64(l.p50) })).median),
			nanos(spreadOf(each(r.loads, func(l load) float64 { return float64(l.p99) })).median),
			spreadOf(each(r.loads, func(l load) float64 { return l.allocs })).median,
			factor(byName[r.against], byName[r.name]))
		title = ""
	}
}

// factor shows a/b, round by round, or "" without a comparison.
func factor(a, b []float64) string {
	if len(a) == 0 || len(b) == 0 {
		return ""
	}
	f := spreadOf(ratios(a, b))
	return fmt.Sprintf("%s× (%s–%s)", digits(f.median), digits(f.min), digits(f.max))
}

// digits shows two or three significant digits.
func digits(x float64) string {
	switch {
	case math.Abs(x) >= 100:
		return fmt.Sprintf("%.0f", x)
	case math.Abs(x) >= 10:
		return fmt.Sprintf("%.1f", x)
	default:
		return fmt.Sprintf("%.2f", x)
	}
}

func nanos(ns float64) string {
	switch {
	case math.Abs(ns) < 1000:
		return fmt.Sprintf("%.0f ns", ns)
	case math.Abs(ns) < 1e6:
		return digits(ns/1e3) + " µs"
	case math.Abs(ns) < 1e9:
		return digits(ns/1e6) + " ms"
	default:
		return digits(ns/1e9) + " s"
	}
}
