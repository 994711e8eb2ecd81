package explorer

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// step is one thing to undo at the end.
type step struct {
	name string
	undo func(context.Context) error
}

// within runs f. Where f has not ended a while after ctx it is left to itself, for it may
// wait for a disk that hangs.
func within(ctx context.Context, grace time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
		return ctx.Err()
	}
}

func (s *Server) undo(name string, f func(context.Context) error) {
	s.steps = append(s.steps, step{name, f})
}

// shutdown waits for requests that run, though not so long that no time is
// left for the steps that follow.
func shutdown(ctx context.Context, srv *http.Server) error {
	if deadline, ok := ctx.Deadline(); ok {
		left := time.Until(deadline)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left/2)
		defer cancel()
	}
	err := srv.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = srv.Close() // a call that runs longer loses its answer, not its effect
	}
	return ignoreClosed(err)
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
