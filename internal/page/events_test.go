package page

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestEvents(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	began := time.Now().Add(-time.Second)
	log.Info("serving", "sockets", []string{"/a b", "/c"})
	log.Debug("too much")
	log.Warn(`a "quoted" text`, "key", "<script>")
	log.Error("plain")
	got := Events(append([]string{"", "no log line", `time=x level=INFO msg=y`, `time="`, "level=INFO msg=y"}, strings.Split(out.String(), "\n")...))
	want := []Event{{Level: "INFO", Text: "serving", Detail: `sockets="[/a b /c]"`}, {Level: "WARN", Text: `a "quoted" text`, Detail: "key=<script>"}, {Level: "ERROR", Text: "plain"}}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, e := range got {
		if e.Time.Before(began) || e.Time.After(time.Now()) {
			t.Errorf("%+v is of another time", e)
		}
		e.Time = time.Time{}
		if e != want[i] {
			t.Errorf("got  %+v\nwant %+v", e, want[i])
		}
	}
}

func TestLastEvents(t *testing.T) {
	var lines []string
	for i := range shown + 7 {
		lines = append(lines, fmt.Sprintf("time=2026-01-02T03:04:05Z level=INFO msg=line n=%d", i))
	}
	got := Events(lines)
	if len(got) != shown || got[0].Detail != "n=7" || got[shown-1].Detail != fmt.Sprintf("n=%d", shown+6) {
		t.Errorf("%d events, %v … %v", len(got), got[0], got[len(got)-1])
	}
}

// FuzzEvents holds that what is read is in the line, and that nothing else is.
func FuzzEvents(f *testing.F) {
	f.Add(`time=2026-01-02T03:04:05Z level=INFO msg="a b" k=v`)
	f.Add(`time=2026-01-02T03:04:05Z level=WARN msg=`)
	f.Fuzz(func(t *testing.T, line string) {
		for _, e := range Events([]string{line}) {
			if e.Time.IsZero() && !strings.Contains(line, "0001") || !strings.HasSuffix(line, e.Detail) || len(e.Text)+len(e.Level)+len(e.Detail) > 3*len(line) {
				t.Errorf("%q is read as %+v", line, e)
			}
		}
	})
}
