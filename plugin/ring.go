package plugin

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
)

// ringSize is how many lines of the log are kept, for who looks for a fault.
const ringSize = 500

// ring keeps the last lines that are written to it.
type ring struct {
	mu    sync.Mutex
	lines []string
}

// Write takes one line, as slog's handlers write them.
func (r *ring) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) == ringSize {
		r.lines = slices.Delete(r.lines, 0, 1)
	}
	r.lines = append(r.lines, strings.TrimSuffix(string(line), "\n"))
	return len(line), nil
}

// all are the lines kept, the oldest first.
func (r *ring) all() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.lines...)
}

// keeping makes a logger that writes to a ring too, with the time.
func keeping(log *slog.Logger, r *ring) *slog.Logger {
	return slog.New(tee{log.Handler(), slog.NewTextHandler(r, &slog.HandlerOptions{Level: slog.LevelDebug})})
}

// tee writes to two handlers what the first one lets pass.
type tee struct{ first, second slog.Handler }

func (t tee) Enabled(ctx context.Context, level slog.Level) bool { return t.first.Enabled(ctx, level) }

func (t tee) Handle(ctx context.Context, r slog.Record) error {
	return errors.Join(t.first.Handle(ctx, r.Clone()), t.second.Handle(ctx, r))
}

func (t tee) WithAttrs(attrs []slog.Attr) slog.Handler {
	return tee{t.first.WithAttrs(attrs), t.second.WithAttrs(attrs)}
}

func (t tee) WithGroup(name string) slog.Handler {
	return tee{t.first.WithGroup(name), t.second.WithGroup(name)}
}
