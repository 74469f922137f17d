package embedded

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newZap returns a logger for etcd that passes its warnings, and everything
// graver, on as warnings: what a person must know, Run returns as an error.
// Once stopping is set it passes nothing on, since etcd takes its closed
// listeners for failures. What it calls fatal panics instead of ending the
// process.
func newZap(log *slog.Logger, stopping *atomic.Bool) *zap.Logger {
	return zap.New(core{log: log, stopping: stopping}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

// usual are warnings that every embedded server gives at its start.
var usual = []string{
	"Running http and grpc server on single port",
	"simple token is not cryptographically signed",
}

// core is a zapcore.Core on a slog.Logger.
type core struct {
	log      *slog.Logger
	stopping *atomic.Bool
	fields   []zapcore.Field
}

func (c core) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

func (c core) With(fields []zapcore.Field) zapcore.Core {
	c.fields = append(c.fields[:len(c.fields):len(c.fields)], fields...)
	return c
}

func (c core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if c.stopping.Load() {
		return nil
	}
	for _, prefix := range usual {
		if strings.HasPrefix(e.Message, prefix) {
			return nil
		}
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(c.fields[:len(c.fields):len(c.fields)], fields...) {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields))
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(k, v))
	}
	c.log.LogAttrs(context.Background(), slog.LevelWarn, "etcd: "+e.Message, attrs...)
	return nil
}

func (c core) Sync() error { return nil }
