package tool

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// printer makes text for people.
type printer struct {
	text    strings.Builder
	colours bool
}

// colour is a terminal's code.
type colour string

const (
	plain  colour = ""
	bold   colour = "1"
	red    colour = "31;1"
	green  colour = "32"
	yellow colour = "33"
)

// in is a text in a colour, where colours are wanted.
func (p *printer) in(c colour, text string) string {
	if !p.colours || c == plain || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

func (p *printer) line(format string, args ...any) {
	_, _ = fmt.Fprintf(&p.text, format+"\n", args...) // a Builder's never fails
}

// known is an address or subnet as text, empty for the zero one.
func known(v interface {
	IsValid() bool
	String() string
}) string {
	if !v.IsValid() {
		return ""
	}
	return v.String()
}

// cell is a text of a table, in a colour.
type cell struct {
	text   string
	colour colour
}

func cells(texts ...string) []cell {
	row := make([]cell, len(texts))
	for i, t := range texts {
		row[i].text = t
	}
	return row
}

// table prints rows in aligned columns, the first as the head. Columns for IPv6
// with nothing in them are left out.
func (p *printer) table(indent string, rows [][]cell) {
	if len(rows) < 2 {
		return
	}
	rows = withoutEmptyIPv6(rows)
	var widths []int
	for _, row := range rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	for n, row := range rows {
		var line strings.Builder
		for i, c := range row {
			if n == 0 {
				c.colour = bold
			}
			pad := widths[i] - utf8.RuneCountInString(c.text) + 2
			if i == len(row)-1 {
				pad = 0
			}
			line.WriteString(p.in(c.colour, c.text) + strings.Repeat(" ", pad))
		}
		p.line("%s", indent+strings.TrimRight(line.String(), " "))
	}
}

func withoutEmptyIPv6(rows [][]cell) [][]cell {
	empty := func(column int) bool {
		return strings.HasPrefix(rows[0][column].text, "IPV6") &&
			!slices.ContainsFunc(rows[1:], func(row []cell) bool { return row[column].text != "" })
	}
	out := make([][]cell, len(rows))
	for column := range rows[0] {
		if empty(column) {
			continue
		}
		for i, row := range rows {
			out[i] = append(out[i], row[column])
		}
	}
	return out
}

// brief is a time span in at most two units.
func brief(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return "0s"
	case d < time.Minute:
		return d.Truncate(time.Second).String()
	case d < time.Hour:
		return two(d, time.Minute, "m", time.Second, "s")
	case d < day:
		return two(d, time.Hour, "h", time.Minute, "m")
	}
	return two(d, day, "d", time.Hour, "h")
}

func two(d, large time.Duration, largeName string, small time.Duration, smallName string) string {
	text := fmt.Sprintf("%d%s", d/large, largeName)
	if rest := d % large / small; rest > 0 {
		text += fmt.Sprintf("%d%s", rest, smallName)
	}
	return text
}

// head is as much of an id as docker shows.
func head(id string) string { return id[:min(len(id), 12)] }

// named is a network's name as it is typed.
func named(network string) string {
	if network == "" {
		return "default"
	}
	return network
}
