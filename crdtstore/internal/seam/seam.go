package seam

import (
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	ma "github.com/multiformats/go-multiaddr"
)

// Seams are what a store takes in the place of the machine. Nil: the machine's.
type Seams struct {
	// NewHost makes the libp2p host on which masters meet; the store closes it.
	NewHost func(key crypto.PrivKey, listen []ma.Multiaddr) (host.Host, error)
	// Wall is the wall clock. It may be wrong and may jump.
	Wall func() time.Time
	// Disk is what the history is on.
	Disk vfs.FS
}

// Of returns the seams of a *crdtstore.Config, to be set before it is opened. Package
// crdtstore provides it, which this one cannot import.
var Of func(config any) *Seams
