package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// row is one path's medians.
type row struct {
	Path    string
	Medians figures
	Rounds  []figures
}

// section is one run's rows.
type section struct {
	Title string
	Rows  []row
}

// measureAll measures every path once a round, so that whatever the machine
// does beside it falls on all.
func measureAll(ctx context.Context, paths []path, plan plan) ([]row, error) {
	rows := make([]row, len(paths))
	for i, p := range paths {
		rows[i].Path = p.name
	}
	for round := range plan.rounds {
		fmt.Fprintf(os.Stderr, "round %d of %d\n", round+1, plan.rounds)
		for i, p := range paths {
			f, err := measure(ctx, p, plan.span)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p.name, err)
			}
			rows[i].Rounds = append(rows[i].Rounds, f)
		}
	}
	for i := range rows {
		rows[i].Medians = medians(rows[i].Rounds)
	}
	return rows, nil
}

func medians(rounds []figures) figures {
	of := func(get func(figures) float64) float64 {
		values := make([]float64, len(rounds))
		for i, f := range rounds {
			values[i] = get(f)
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return figures{
		TCP1: of(func(f figures) float64 { return f.TCP1 }),
		TCP4: of(func(f figures) float64 { return f.TCP4 }),
		CPU:  of(func(f figures) float64 { return f.CPU }),
		UDP:  of(func(f figures) float64 { return f.UDP }),
		P50:  of(func(f figures) float64 { return f.P50 }),
		P99:  of(func(f figures) float64 { return f.P99 }),
	}
}

// markdown is the tables, each figure of TCP with its ratio to the first row.
func markdown(all []section) string {
	var b strings.Builder
	for _, s := range all {
		fmt.Fprintf(&b, "\n%s, medians of %d rounds:\n\n", s.Title, len(s.Rows[0].Rounds))
		b.WriteString("| path | TCP 1 stream Gbit/s | ratio | TCP 4 Gbit/s | ratio | CPU s/GB | small UDP kpps | p50 µs | p99 µs |\n")
		b.WriteString("|---|---|---|---|---|---|---|---|---|\n")
		first := s.Rows[0].Medians
		for _, r := range s.Rows {
			m := r.Medians
			fmt.Fprintf(&b, "| %s | %.2f | %.2f | %.2f | %.2f | %.1f | %.0f | %.0f | %.0f |\n",
				r.Path, m.TCP1, m.TCP1/first.TCP1, m.TCP4, m.TCP4/first.TCP4, m.CPU, m.UDP, m.P50, m.P99)
		}
	}
	return b.String()
}

func save(file string, all []section) error {
	text, err := json.MarshalIndent(struct {
		Time     time.Time
		Sections []section
	}{time.Now().UTC(), all}, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	if err := os.WriteFile(file, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}
	return nil
}
