// Package epoch keeps the record plane on disk: the history of everything that
// the masters wrote, as a Merkle-CRDT (go-ds-crdt) over Pebble. A [Log] is that
// history; its users put states in and hear of the states that come in. It is made
// of epochs, each a crdt.Datastore in a directory of its own. To users an epoch is a
// number; package replica decides when the next one begins, what is asserted in it, and
// when the ones before are retired.
//
// What this package adds around go-ds-crdt, and why:
//
//   - One write transaction at a time. Local commits and blocks from other masters are applied
//     one after the other, so that concurrent writes do not fork the history and
//     the merge rule of the base is never asked to decide a race.
//   - A value is kept once, in the block that brought it; see indirect.go.
//   - All that one transaction writes of a block is staged in memory and reaches Pebble as one
//     atomic batch. A crash leaves a block applied as a whole or not at all; the
//     base alone can leave it half applied and never come back to it.
//   - A block is stored only when everything it builds on is stored, and blocks
//     are applied in that order. So to have a block is to have its past, a branch
//     walk never goes down more than one step, and an interrupted transfer is
//     continued where it stopped.
//   - Each opening of a master's history writes only its own keys, see [Writer], and
//     the value is the joined state. Which value wins inside a key is the order in
//     which it was written; joining over the keys is the reader's.
//   - When nodes were last seen is written by the bucket, see [Bucket], for it changes
//     all the time and is little.
//   - No deletes. A removal is a value like any other.
//   - A disk that fails is outlived: Pebble never sees it fail, nothing is acknowledged
//     meanwhile, and the epoch is opened again. Damaged and missing files are found.
package epoch
