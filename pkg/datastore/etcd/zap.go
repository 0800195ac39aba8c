package etcd

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// newLogger has etcd write to log. Its warnings are about single slow requests and peers that are away, which Ready says better: they are
// shown with the debug lines.
func newLogger(log *slog.Logger) *zap.Logger {
	return zap.New(core{log: log.With("part", "etcd")})
}

// core is a zapcore.Core over slog.
type core struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func slogLevel(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.DPanicLevel:
		return slog.LevelError
	case l >= zapcore.ErrorLevel:
		return slog.LevelWarn
	case l >= zapcore.InfoLevel:
		return slog.LevelDebug
	}
	return slog.LevelDebug - 4
}

// Enabled implements zapcore.LevelEnabler.
func (c core) Enabled(l zapcore.Level) bool { return c.log.Enabled(context.Background(), slogLevel(l)) }

// With implements zapcore.Core.
func (c core) With(fields []zapcore.Field) zapcore.Core {
	return core{c.log, append(c.fields[:len(c.fields):len(c.fields)], fields...)}
}

// Check implements zapcore.Core.
func (c core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// closing is what etcd reports as an error at every stop.
const closing = "setting up serving from embedded etcd failed."

// Write implements zapcore.Core.
func (c core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if e.Message == closing {
		e.Level = zapcore.InfoLevel
		if !c.Enabled(e.Level) {
			return nil
		}
	}
	values := zapcore.NewMapObjectEncoder()
	var args []any
	for _, list := range [][]zapcore.Field{c.fields, fields} {
		for _, f := range list {
			f.AddTo(values)
			args = append(args, slog.Any(f.Key, values.Fields[f.Key]))
		}
	}
	c.log.Log(context.Background(), slogLevel(e.Level), e.Message, args...)
	return nil
}

// Sync implements zapcore.Core.
func (core) Sync() error { return nil }
