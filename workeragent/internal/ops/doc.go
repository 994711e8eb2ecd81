// Package ops remembers operations on disk, so that each runs at most once however
// often it is asked for.
//
//	journal, err := ops.Open("/var/lib/agent/operations", ops.Options{})
//	…
//	answer, err := journal.Do(ctx, id, fingerprint, func(ctx context.Context) ([]byte, error) {
//		return deploy(ctx) // ops.NotRun(err) where it certainly did nothing
//	})
//
// The caller names an operation by an id that nobody else uses, and gives the
// fingerprint of what it asks for. Whoever comes first with an id runs it; whoever
// comes later, after a restart too, gets the same answer byte for byte. That an
// operation begins is on stable storage before it runs, and its answer before
// anybody gets it. An operation whose answer is lost is never run again:
// [ErrUnknown].
//
// # What is forgotten
//
// An operation is remembered for [Options].Age after its end, and where there is
// no room for as long, the one that ended first goes first. But none is forgotten
// before [Options].MinAge: rather than that, new ones are refused with [ErrFull],
// and did not run. So the promise is that a repetition within MinAge of the end
// does not run again; most often it holds for Age. An operation that is repeated
// after that is a new one.
//
// Ages count the time for which a Journal was open, by the monotonic clock, carried
// over restarts in the records themselves. That is at most the time that has
// passed, so whatever becomes of the wall clock, nothing is forgotten too early.
//
// # Disk
//
// The file is a log of records, rewritten as a whole when most of it is outdated,
// and whenever it is opened; docs/protocol.md has the format. It holds ids,
// fingerprints and answers, not what was asked for, which may be secret; only its
// owner can read it. One Journal at a time may have the file; the caller sees to it.
//
// A disk that takes no writes: new operations are refused with [ErrDisk] and did
// not run. An answer that could not be saved is not given out, but [ErrUnsaved];
// it is kept in memory. The next caller finds out whether the disk is well again,
// at most one a second.
//
// What a power cut left half-written at the end of the file is cut off; nothing
// had begun because of it. That is the last frame of records, the mark before it, or
// both. A mark that cannot be read is none the less no damage, for it holds no records.
// Anything else that cannot be read is damage: records
// that were on stable storage are lost, and with them the knowledge which
// operations have run. Then what can be read is kept, the damaged file stays
// beside it under the name ….damaged, and ids that are not remembered are refused
// with [ErrDamaged] for MinAge. That is how long every operation is promised to be
// remembered, and all that were lost had begun before. After that the node is as
// useful as before. What was damaged in the last write alone before the process
// ended without the next one cannot be told from a power cut.
//
// A file that was deleted, or put back from a backup, is not noticed.
package ops
