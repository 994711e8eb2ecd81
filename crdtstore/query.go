package crdtstore

import (
	"fmt"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/query"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Nodes returns a page of nodes. Errors: ErrCursor, [FieldError].
func (s *Store) Nodes(q NodeQuery) (NodePage, error) { return query.Nodes(s.table, s.listing(), q) }

// VMs returns a page of VMs. Errors: ErrCursor, [FieldError].
func (s *Store) VMs(q VMQuery) (VMPage, error) { return query.VMs(s.table, s.listing(), q) }

// VM returns the VM of the given sid; nodeID may be empty where the sid is
// enough: where several nodes have a VM of that sid, it is an error. Errors:
// ErrNotFound, [FieldError].
func (s *Store) VM(nodeID, sid string) (VM, error) {
	found := query.WithSID(s.table, s.listing(), nodeID, sid)
	switch len(found) {
	case 0:
		return VM{}, ErrNotFound
	case 1:
		return found[0], nil
	}
	return VM{}, &FieldError{Field: "node_id", Problem: fmt.Sprintf("is needed: %d nodes have a VM %q", len(found), sid)}
}

// Acknowledged notes what a node has answered to a call that made a VM, or that deleted
// one, which then has the state VMDeleted. Until the node's own report says it, but for a
// minute at most, this master shows the VM, or does not. vm.NodeID names the node. Nothing
// is noted of a VM or node that no report could have. It touches memory only.
func (s *Store) Acknowledged(vm VM) {
	e := s.table.Get(vm.NodeID)
	if e == nil || e.Removed || record.ValidVM(vm) != nil {
		return
	}
	now := time.Now()
	vm.AsOf = s.cfg.seams.Wall().UTC().Format(time.RFC3339)
	if s.acknowledged.Add(now, e, vm) {
		s.changes.Add(change{kind: VMChange, id: vm.NodeID, vms: []VM{vm}})
	}
}

// listing is what lists of nodes and VMs are made from beside the table.
type listing struct {
	*moment
	v         vital
	contested func(*table.Entry) bool // made when it is asked for
}

var _ query.Source = (*listing)(nil)

func (s *Store) listing() *listing { return &listing{moment: s.at(time.Now())} }

func (l *listing) Vital(e *table.Entry, v *query.Vital) {
	l.vital(e, &l.v)
	v.Status, v.Usage, v.LastSeen = l.v.status, l.v.Usage, l.lastSeen(&l.v)
}

func (l *listing) Conflict(e *table.Entry) bool {
	if l.contested == nil {
		l.contested = l.s.conflicts.Contested(l.now)
	}
	return l.contested(e)
}

func (l *listing) Node(e *table.Entry) Node { return l.show(e) }

func (l *listing) VMs(e *table.Entry) []VM { return l.s.acknowledged.VMs(l.now, e) }
