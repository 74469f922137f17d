package plugin

import (
	"context"
	"io"
	"log/slog"
)

// NewLog makes a logger that writes errors to bad and everything else to good:
// the engine shows a plugin's standard error as errors in its own log. The
// time is left out, for the engine's log has one.
func NewLog(good, bad io.Writer) (*slog.Logger, *slog.LevelVar) {
	level := new(slog.LevelVar)
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTime}
	return slog.New(split{slog.NewTextHandler(good, opts), slog.NewTextHandler(bad, opts)}), level
}

func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// split sends errors one way and the rest another.
type split struct{ good, bad slog.Handler }

func (s split) pick(level slog.Level) slog.Handler {
	if level >= slog.LevelError {
		return s.bad
	}
	return s.good
}

func (s split) Enabled(ctx context.Context, level slog.Level) bool {
	return s.pick(level).Enabled(ctx, level)
}

func (s split) Handle(ctx context.Context, r slog.Record) error {
	return s.pick(r.Level).Handle(ctx, r)
}

func (s split) WithAttrs(attrs []slog.Attr) slog.Handler {
	return split{s.good.WithAttrs(attrs), s.bad.WithAttrs(attrs)}
}

func (s split) WithGroup(name string) slog.Handler {
	return split{s.good.WithGroup(name), s.bad.WithGroup(name)}
}
