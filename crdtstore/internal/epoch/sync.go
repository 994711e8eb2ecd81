package epoch

import "context"

// Unsynced reports whether anything was written that may not be on stable storage:
// what Deliver writes waits for the next Put.
func (l *Log) Unsynced() bool { return !l.opts.NoSync && l.written.Load() != l.synced.Load() }

// Sync returns when all that was written is on stable storage.
func (l *Log) Sync(ctx context.Context) error {
	if !l.Unsynced() {
		return nil
	}
	return l.sync(ctx, l.at.Load())
}
