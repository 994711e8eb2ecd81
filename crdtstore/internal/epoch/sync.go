package epoch

import "context"

// Unsynced reports whether states were handed on that may not be on stable storage:
// what Deliver takes waits for the next Put or Sync, or for the epoch to be closed that
// was left for a newer one. It never waits.
func (l *Log) Unsynced() bool {
	e := l.newest()
	return !l.opts.NoSync && (e.taken.Load() != e.synced.Load() || l.left.Load() != nil)
}

// Sync returns when all that was handed on before is on stable storage.
func (l *Log) Sync(ctx context.Context) error {
	if !l.Unsynced() {
		return nil
	}
	if err := l.txn.take(ctx); err != nil { // what is taken in this transaction is written when it ends
		return err
	}
	e := l.newest()
	l.txn.release()
	if err := l.sync(ctx, e); err != nil {
		return err
	}
	if p := l.left.Load(); p != nil {
		return p.wait(ctx)
	}
	return nil
}
