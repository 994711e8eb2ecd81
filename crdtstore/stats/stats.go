package stats

import (
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Stats sums up the grid. Removed nodes are not counted.
type Stats struct {
	Nodes NodeCounts      `json:"nodes"`
	Total record.Capacity `json:"total"` // of all nodes
	Free  record.Capacity `json:"free"`  // of online nodes that are not drained
	// ByStatus divides the nodes, Total and Slices.Total up by the status of the nodes. All
	// three statuses are in it.
	ByStatus map[record.Status]StatusTotals `json:"by_status"`
	Slices   SliceCounts                    `json:"slices"`
	VMs      VMCounts                       `json:"vms"`
	Masters  map[string]int                 `json:"masters"` // by status, this one too
	// Conflicts is how many nodes several machines claim to be.
	Conflicts int `json:"conflicts"`
	// Convergence tells whether the masters hold the same.
	Convergence Convergence `json:"convergence"`
	// Preservation is set while a large part of the grid is silent and its nodes are
	// suspect rather than offline.
	Preservation *Preservation `json:"preservation,omitempty"`
	// Joining is set while this master is new and fetches what the others have.
	Joining *Joining `json:"joining,omitempty"`
	// History is what the records take on this master's disk.
	History HistoryStats `json:"history"`
}

// NodeCounts counts nodes.
type NodeCounts struct {
	Total   int `json:"total"` // the three below
	Online  int `json:"online"`
	Suspect int `json:"suspect"`
	Offline int `json:"offline"`
	Drained int `json:"drained"` // of any status
	Removed int `json:"removed"` // not in Total
}

// StatusTotals are the nodes of one status and what they have.
type StatusTotals struct {
	Nodes int `json:"nodes"`
	record.Capacity
	Slices uint64 `json:"slices"`
}

// SliceCounts counts slices.
type SliceCounts struct {
	Total uint64 `json:"total"` // of all nodes
	Free  uint64 `json:"free"`  // of online nodes that are not drained
}

// VMCounts counts VMs.
type VMCounts struct {
	Total   int            `json:"total"`
	ByState map[string]int `json:"by_state"`
}

// Convergence tells whether the masters hold the same.
type Convergence struct {
	InSync bool    `json:"in_sync"` // every master that is alive has our digest
	Digest string  `json:"digest"`  // ours, in hex
	LagS   float64 `json:"lag_s"`   // in seconds, the worst over masters that are alive
	Splits []Split `json:"splits"`  // those that are open, the oldest first
	// Gaps is how often announcements of other masters did not arrive, and were fetched;
	// Rebuilt how many connections were made anew, for nothing arrived over them. Both
	// count from the start of the store.
	Gaps    uint64 `json:"gaps"`
	Rebuilt uint64 `json:"rebuilt"`
}

// Split says that another master has held something else than this one for a while, or
// cannot be reached, so that what it holds is unknown. It heals itself as soon as the two
// can talk.
type Split struct {
	Master string    `json:"master"` // id
	Name   string    `json:"name"`
	Since  time.Time `json:"since"` // by this master's clock, when the other was last known to hold the same
	LagS   float64   `json:"lag_s"` // seconds since then
	// Nodes is how many nodes differed when the records were last compared; of a master
	// that cannot be reached, how many have changed here since. At most 10,000.
	Nodes       int      `json:"nodes"`
	Unreachable bool     `json:"unreachable"` // the other master is silent
	HeardBy     []string `json:"heard_by"`    // ids of masters that say that they hear it
}

// Preservation is the doubt that all the nodes are dead that fell silent together: for
// the time being they are suspect and not offline. It ends when most of them are heard
// again, when an operator says so, or by EndsBy.
type Preservation struct {
	Since  time.Time `json:"since"`
	EndsBy time.Time `json:"ends_by"`
	Late   int       `json:"late"` // nodes that should have been heard again by now
	Of     int       `json:"of"`   // nodes that were alive before
}

// Joining is how far a new master is with fetching what the others have.
type Joining struct {
	Nodes int `json:"nodes"` // that are here
	Of    int `json:"of"`    // that another master has
	// Missing are the ids of the masters that are heard and whose records are not all
	// here yet.
	Missing []string `json:"missing"`
}

// HistoryStats describes what the records and their history take on disk.
type HistoryStats struct {
	Epoch   uint64    `json:"epoch"`
	Created time.Time `json:"created"` // of the epoch
	Entries int       `json:"entries"` // writes in the epoch, by all masters
	Records int       `json:"records"` // nodes that are known, removed ones too
	Old     int       `json:"old"`     // earlier epochs that are not deleted yet
	Bytes   uint64    `json:"bytes"`   // on disk
	// Live is what the records alone take, encoded, in bytes. Bytes is kept to a
	// small multiple of it.
	Live uint64 `json:"live"`
}
