package epoch

import "context"

// Unsynced reports whether states were handed on that may not be on stable storage:
// what Deliver takes waits for the next Put or Sync.
func (l *Log) Unsynced() bool { return !l.opts.NoSync && l.taken.Load() != l.synced.Load() }

// Sync returns when all that was handed on before is on stable storage.
func (l *Log) Sync(ctx context.Context) error {
	if !l.Unsynced() {
		return nil
	}
	l.turn.Lock() // what is taken in this turn is written when it ends
	e := l.cur
	l.turn.Unlock()
	return l.sync(ctx, e)
}
