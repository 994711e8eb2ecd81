package crdtstore

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const (
	// conflictAge is for how long a sender is shown that says nothing more. Agents that are
	// turned away come again every few minutes.
	conflictAge = 15 * time.Minute

	maxConflicts       = 1000 // nodes whose other senders are remembered
	maxConflictSenders = 4    // of one node
)

// Why two senders cannot both be a node.
const (
	conflictKey      = "another key claims this node id"
	conflictUnsigned = "an unsigned sender claims this node id"
	conflictMachine  = "another machine speaks with the key of this node"
	conflictTurns    = "two machines take turns as this node"
)

// conflicts are the senders that claim the id of a node and are turned away, so nothing of
// them is on record: another key, or an older boot of the same key on another machine.
// Records of several keys, as they come together after a split, are not among them. They
// are kept in memory by each master that hears them, and agents speak to all masters.
type conflicts struct {
	mu     sync.Mutex // guards what follows
	byNode map[string][]conflictSender
}

type conflictSender struct {
	claim   record.ConflictClaim
	machine string
	reason  string
	times   int
	last    time.Time
}

// note remembers a sender. It reports whether readers see something new.
func (s *conflicts) note(now time.Time, r *Report, reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byNode == nil {
		s.byNode = map[string][]conflictSender{}
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
	if list == nil && len(s.byNode) >= maxConflicts && !s.forget(now) {
		return false
	}
	if len(list) >= maxConflictSenders {
		oldest := slices.MinFunc(list, func(a, b conflictSender) int { return a.last.Compare(b.last) })
		list = slices.DeleteFunc(list, func(v conflictSender) bool { return v.last.Equal(oldest.last) })
	}
	v := conflictSender{machine: r.MachineID, reason: reason, times: 1, last: now, claim: record.ConflictClaim{
		PublicKey: r.PublicKey, Boot: r.Boot, Seq: r.Seq, Hostname: r.Hostname, SocketPath: r.SocketPath,
		Since: now.UTC().Round(0),
	}}
	s.byNode[r.NodeID] = append(list, v)
	return v.shown(now)
}

// shown reports whether a sender is worth showing. A machine may change its name once.
func (v *conflictSender) shown(now time.Time) bool {
	return now.Sub(v.last) < conflictAge && (v.reason != conflictTurns || v.times > 1)
}

// forget makes room. The caller holds mu.
func (s *conflicts) forget(now time.Time) (some bool) {
	for id, list := range s.byNode {
		if !slices.ContainsFunc(list, func(v conflictSender) bool { return now.Sub(v.last) < conflictAge }) {
			delete(s.byNode, id)
			some = true
		}
	}
	return some
}

// mark adds the other senders of a node to its view.
func (s *conflicts) mark(now time.Time, n *Node) {
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
		out.Since = laterOf(out.Since, v.claim.Since)
		out.Claims = append(out.Claims, v.claim)
	}
	if added {
		n.Conflict = &out
	}
}

// contested returns whether the view of an entry shows a conflict, for callers that look at
// many.
func (s *Store) contested(now time.Time) func(e *table.Entry) bool {
	s.conflicts.mu.Lock()
	ids := make(map[string]bool, len(s.conflicts.byNode))
	for id := range s.conflicts.byNode {
		ids[id] = true
	}
	s.conflicts.mu.Unlock()
	return func(e *table.Entry) bool {
		if len(e.State.Claims) < 2 && !ids[e.ID] {
			return false
		}
		n := e.Node()
		s.conflicts.mark(now, &n)
		return n.Conflict != nil
	}
}

// noteConflict looks at a report for a sign that two senders claim one node: e is what was
// known of it before, and refused why it was turned away, if it was.
func (s *Store) noteConflict(now time.Time, e *table.Entry, r *Report, accepted bool, refused *RefusedError) {
	if e == nil || e.Removed || accepted && len(r.PublicKey) > 0 {
		return // most often, and nothing of it is looked at
	}
	known := e.Node()
	other := r.MachineID != known.MachineID && r.MachineID != "" && known.MachineID != "" ||
		r.Hostname != known.Hostname && r.Hostname != "" && known.Hostname != ""
	reason := ""
	switch {
	case refused != nil && refused.Reason == record.RefusedOtherKey:
		reason = conflictKey
	case refused != nil && refused.Reason == record.RefusedUnsigned && known.Signed:
		reason = conflictUnsigned
	case refused != nil || !other:
		return
	case !accepted && known.Signed:
		reason = conflictMachine
	case accepted && !known.Signed && len(r.PublicKey) == 0 && now.Sub(s.board.LastHeard(r.NodeID)) < s.cfg.OfflineAfter:
		// Who spoke before is in conflict with who speaks now.
		was := *r
		was.Boot, was.Seq, was.Profile = known.Boot, known.Seq, known.Profile
		r, reason = &was, conflictTurns
	default:
		return
	}
	if s.conflicts.note(now, r, reason) {
		s.log.Warn("two senders claim one node id", "node", r.NodeID, "reason", reason, "host", r.Hostname, "stands", known.Hostname)
		s.changes.Add(change{kind: NodeChange, id: r.NodeID})
		s.logEvent(Event{Kind: NodeEvent, Type: EventConflict, NodeID: r.NodeID, Text: r.NodeID + ": " + reason})
	}
}
