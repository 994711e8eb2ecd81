package query

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
	// AcknowledgedAge is for how long an answer stands without a report: a node reports
	// its VMs a few seconds after they have changed, if it can.
	AcknowledgedAge = time.Minute
	// ReportDelay is how long after an answer a report may arrive whose VMs were listed
	// before it.
	ReportDelay = 3 * time.Second
	// MaxAcknowledged bounds the answers that are remembered.
	MaxAcknowledged = 4096
)

// Acknowledged are the VMs that nodes have told callers of, through this master, and that
// their reports do not mention yet: who was told that a VM is deployed can call it at once,
// and who deleted one does not find it any more. It is in memory, of this master alone,
// and no decision about records reads it.
type Acknowledged struct {
	some atomic.Bool // there are any; the only thing that is looked at where there are none

	mu    sync.Mutex // guards nodes, count
	nodes map[string][]acknowledgedVM
	count int
}

// acknowledgedVM is one answer. A VM that is gone has the state record.VMDeleted.
type acknowledgedVM struct {
	vm      record.VM
	version record.Version // of the node's VMs when it came
	at      time.Time
}

// Add takes an answer that came when the node's report had the given entry. It reports
// whether there is room.
func (a *Acknowledged) Add(now time.Time, e *table.Entry, vm record.VM) bool {
	one := acknowledgedVM{vm, e.State.VMsVersion(), now}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.nodes == nil {
		a.nodes = map[string][]acknowledgedVM{}
	}
	if a.count >= MaxAcknowledged {
		for id := range a.nodes {
			a.keep(id, func(o acknowledgedVM) bool { return now.Sub(o.at) <= AcknowledgedAge })
		}
	}
	id := one.vm.NodeID
	a.keep(id, func(o acknowledgedVM) bool { return o.vm.SID != one.vm.SID })
	if a.count >= MaxAcknowledged {
		return false
	}
	a.nodes[id] = append(a.nodes[id], one)
	a.count++
	a.some.Store(true)
	return true
}

// keep drops the answers of a node but some. It is called with mu held.
func (a *Acknowledged) keep(id string, some func(acknowledgedVM) bool) {
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
func (a *Acknowledged) of(now time.Time, e *table.Entry) []acknowledgedVM {
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
		mentioned := slices.ContainsFunc(reported, func(vm record.VM) bool { return vm.SID == one.vm.SID })
		switch {
		case age > AcknowledgedAge:
			return false
		case mentioned && one.vm.State != record.VMDeleted:
			return false // the node says more of it itself
		case age <= ReportDelay:
			return true // what was reported may be older than the answer
		}
		return version.Compare(one.version) <= 0
	})
	return a.nodes[e.ID]
}

// Forget drops the answers of a node of which its report speaks, and those that have aged.
func (a *Acknowledged) Forget(now time.Time, e *table.Entry) { a.of(now, e) }

// Any reports whether a node has answered what its report does not say.
func (a *Acknowledged) Any(now time.Time, e *table.Entry) bool { return len(a.of(now, e)) > 0 }

// Len returns how many answers are remembered.
func (a *Acknowledged) Len() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.count
}

// VMs returns the VMs of a node as it reported them, with what it has answered since.
// The entry is there and not removed.
func (a *Acknowledged) VMs(now time.Time, e *table.Entry) []record.VM {
	vms, answers := e.ListVMs(), a.of(now, e)
	if len(answers) > 0 {
		vms = slices.Clone(vms)
	}
	for _, one := range answers {
		at, known := slices.BinarySearchFunc(vms, one.vm.SID, func(vm record.VM, sid string) int { return strings.Compare(vm.SID, sid) })
		switch gone := one.vm.State == record.VMDeleted; {
		case gone && known:
			vms = slices.Delete(vms, at, at+1)
		case !gone && !known:
			vms = slices.Insert(vms, at, one.vm)
		}
	}
	return vms
}

// Counts counts the VMs by state.
func (a *Acknowledged) Counts(now time.Time, e *table.Entry) []table.Count {
	if len(a.of(now, e)) == 0 {
		return e.VMs
	}
	return table.CountVMs(a.VMs(now, e))
}
