package explorer

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// A caller learns that the disk is the reason, and nothing of its files.
func TestUnavailableSaysWhy(t *testing.T) {
	s := &Server{log: slog.New(slog.DiscardHandler)}
	for cause, want := range map[error]string{
		syscall.ENOSPC: "disk is full", syscall.EDQUOT: "disk is full",
		syscall.EROFS: "disk is read-only", syscall.EIO: "cannot take it now",
	} {
		err := fmt.Errorf("%w: %w", crdtstore.ErrUnavailable, &os.PathError{Op: "write", Path: "/secret/place", Err: cause})
		wire := s.wireError("drain_node", err)
		if data, ok := wire.Data.(errorData); !ok || !data.Retryable || data.By != "master" || !strings.Contains(wire.Message, want) || strings.Contains(wire.Message, "secret") {
			t.Errorf("%v: %q %+v", cause, wire.Message, wire.Data)
		}
	}
}
