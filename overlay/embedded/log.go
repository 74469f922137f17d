package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
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
	return zap.New(core{log: log, stopping: stopping}, zap.WithFatalHook(dying{}))
}

// dying panics with all that etcd says: the log may not be read any more.
type dying struct{}

// OnWrite is called when the entry has been written.
func (dying) OnWrite(ce *zapcore.CheckedEntry, fields []zapcore.Field) {
	panic(fmt.Sprintf("etcd: %s %v", ce.Message, attributes(fields)))
}

// attributes are zap's fields in slog's form.
func attributes(fields []zapcore.Field) []slog.Attr {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields))
	for _, k := range slices.Sorted(maps.Keys(enc.Fields)) {
		attrs = append(attrs, slog.Any(k, enc.Fields[k]))
	}
	return attrs
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
	attrs := attributes(append(c.fields[:len(c.fields):len(c.fields)], fields...))
	c.log.LogAttrs(context.Background(), slog.LevelWarn, "etcd: "+e.Message, attrs...)
	return nil
}

func (c core) Sync() error { return nil }
