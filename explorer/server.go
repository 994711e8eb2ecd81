package explorer

import (
	"context"
	"errors"
	"log/slog"
)

// Run serves a master until ctx ends, then stops it gracefully within 10 s.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	if _, err := cfg.resolve(); err != nil {
		return err
	}
	return errors.New("not yet")
}
