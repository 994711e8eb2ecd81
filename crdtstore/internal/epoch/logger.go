package epoch

import (
	"context"
	"fmt"
	"log/slog"
)

// crdtLogger and pebbleLogger bring the logs of go-ds-crdt and Pebble into the
// store's. Both speak much at info level, which here is debug.

type crdtLogger struct {
	log *slog.Logger
	// off is set while the epoch is given up: what go-ds-crdt then finds wrong with it
	// is the reason told again, or an artefact of the fail-stop file system.
	off func() bool
}

func (c crdtLogger) Debug(...any)          {}
func (c crdtLogger) Debugf(string, ...any) {}
func (c crdtLogger) Info(args ...any)      { c.log.Debug("go-ds-crdt", "msg", fmt.Sprint(args...)) }
func (c crdtLogger) Infof(f string, args ...any) {
	c.log.Debug("go-ds-crdt", "msg", fmt.Sprintf(f, args...))
}
func (c crdtLogger) Warn(args ...any)             { c.write(slog.LevelWarn, fmt.Sprint(args...)) }
func (c crdtLogger) Warnf(f string, args ...any)  { c.write(slog.LevelWarn, fmt.Sprintf(f, args...)) }
func (c crdtLogger) Error(args ...any)            { c.write(slog.LevelError, fmt.Sprint(args...)) }
func (c crdtLogger) Errorf(f string, args ...any) { c.write(slog.LevelError, fmt.Sprintf(f, args...)) }
func (c crdtLogger) Fatal(args ...any)            { c.Error(args...) }
func (c crdtLogger) Fatalf(f string, args ...any) { c.Errorf(f, args...) }
func (c crdtLogger) Panic(args ...any)            { panic(fmt.Sprint(args...)) }
func (c crdtLogger) Panicf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }

func (c crdtLogger) write(level slog.Level, msg string) {
	if c.off() {
		level = slog.LevelDebug
	}
	c.log.Log(context.Background(), level, "go-ds-crdt", "msg", msg)
}

type pebbleLogger struct{ log *slog.Logger }

func (p pebbleLogger) Infof(f string, args ...any) {
	p.log.Debug("pebble", "msg", fmt.Sprintf(f, args...))
}
func (p pebbleLogger) Errorf(f string, args ...any) {
	p.log.Error("pebble", "msg", fmt.Sprintf(f, args...))
}

// Fatalf is called when Pebble cannot go on without breaking its promises, for
// example when its write-ahead log cannot be written. It must not return.
func (p pebbleLogger) Fatalf(f string, args ...any) {
	msg := fmt.Sprintf(f, args...)
	p.log.Error("pebble", "msg", msg)
	panic("pebble: " + msg)
}
