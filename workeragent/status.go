package workeragent

import (
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// How an explorer stands with the agent.
const (
	StateConnecting  = "connecting"  // not asked yet
	StateRegistered  = "registered"  // the last heartbeat went well
	StateUnreachable = "unreachable" // no answer, or one that heals by itself
	StateRefused     = "refused"     // somebody has to do something, see the error
	StateSuperseded  = "superseded"  // it knows a later account of this node
	StateStandby     = "standby"     // another address leads to the same master
)

// How the compute service stands with the agent.
const (
	ComputeNone    = "none"    // none is configured
	ComputeAbsent  = "absent"  // it has not answered since the agent started
	ComputeOK      = "ok"      // it answers
	ComputeLost    = "lost"    // it stopped answering; VMs are listed as they were
	ComputeUnknown = "unknown" // for longer than the grace time; so are the VMs
)

// Status is how a running agent stands.
type Status struct {
	NodeID    string           `json:"node_id"`
	KeyID     string           `json:"key_id"` // libp2p peer id of the agent's key
	Version   string           `json:"version"`
	Boot      uint64           `json:"boot"`
	Seq       uint64           `json:"seq"` // the last one used
	StartedAt time.Time        `json:"started_at"`
	Explorers []ExplorerStatus `json:"explorers"`
	Compute   ComputeStatus    `json:"compute"`
	Tunnels   []string         `json:"tunnels,omitempty"` // ids of the masters that there are tunnels to
	// Account is the newest account; nil before the first.
	Account *record.Report `json:"account"`
}

// ExplorerStatus is how one explorer stands with the agent.
type ExplorerStatus struct {
	Address   string     `json:"address"`             // of several, the one in use
	Master    string     `json:"master,omitempty"`    // id of the master that it leads to, once known
	Name      string     `json:"name,omitempty"`      // of that master
	Learned   bool       `json:"learned"`             // from a master's answer, not from the configuration
	State     string     `json:"state"`               // one of the State constants
	Since     time.Time  `json:"since"`               // when State began
	LastBeat  *time.Time `json:"last_beat,omitempty"` // the last heartbeat that went well
	LastError string     `json:"last_error,omitempty"`
	Failures  int        `json:"failures"`     // in a row
	IntervalS float64    `json:"interval_s"`   // seconds between heartbeats
	Accepted  uint64     `json:"accepted_seq"` // seq of the last account it has accepted
}

// well reports whether the last heartbeat went well.
func (s *ExplorerStatus) well() bool { return s.Failures == 0 && s.LastBeat != nil }

// holds reports whether the address still counts as leading to its master.
func (s *ExplorerStatus) holds() bool {
	return s.Failures == 0 || s.Failures < givenUp && s.LastBeat != nil
}

// settled reports whether it is known where the address leads, or that it leads
// nowhere for now.
func (s *ExplorerStatus) settled() bool { return s.Master != "" || s.Failures > 0 || s.LastBeat != nil }

func (s *ExplorerStatus) enter(state string) {
	if s.State != state {
		s.State, s.Since = state, time.Now()
	}
}

// ComputeStatus is how the compute service stands with the agent.
type ComputeStatus struct {
	Address   string    `json:"address,omitempty"`
	State     string    `json:"state"` // one of the Compute constants
	Since     time.Time `json:"since"`
	LastError string    `json:"last_error,omitempty"`
}
