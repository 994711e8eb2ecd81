package crdtstore

import (
	"fmt"
	"math"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// The values of the merge core that the API speaks of. See package record.
type (
	Report   = record.Report
	Node     = record.Node
	Profile  = record.Profile
	VM       = record.VM
	Usage    = record.Usage
	Capacity = record.Capacity
	Location = record.Location
	Status   = record.Status
	Witness  = record.Witness
)

// The statuses of a node.
const (
	Online  = record.Online
	Suspect = record.Suspect
	Offline = record.Offline
)

// Receipt answers a report.
type Receipt struct {
	// Accepted is false for an account older than what is known, which changes
	// nothing; Known is the version that stands.
	Accepted bool
	Known    record.Version
}

// Beat is one heartbeat: the node lives.
type Beat struct {
	NodeID string `json:"node_id"`
	// Boot and Seq order the beats of a node; a late or repeated one is
	// ignored. Legacy senders leave out both, or Seq.
	Boot uint64 `json:"boot"`
	Seq  uint64 `json:"seq"`
	// Usage and UptimeS (seconds) are kept as they were where left out.
	Usage   *Usage  `json:"usage"`
	UptimeS *uint64 `json:"uptime_s"`
}

// validate returns a [FieldError] for the first field that cannot be taken. The
// bounds are those of a report. The id of a node that is known is good.
func (b *Beat) validate(known bool) error {
	if !known {
		if err := record.ValidNodeID(b.NodeID); err != nil {
			return err
		}
	}
	switch {
	case b.Boot > math.MaxInt64:
		return &FieldError{Field: "boot", Problem: "must be below 2^63"}
	case b.Seq > math.MaxInt64:
		return &FieldError{Field: "seq", Problem: "must be below 2^63"}
	case b.Usage != nil && !(b.Usage.CRU >= 0 && b.Usage.CRU <= 1e9): // also refuses NaN
		return &FieldError{Field: "usage.cru", Problem: fmt.Sprintf("is %v, must lie between 0 and 1e9", b.Usage.CRU)}
	}
	return nil
}

// BeatResult answers a heartbeat.
type BeatResult struct {
	// Accepted is false where a newer beat is known, and where none can be taken.
	Accepted bool
	// Register is true when this master does not know the node's profile at
	// that boot: the agent should send a report.
	Register bool
	// Err is a [record.RefusedError] or [record.FieldError] when the beat
	// cannot be taken.
	Err error
}

// NodeQuery chooses nodes. The zero NodeQuery asks for the first 50 by id.
type NodeQuery struct {
	Status Status            `json:"status"` // empty: any
	Labels map[string]string `json:"labels"` // all must match
	// Q matches, whatever the case, a part of the id, the hostname, an address,
	// a label or the name or sid of a VM.
	Q        string  `json:"q"`
	Location string  `json:"location"` // country or city, whatever the case
	MinFree  MinFree `json:"min_free"`
	// Sort is one of node_id (the default), hostname, status, location,
	// last_seen, created_at, updated_at, free_cru, free_mru, free_sru, free_hru,
	// free_slices, vms; with "-" before it, descending. Ties go by node id.
	Sort  string `json:"sort"`
	Limit int    `json:"limit"` // 0: 50; at most 1,000
	// Cursor continues after the page that returned it, with the same Sort. It
	// stays valid while nodes come and go.
	Cursor         string `json:"cursor"`
	IncludeRemoved bool   `json:"include_removed"`
}

// MinFree is the least free capacity that a node must have: cores, bytes and
// slices; zero: any.
type MinFree struct {
	CRU    float64 `json:"cru"`
	MRU    uint64  `json:"mru"`
	SRU    uint64  `json:"sru"`
	HRU    uint64  `json:"hru"`
	Slices uint64  `json:"slices"`
}

// NodePage is one page of nodes.
type NodePage struct {
	Nodes      []Node `json:"nodes"`
	Total      int    `json:"total"` // nodes that match, over all pages
	NextCursor string `json:"next_cursor,omitempty"`
}

// VMQuery chooses VMs of nodes that are not removed, ordered by sid, then node.
type VMQuery struct {
	NodeID string `json:"node_id"`
	State  string `json:"state"`
	Q      string `json:"q"`     // part of the sid, the name or the address
	Limit  int    `json:"limit"` // 0: 50; at most 1,000
	Cursor string `json:"cursor"`
}

// VMPage is one page of VMs.
type VMPage struct {
	VMs        []VM   `json:"vms"`
	Total      int    `json:"total"`
	NextCursor string `json:"next_cursor,omitempty"`
}

// MasterStatus is how this master sees another.
type MasterStatus string

// The statuses of a master.
const (
	MasterSelf    MasterStatus = "self"
	MasterAlive   MasterStatus = "alive"
	MasterSuspect MasterStatus = "suspect"
	MasterDown    MasterStatus = "down"
	MasterLeft    MasterStatus = "left"
)

// Master is one explorer of the grid, as this one sees it.
type Master struct {
	ID        string       `json:"id"` // libp2p peer id
	Name      string       `json:"name"`
	RPCURLs   []string     `json:"rpc_urls"`
	UIURLs    []string     `json:"ui_urls"`
	MeshAddrs []string     `json:"mesh_addrs"` // multiaddrs
	Status    MasterStatus `json:"status"`
	Version   string       `json:"version"`
	LastSeen  time.Time    `json:"last_seen"`
	RTTms     float64      `json:"rtt_ms"` // 0: not measured
	Nodes     int          `json:"nodes"`  // records it holds, removed ones not counted
	Digest    string       `json:"digest"` // hex; equal digests mean equal records
	InSync    bool         `json:"in_sync"`
	LagS      float64      `json:"lag_s"`   // seconds since the digests were last equal
	Differs   int          `json:"differs"` // nodes that differ
	// ClockSkewS is how far its wall clock is ahead of ours, in seconds.
	ClockSkewS float64 `json:"clock_skew_s"`
}

// Stats sums up the grid. Removed nodes are not counted.
type Stats struct {
	Nodes   NodeCounts     `json:"nodes"`
	Total   Capacity       `json:"total"` // of all nodes
	Free    Capacity       `json:"free"`  // of online nodes that are not drained
	Slices  SliceCounts    `json:"slices"`
	VMs     VMCounts       `json:"vms"`
	Masters map[string]int `json:"masters"` // by status
	// Convergence is "in_sync" when every reachable master has our digest.
	Convergence Convergence `json:"convergence"`
	// Joining is set while this master is new and fetches what the others have.
	Joining *Joining `json:"joining,omitempty"`
	// History is what the records take on this master's disk.
	History HistoryStats `json:"history"`
}

// NodeCounts counts nodes.
type NodeCounts struct {
	Total   int `json:"total"`
	Online  int `json:"online"`
	Suspect int `json:"suspect"`
	Offline int `json:"offline"`
	Drained int `json:"drained"`
	Removed int `json:"removed"` // not in Total
}

// SliceCounts counts slices of online nodes.
type SliceCounts struct {
	Total uint64 `json:"total"`
	Free  uint64 `json:"free"`
}

// VMCounts counts VMs.
type VMCounts struct {
	Total   int            `json:"total"`
	ByState map[string]int `json:"by_state"`
}

// Convergence tells whether the masters hold the same.
type Convergence struct {
	InSync bool    `json:"in_sync"`
	Digest string  `json:"digest"`
	LagS   float64 `json:"lag_s"` // the worst over reachable masters
}

// EventKind is what an [Event] is about.
type EventKind string

// The kinds of events.
const (
	NodeEvent   EventKind = "node"
	VMEvent     EventKind = "vm"
	MasterEvent EventKind = "master"
)

// Event says that something changed, and carries it as it is now. Changes that
// follow each other quickly may arrive as one.
type Event struct {
	Cursor string    // resumes after this event
	Kind   EventKind // which one of the fields below is set
	Node   *Node
	VM     *VM // with State "deleted" when it is gone
	Master *Master
}

// VMDeleted is the state of a VM in the event that says it is gone.
const VMDeleted = "deleted"
