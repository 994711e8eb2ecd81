package conflicts

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const (
	// maxAge is for how long a sender is shown that says nothing more. Agents that are
	// turned away come again every few minutes.
	maxAge = 15 * time.Minute

	maxNodes   = 1000 // nodes whose other senders are remembered
	maxSenders = 4    // of one node
)

// Why two senders cannot both be a node.
const (
	otherKey     = "another key claims this node id"
	unsigned     = "an unsigned sender claims this node id"
	otherMachine = "another machine speaks with the key of this node"
	turns        = "two machines take turns as this node"
)

// Senders are those that claim the id of a node and are turned away, so nothing of them is
// on record: another key, or an older boot of the same key on another machine. Records of
// several keys, as they come together after a split, are not among them. Each master that
// hears them keeps its own, and agents speak to all masters. The zero value holds none. All
// methods may be called concurrently.
type Senders struct {
	mu     sync.Mutex // guards what follows
	byNode map[string][]sender
}

type sender struct {
	claim   record.ConflictClaim
	machine string
	reason  string
	times   int
	last    time.Time
}

// Outcome is what became of a report.
type Outcome struct {
	Before   *table.Entry         // what was known of the node; nil: nothing
	Prevails bool                 // nothing newer of the node is on record
	Refused  *record.RefusedError // why the sender was turned away, if it was
}

// Found says that two senders claim one node, which readers did not see before.
type Found struct {
	Reason     string
	Other      string // hostname of the sender that does not prevail
	Prevailing string // hostname on record before the report
}

// Look looks at a report for a sign that two senders claim one node; alive tells whether
// that was heard of late. It returns nil where readers see nothing new.
func (s *Senders) Look(now time.Time, r *record.Report, o Outcome, alive func() bool) *Found {
	e := o.Before
	if e == nil || e.Removed || o.Prevails && len(r.PublicKey) > 0 {
		return nil // most often, and nothing of it is looked at
	}
	known := e.Node()
	other := r.MachineID != known.MachineID && r.MachineID != "" && known.MachineID != "" ||
		r.Hostname != known.Hostname && r.Hostname != "" && known.Hostname != ""
	reason := ""
	switch {
	case o.Refused != nil && o.Refused.Reason == record.RefusedOtherKey:
		reason = otherKey
	case o.Refused != nil && o.Refused.Reason == record.RefusedUnsigned && known.Signed:
		reason = unsigned
	case o.Refused != nil || !other:
		return nil
	case !o.Prevails && known.Signed:
		reason = otherMachine
	case o.Prevails && !known.Signed && len(r.PublicKey) == 0 && alive():
		// Who spoke before is in conflict with who speaks now.
		was := *r
		was.Boot, was.Seq, was.Profile = known.Boot, known.Seq, known.Profile
		r, reason = &was, turns
	default:
		return nil
	}
	if !s.note(now, r, reason) {
		return nil
	}
	return &Found{Reason: reason, Other: r.Hostname, Prevailing: known.Hostname}
}

// note remembers a sender. It reports whether readers see something new.
func (s *Senders) note(now time.Time, r *record.Report, reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byNode == nil {
		s.byNode = map[string][]sender{}
	}
	list := s.byNode[r.NodeID]
	for i := range list {
		v := &list[i]
		if v.machine == r.MachineID && v.claim.Hostname == r.Hostname && string(v.claim.PublicKey) == string(r.PublicKey) {
			before := v.shown(now)
			v.times++
			v.last, v.reason = now, reason
			v.claim.Boot, v.claim.Seq, v.claim.SocketPath = r.Boot, r.Seq, r.SocketPath
			return !before && v.shown(now)
		}
	}
	if list == nil && len(s.byNode) >= maxNodes && !s.forget(now) {
		return false
	}
	if len(list) >= maxSenders {
		oldest := slices.MinFunc(list, func(a, b sender) int { return a.last.Compare(b.last) })
		list = slices.DeleteFunc(list, func(v sender) bool { return v.last.Equal(oldest.last) })
	}
	v := sender{machine: r.MachineID, reason: reason, times: 1, last: now, claim: record.ConflictClaim{
		PublicKey: r.PublicKey, Boot: r.Boot, Seq: r.Seq, Hostname: r.Hostname, SocketPath: r.SocketPath,
		Since: now.UTC().Round(0),
	}}
	s.byNode[r.NodeID] = append(list, v)
	return v.shown(now)
}

// shown reports whether a sender is worth showing. A machine may change its name once.
func (v *sender) shown(now time.Time) bool {
	return now.Sub(v.last) < maxAge && (v.reason != turns || v.times > 1)
}

// forget makes room. The caller holds mu.
func (s *Senders) forget(now time.Time) (some bool) {
	before := len(s.byNode)
	maps.DeleteFunc(s.byNode, func(_ string, list []sender) bool {
		return !slices.ContainsFunc(list, func(v sender) bool { return now.Sub(v.last) < maxAge })
	})
	return len(s.byNode) < before
}

// Mark adds the other senders of a node to its view.
func (s *Senders) Mark(now time.Time, n *record.Node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.byNode[n.NodeID]
	if len(list) == 0 || n.RemovedAt != nil {
		return
	}
	out := record.Conflict{}
	if n.Conflict != nil {
		out = *n.Conflict
		out.Claims = slices.Clone(out.Claims)
	} else {
		out.Claims = []record.ConflictClaim{{
			PublicKey: n.PublicKey, Boot: n.Boot, Seq: n.Seq, Hostname: n.Hostname, SocketPath: n.SocketPath,
			Since: n.CreatedAt, Shown: true,
		}}
	}
	added := false
	for _, v := range list {
		// One whose account stands by now is not in conflict with itself.
		itself := v.machine == n.MachineID && v.claim.Hostname == n.Hostname && string(v.claim.PublicKey) == string(n.PublicKey)
		if !v.shown(now) || itself {
			continue
		}
		added = true
		out.Reason = cmp.Or(out.Reason, v.reason)
		if out.Since.Before(v.claim.Since) {
			out.Since = v.claim.Since
		}
		out.Claims = append(out.Claims, v.claim)
	}
	if added {
		n.Conflict = &out
	}
}

// Contested returns whether the view of an entry shows a conflict, for callers that look at
// many.
func (s *Senders) Contested(now time.Time) func(e *table.Entry) bool {
	s.mu.Lock()
	ids := make(map[string]bool, len(s.byNode))
	for id := range s.byNode {
		ids[id] = true
	}
	s.mu.Unlock()
	return func(e *table.Entry) bool {
		if len(e.State.Claims) < 2 && !ids[e.ID] {
			return false
		}
		n := e.Node()
		s.Mark(now, &n)
		return n.Conflict != nil
	}
}
