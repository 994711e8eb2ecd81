package events

import (
	"fmt"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// NodeChanged logs that a node is new, is back or has expired. before is nil for a new
// node; after, for one that was dropped for good.
func (l *Log) NodeChanged(id string, before, after *table.Entry) {
	if after == nil || after.Removed {
		l.mu.Lock()
		delete(l.statuses, id)
		l.mu.Unlock()
	}
	if after == nil || l.now() != live {
		return
	}
	e := Event{Kind: KindNode, NodeID: id}
	switch {
	case before == nil && !after.Removed:
		e.Type, e.Text = TypeNew, id+" is new"
	case before != nil && before.Removed && !after.Removed:
		e.Type, e.Text = TypeBack, id+" is back, it has registered anew"
	case before != nil && !before.Removed && after.Removed && after.State.Removal.Reason == record.ReasonExpired:
		e.Type, e.Master = TypeExpired, after.State.Removal.Master
		e.Text = id + " has expired, it was silent for too long"
	default:
		return
	}
	if !after.Removed {
		l.setStatus(id, "") // it is not online again when it is first heard
	}
	l.Add(e)
}

// setStatus returns the status that was set before, and whether there was one.
func (l *Log) setStatus(id string, to record.Status) (was record.Status, known bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was, known = l.statuses[id]
	if isNew := known && was == ""; !isNew || to == record.Online {
		l.statuses[id] = to
	}
	return was, known
}

// StatusChanged logs that a node, which is not removed, has another status. Two changes
// are not worth a line: that a node which is new, or was known before this run, is heard;
// and that a new one is not yet, for its record travels faster than its pulse.
func (l *Log) StatusChanged(id string, status record.Status) {
	was, known := l.setStatus(id, status)
	isNew := known && was == ""
	if was == status || isNew || !known && status != record.Offline || l.now() != live {
		return
	}
	e := Event{Kind: KindNode, Type: string(status), NodeID: id}
	switch status {
	case record.Online:
		e.Text = id + " is online again"
	default:
		e.Text = id + " is " + string(status)
		if n, err := l.opts.Node(id); err == nil && n.Reason != "" {
			e.Text += ": " + n.Reason
		} else if err == nil && !n.LastSeen.IsZero() {
			e.Text += ", last heard at " + n.LastSeen.Format(time.RFC3339)
		}
	}
	l.Add(e)
}

// VMsChanged logs which VMs of a node are new or gone, or in another state; was are those
// that it had, and changed those that differ. What becomes of the VMs of a node that comes
// and goes is said by that.
func (l *Log) VMsChanged(before, after *table.Entry, was, changed []record.VM) {
	if before == nil || before.Removed || after.Removed || l.now() != live {
		return
	}
	states := make(map[string]string, len(was))
	for _, v := range was {
		states[v.SID] = v.State
	}
	for _, v := range changed {
		e := Event{Kind: KindVM, NodeID: after.ID, VM: v.SID}
		name := v.Name
		if name == "" {
			name = v.SID
		}
		switch state, had := states[v.SID]; {
		case v.State == record.VMDeleted && had:
			e.Type, e.Text = TypeGone, fmt.Sprintf("VM %s is gone from %s", name, after.ID)
		case !had:
			e.Type, e.Text = TypeNew, fmt.Sprintf("VM %s is new on %s, %s", name, after.ID, v.State)
		case state != v.State:
			e.Type, e.Text = TypeChanged, fmt.Sprintf("VM %s on %s is %s, was %s", name, after.ID, v.State, state)
		default:
			continue
		}
		l.Add(e)
	}
}

// MasterChanged logs the status of a master where it is another than before.
func (l *Log) MasterChanged(id string) {
	l.masters.Lock()
	defer l.masters.Unlock()
	status := l.opts.MasterStatus(id)
	was, known := l.masterStatus[id]
	if was == status {
		return
	}
	if status == "" {
		delete(l.masterStatus, id)
		return
	}
	l.masterStatus[id] = status
	e := Event{Kind: KindMaster, Type: status, Master: id}
	name := l.opts.Name(id)
	switch {
	case status == "alive" && known:
		e.Type, e.Text = TypeBack, name+" is back"
	case status == "alive":
		e.Type, e.Text = TypeJoined, name+" is here"
	case status == TypeSuspect:
		e.Text = name + " is silent; what it alone hears does not count"
	case status == TypeDown:
		e.Text = name + " is down"
	case status == TypeLeft:
		e.Text = name + " has left"
	default:
		return
	}
	l.Add(e)
}
