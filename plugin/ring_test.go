package plugin

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestRing(t *testing.T) {
	var out bytes.Buffer
	r := &ring{}
	plain, level := NewLog(&out, &out)
	log := keeping(plain, r).With("host", 1)
	for i := range ringSize + 3 {
		log.Info("line", "n", i)
	}
	log.Debug("not wanted")
	level.Set(slog.LevelDebug)
	log.Debug("wanted")
	all := r.all()
	if len(all) != ringSize || !strings.HasSuffix(all[0], "level=INFO msg=line host=1 n=4") || !strings.HasPrefix(all[0], "time=") ||
		!strings.HasSuffix(all[ringSize-1], "msg=wanted host=1") {
		t.Errorf("%d lines, %q ... %q", len(all), all[0], all[len(all)-1])
	}
	if !strings.Contains(out.String(), fmt.Sprintf("level=INFO msg=line host=1 n=%d\n", ringSize)) {
		t.Error("the log itself lacks a line")
	}
}
