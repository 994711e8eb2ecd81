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

	level *slog.LevelVar // of the loggers that Logger returned
}

// DefaultLog is what is logged where nothing else is said.
func DefaultLog() Log { return Log{Level: "info", Format: "text", level: new(slog.LevelVar)} }

// Settings returns the settings, whose environment names begin with the prefix.
func (l *Log) Settings(prefix string) []Setting {
	return []Setting{
		{Name: "log-level", Env: prefix + "LOG_LEVEL", Value: &l.Level, Usage: "what is logged: debug, info, warn or error"},
		{Name: "log-format", Env: prefix + "LOG_FORMAT", Value: &l.Format, Usage: "how it is logged: text or json"},
	}
}

// Logger returns a logger that writes to w. Errors are [UsageError].
func (l Log) Logger(w io.Writer) (*slog.Logger, error) {
	if err := l.SetLevel(l.Level); err != nil {
		return nil, err
	}
	opts := &slog.HandlerOptions{Level: l.level}
	switch l.Format {
	case "", "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, &UsageError{fmt.Errorf("--log-format: is %q; must be text or json", l.Format)}
}

// SetLevel changes the level of the loggers that Logger returned. Errors are [UsageError].
func (l Log) SetLevel(text string) error {
	switch text {
	case "", "debug", "info", "warn", "error":
		var level slog.Level
		_ = level.UnmarshalText([]byte(text)) // empty stays info
		l.level.Set(level)
		return nil
	}
	return &UsageError{fmt.Errorf("--log-level: is %q; must be debug, info, warn or error", text)}
}
