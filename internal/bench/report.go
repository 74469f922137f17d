package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// columns are the tables' figures, with their digits after the point; of TCP
// the ratio to the first row is shown too.
var columns = []struct {
	name   string
	digits int
	ratio  bool
}{
	{tcp1, 2, true}, {tcp4, 2, true}, {cpu1, 1, false}, {small, 0, false}, {p50, 0, false}, {p99, 0, false},
}

// markdown is the tables and, below each, the ratios.
func markdown(all []section) string {
	var b strings.Builder
	for _, s := range all {
		fmt.Fprintf(&b, "\n%s, medians of %d rounds:\n\n", s.Title, len(s.Rows[0].Rounds))
		s.table(&b)
		if len(s.Ratios) > 0 {
			b.WriteString("\nRatios, medians of the rounds' own (least-greatest):\n\n")
			s.ratios(&b)
		}
	}
	return b.String()
}

func (s section) table(b *strings.Builder) {
	b.WriteString("| path |")
	rule := "|---|"
	for _, c := range columns {
		b.WriteString(" " + c.name + " |")
		rule += "---|"
		if c.ratio {
			b.WriteString(" ratio |")
			rule += "---|"
		}
	}
	b.WriteString("\n" + rule + "\n")
	first := s.Rows[0].Medians
	for _, r := range s.Rows {
		fmt.Fprintf(b, "| %s |", r.Path)
		for _, c := range columns {
			value, measured := r.Medians[c.name]
			if measured {
				fmt.Fprintf(b, " %.*f |", c.digits, value)
			} else {
				b.WriteString(" - |")
			}
			switch {
			case !c.ratio:
			case measured:
				fmt.Fprintf(b, " %.2f |", value/first[c.name])
			default:
				b.WriteString(" - |")
			}
		}
		b.WriteString("\n")
	}
}

func (s section) ratios(b *strings.Builder) {
	b.WriteString("| ratio |")
	rule := "|---|"
	for _, name := range compared {
		b.WriteString(" " + name[:strings.LastIndex(name, " ")] + " |") // without its unit
		rule += "---|"
	}
	b.WriteString("\n" + rule + "\n")
	for _, r := range s.Ratios {
		fmt.Fprintf(b, "| %s / %s |", r.Path, r.To)
		for _, name := range compared {
			if f, measured := r.Figures[name]; measured {
				fmt.Fprintf(b, " %.2f (%.2f-%.2f) |", f.Median, f.Least, f.Greatest)
			} else {
				b.WriteString(" - |")
			}
		}
		b.WriteString("\n")
	}
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
