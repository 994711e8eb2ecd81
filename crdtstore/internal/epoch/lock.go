package epoch

import "context"

// lock is a mutex whose waiters can leave: it is held across calls to the disk, which
// may not return.
type lock chan struct{}

func newLock() lock { return make(lock, 1) }

// take waits for the lock, or returns the error of the context that has ended.
func (l lock) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l lock) release() { <-l }
