package crdtstore

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const (
	// acknowledgedAge is for how long an answer stands without a report: a node reports
	// its VMs a few seconds after they have changed, if it can.
	acknowledgedAge = time.Minute
	// reportDelay is how long after an answer a report may arrive whose VMs were listed
	// before it.
	reportDelay = 3 * time.Second
	// maxAcknowledged bounds the answers that are remembered.
	maxAcknowledged = 4096
)

// acknowledged are the VMs that nodes have told callers of, through this master, and that
// their reports do not mention yet: who was told that a VM is deployed can call it at once,
// and who deleted one does not find it any more. It is in memory, of this master alone,
// and no decision about records reads it.
type acknowledged struct {
	some atomic.Bool // there are any; the only thing that is looked at where there are none

	mu    sync.Mutex
	nodes map[string][]acknowledgedVM
	count int
}

// acknowledgedVM is one answer. A VM that is gone has the state VMDeleted.
type acknowledgedVM struct {
	vm      VM
	version record.Version // of the node's VMs when it came
	at      time.Time
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
	if s.acknowledged.add(now, acknowledgedVM{vm, e.State.VMsVersion(), now}) {
		s.changes.Add(change{kind: VMChange, id: vm.NodeID, vms: []VM{vm}})
	}
}

// add reports whether there is room for an answer.
func (a *acknowledged) add(now time.Time, one acknowledgedVM) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nodes == nil {
		a.nodes = map[string][]acknowledgedVM{}
	}
	if a.count >= maxAcknowledged {
		for id := range a.nodes {
			a.keep(id, func(o acknowledgedVM) bool { return now.Sub(o.at) <= acknowledgedAge })
		}
	}
	id := one.vm.NodeID
	a.keep(id, func(o acknowledgedVM) bool { return o.vm.SID != one.vm.SID })
	if a.count >= maxAcknowledged {
		return false
	}
	a.nodes[id] = append(a.nodes[id], one)
	a.count++
	a.some.Store(true)
	return true
}

// keep drops the answers of a node but some. It is called with mu held.
func (a *acknowledged) keep(id string, some func(acknowledgedVM) bool) {
	before := a.nodes[id]
	if !slices.ContainsFunc(before, func(one acknowledgedVM) bool { return !some(one) }) {
		return
	}
	var rest []acknowledgedVM
	for _, one := range before {
		if some(one) {
			rest = append(rest, one)
		}
	}
	a.count -= len(before) - len(rest)
	if len(rest) == 0 {
		delete(a.nodes, id)
	} else {
		a.nodes[id] = rest
	}
	a.some.Store(a.count > 0)
}

// of returns the answers of a node that its report does not speak of yet.
func (a *acknowledged) of(now time.Time, e *table.Entry) []acknowledgedVM {
	if !a.some.Load() {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.nodes[e.ID]) == 0 {
		return nil
	}
	version, reported := e.State.VMsVersion(), e.ListVMs()
	a.keep(e.ID, func(one acknowledgedVM) bool {
		age := now.Sub(one.at)
		mentioned := slices.ContainsFunc(reported, func(vm VM) bool { return vm.SID == one.vm.SID })
		switch {
		case age > acknowledgedAge:
			return false
		case mentioned && one.vm.State != VMDeleted:
			return false // the node says more of it itself
		case age <= reportDelay:
			return true // what was reported may be older than the answer
		}
		return version.Compare(one.version) <= 0
	})
	return a.nodes[e.ID]
}

// vmsOf returns the VMs of a node as it reported them, with what it has answered since.
// The entry is there and not removed.
func (s *Store) vmsOf(now time.Time, e *table.Entry) []VM {
	vms, answers := e.ListVMs(), s.acknowledged.of(now, e)
	if len(answers) > 0 {
		vms = slices.Clone(vms)
	}
	for _, one := range answers {
		at, known := slices.BinarySearchFunc(vms, one.vm.SID, func(vm VM, sid string) int { return strings.Compare(vm.SID, sid) })
		switch gone := one.vm.State == VMDeleted; {
		case gone && known:
			vms = slices.Delete(vms, at, at+1)
		case !gone && !known:
			vms = slices.Insert(vms, at, one.vm)
		}
	}
	return vms
}

// vmCounts counts the VMs of vmsOf by state.
func (s *Store) vmCounts(now time.Time, e *table.Entry) []table.Count {
	if len(s.acknowledged.of(now, e)) == 0 {
		return e.VMs
	}
	return table.CountVMs(s.vmsOf(now, e))
}
