package page

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Event is a line of the log.
type Event struct {
	Time   time.Time
	Level  string // INFO, WARN or ERROR
	Text   string // what happened
	Detail string `json:",omitempty"` // to what, as key=value
}

// shown is how many events the page has.
const shown = 100

// Events reads lines as slog's text handler writes them, and leaves out what is
// for debugging and what is no such line.
func Events(lines []string) []Event {
	events := []Event{}
	for _, line := range slices.Backward(lines) {
		if e, ok := event(line); ok && e.Level != "DEBUG" {
			events = append(events, e)
		}
		if len(events) == shown {
			break
		}
	}
	slices.Reverse(events)
	return events
}

func event(line string) (e Event, ok bool) {
	when, rest, _ := field(line, "time")
	level, rest, _ := field(rest, "level")
	text, rest, ok := field(rest, "msg")
	at, err := time.Parse(time.RFC3339, when)
	return Event{Time: at, Level: level, Text: text, Detail: rest}, ok && err == nil
}

// field reads key=value at the line's beginning; the value may be quoted.
func field(line, key string) (value, rest string, ok bool) {
	line, ok = strings.CutPrefix(line, key+"=")
	if !ok {
		return "", line, false
	}
	if quoted, err := strconv.QuotedPrefix(line); err == nil {
		value, err = strconv.Unquote(quoted)
		return value, strings.TrimPrefix(line[len(quoted):], " "), err == nil
	}
	value, rest, _ = strings.Cut(line, " ")
	return value, rest, true
}
