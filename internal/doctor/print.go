package doctor

import (
	"fmt"
	"strings"
)

// marks are what stands before a line, on a terminal and elsewhere.
var marks = map[State][2]string{
	OK: {"\x1b[32m✓\x1b[0m", "ok  "}, Warn: {"\x1b[33m!\x1b[0m", "warn"},
	Fail: {"\x1b[31;1m✗\x1b[0m", "FAIL"}, Unknown: {"\x1b[2m?\x1b[0m", "?   "},
}

// Text is a line a verdict, and below one that does not come out well the
// command that mends it. Without terminal it is plain ASCII.
func Text(all []Verdict, terminal bool) string {
	wide := 0
	for _, v := range all {
		wide = max(wide, len(v.Check))
	}
	var b strings.Builder
	for _, v := range all {
		mark, dash := marks[v.State][1], "; "
		if terminal {
			mark, dash = marks[v.State][0], " — "
		}
		line := fmt.Sprintf("%s %-*s  ", mark, wide, v.Check)
		if v.Subject != "" {
			line += v.Subject + ": "
		}
		line += v.Found
		if v.Why != "" {
			line += dash + v.Why
		}
		b.WriteString(strings.ReplaceAll(line, "\n", " ") + "\n")
		if v.Mend == "" || v.State == OK {
			continue
		}
		b.WriteString("       ")
		if v.On != "" {
			b.WriteString("on " + v.On + ": ")
		}
		b.WriteString(v.Mend + "\n")
	}
	if terminal {
		return b.String()
	}
	return strings.Map(ascii, b.String())
}

// ascii replaces what is not.
func ascii(r rune) rune {
	if r > 126 {
		return '?'
	}
	return r
}
