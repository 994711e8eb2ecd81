package settings

import (
	"fmt"
	"io"
	"log/slog"
)

// Log is the settings of a program's log.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // text or json
}

// DefaultLog is what is logged where nothing else is said.
func DefaultLog() Log { return Log{Level: "info", Format: "text"} }

// Settings returns the settings, whose environment names begin with the prefix.
func (l *Log) Settings(prefix string) []Setting {
	return []Setting{
		{Name: "log-level", Env: prefix + "LOG_LEVEL", Value: &l.Level, Usage: "what is logged: debug, info, warn or error"},
		{Name: "log-format", Env: prefix + "LOG_FORMAT", Value: &l.Format, Usage: "how it is logged: text or json"},
	}
}

// Logger returns a logger that writes to w. Errors are [UsageError].
func (l Log) Logger(w io.Writer) (*slog.Logger, error) {
	opts := &slog.HandlerOptions{}
	switch l.Level {
	case "", "debug", "info", "warn", "error":
		var level slog.Level
		_ = level.UnmarshalText([]byte(l.Level)) // empty stays info
		opts.Level = level
	default:
		return nil, &UsageError{fmt.Errorf("--log-level: is %q; must be debug, info, warn or error", l.Level)}
	}
	switch l.Format {
	case "", "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, &UsageError{fmt.Errorf("--log-format: is %q; must be text or json", l.Format)}
}
