package epoch

import (
	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	sstblock "github.com/cockroachdb/pebble/v2/sstable/block"

	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/descriptors"
)

// pebbleOptions sets Pebble up for little disk: the records of 10,000 nodes are
// 8 MB, so what a database takes beside its tables counts, and for how long.
func pebbleOptions() *pebble.Options {
	o := &pebble.Options{
		MaxOpenFiles: descriptors.Of(descriptors.Limit()).Database,
		// Pebble keeps up to three logs of this size for reuse, and reserves the
		// space in advance. A transaction writes less than half of it at once, for more
		// takes a slow way and a larger log.
		MemTableSize: 1 << 20,
		// While tables are merged, what goes in and what comes out are both there.
		// Small tables in more levels keep that small.
		LBaseMaxBytes: 1 << 20,
		// The first format in which a write-ahead log says how far it was synced, so
		// that damage in its middle is told from the end that a power failure leaves.
		FormatMajorVersion: pebble.FormatWALSyncChunks,
	}
	for i := range o.TargetFileSizes {
		o.TargetFileSizes[i] = max(256<<10, int64(128<<10)<<i)
	}
	// Signatures, keys and ids do not compress, and are a third of a record; of the
	// rest zstd leaves less than half, and larger blocks let it see more at once. Where
	// tables live for seconds a faster one is used: each record is written there anew,
	// a few times, on its way down, and without cgo zstd is slow.
	o.ApplyCompressionSettings(func() pebble.DBCompressionSettings {
		s := pebble.UniformDBCompressionSettings(sstable.ZstdCompression)
		for i := range len(s.Levels) - 2 {
			s.Levels[i] = sstblock.FastestCompression
		}
		return s
	})
	for i := range o.Levels {
		o.Levels[i].BlockSize = 32 << 10
		// What is asked for is mostly not there: a new block, the value of a new key.
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	return o
}
