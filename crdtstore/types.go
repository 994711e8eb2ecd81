package crdtstore

import (
	"fmt"
	"math"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/query"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/stats"
)

// The values of the merge core that the API speaks of; package record documents their
// fields.
type (
	// Report is a node's account of itself: what it is and which VMs it runs, at one
	// version of (boot, seq), which only the node advances. It may be signed.
	Report = record.Report
	// Node is all that is known of a node: its account, the operators' overrides, and
	// whether it lives.
	Node = record.Node
	// VM is a virtual machine as its node has reported it.
	VM = record.VM
	// Stats sums up the grid.
	Stats = stats.Stats
	// Status says whether a node lives. It is computed when it is read.
	Status = record.Status
)

// The statuses of a node.
const (
	Online  = record.Online  // a reachable master has heard it within Config.OfflineAfter
	Suspect = record.Suspect // who would know is gone, or this master has only just started
	Offline = record.Offline // no reachable master hears it
)

// Receipt answers a report. Not to accept an account is no error: a late or repeated
// one is as good as a newer one that is known.
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
	Usage   *record.Usage `json:"usage"`
	UptimeS *uint64       `json:"uptime_s"`
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

// BeatResult answers a heartbeat. The zero BeatResult says that it was late.
type BeatResult struct {
	// Accepted is false where a newer beat is known, and where none can be taken yet.
	Accepted bool
	// Register is true when this master does not know the node's profile at
	// that boot: the agent should send a report.
	Register bool
}

// How nodes and VMs are listed; the fields are documented at the types.
type (
	// NodeQuery chooses nodes: those that match all that is set. The zero NodeQuery asks
	// for the first 50 by id.
	NodeQuery = query.NodeQuery
	// MinFree is the least free capacity that a node must have, in cores (CRU), bytes of
	// memory (MRU), SSD (SRU) and HDD (HRU), and slices. Zero: any.
	MinFree = query.MinFree
	// NodePage is one page of nodes.
	NodePage = query.NodePage
	// VMQuery chooses VMs of nodes that are not removed, ordered by sid, then node. The
	// zero VMQuery asks for the first 50.
	VMQuery = query.VMQuery
	// VMPage is one page of VMs.
	VMPage = query.VMPage
)

// MasterStatus is how this master sees another.
type MasterStatus string

// The statuses of a master.
const (
	MasterSelf    MasterStatus = "self"                           // this one
	MasterAlive                = MasterStatus(membership.Alive)   // heard within 5 s
	MasterSuspect              = MasterStatus(membership.Suspect) // silent for longer, or not heard but by other masters; what it alone hears does not count
	MasterDown                 = MasterStatus(membership.Down)    // silent for 15 s, or not heard in this run, and no other master hears it
	MasterLeft                 = MasterStatus(membership.Left)    // closed on purpose, and said so
	// MasterNeverMet is a configured peer that this master has never met, nor heard of by
	// way of others, or that was forgotten since. Master.Cause says why.
	MasterNeverMet MasterStatus = "never_met"
)

// Cause is what is wrong with a master, in one word: why a configured peer was never met
// (empty: it was not tried yet), or that two processes have one identity.
type Cause string

// The causes. Master.Reason says more.
const (
	CauseUnreachable Cause = "unreachable"  // no answer, no route, or its name cannot be resolved
	CauseRefused     Cause = "refused"      // nothing listens there, or that master does not take this one
	CauseSecret      Cause = "secret"       // the cluster secrets differ, or only one side has one
	CauseNoMeshPort  Cause = "no_mesh_port" // something else listens there, such as a master's API
	// CauseCollision: two processes have the identity of this master, as after a copy of
	// its data directory was started. Master.Reason says which one counts.
	CauseCollision Cause = "identity_collision"
)

// Master is one master of the grid, as this one sees it. What it says of itself is as
// of its last pulse, about a second ago while it is alive.
type Master struct {
	ID        string       `json:"id"`         // libp2p peer id
	Name      string       `json:"name"`       // need not be unique
	RPCURLs   []string     `json:"rpc_urls"`   // as in its Config.Endpoints
	UIURLs    []string     `json:"ui_urls"`    // as in its Config.Endpoints
	MeshAddrs []string     `json:"mesh_addrs"` // multiaddrs with /p2p/ID, good for Config.Peers
	EdgeAddrs []string     `json:"edge_addrs"` // multiaddrs with /p2p/ID, for the tunnels of agents
	Status    MasterStatus `json:"status"`
	Version   string       `json:"version"`   // of its program
	LastSeen  time.Time    `json:"last_seen"` // by this master's clock
	RTTms     float64      `json:"rtt_ms"`    // round trip in milliseconds; 0: not measured
	Nodes     int          `json:"nodes"`     // records it holds, removed ones not counted
	Digest    string       `json:"digest"`    // hex; equal digests mean equal records
	InSync    bool         `json:"in_sync"`   // it is alive and its digest was ours
	LagS      float64      `json:"lag_s"`     // seconds since the digests were last equal; 0: they are
	Differs   int          `json:"differs"`   // nodes that differed when records were last compared
	// ClockSkewS is how far its wall clock is ahead of ours, in seconds.
	ClockSkewS float64 `json:"clock_skew_s"`
	// Hears is how many nodes it hears itself, not by way of others.
	Hears   int      `json:"hears"`
	HeardBy []string `json:"heard_by"` // ids of the other masters that are alive and say that they hear it
	// Direct: what it says arrives here in one hop, and what this master says arrives
	// there so. Otherwise it comes by way of others, or is fetched.
	Direct bool `json:"direct"`
	// PartiallyConnected: it hears less than half of the nodes that another master hears.
	PartiallyConnected bool   `json:"partially_connected"`
	Reason             string `json:"reason,omitempty"` // why it is partially connected or suspect, or was never met
	// SettingsDiffer are the settings that should be the same on all masters and are not,
	// each as "name: value there, value here". Only of masters that are alive.
	SettingsDiffer []string `json:"settings_differ"`
	// Cause and Since are set where Status is MasterNeverMet, and while two processes have
	// the identity of the master; Since is also set of one that is alive and not Direct, and
	// has not been for a while. Of a master that was never met Name is the
	// peer as configured, ID is empty unless it is known, and MeshAddrs are what the peer
	// stands for.
	Cause Cause     `json:"cause,omitempty"`
	Since time.Time `json:"since,omitzero"` // since when that is so
}

// ChangeKind is what a [Change] is about.
type ChangeKind string

// The kinds of changes.
const (
	NodeChange   ChangeKind = "node"   // a node's record or status has changed
	VMChange     ChangeKind = "vm"     // a VM is new, has changed or is gone
	MasterChange ChangeKind = "master" // a master has come, gone or changed
	LogChange    ChangeKind = "log"    // something was added to the log of what happened
)

// Change says that something changed. It carries the node or master as it is when the
// change is read, so a reader that is behind sees the latest at once, and may see it
// more than once. What happened is told as it was, see [Store.Events].
type Change struct {
	Cursor string     // resumes after this change, see Store.Watch
	Kind   ChangeKind // which one of the fields below is set
	Node   *Node      // with RemovedAt set when it was removed
	VM     *VM        // with State VMDeleted when it is gone
	Master *Master

	Event *Event
}

// VMDeleted is the state of a VM in the change that says it is gone.
const VMDeleted = record.VMDeleted
