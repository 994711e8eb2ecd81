package crdtstore

import (
	"fmt"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// nodeChanged notes what of a change of a node's entry is worth a line. before is nil
// for a new node; after, for one that was dropped for good.
func (s *Store) nodeChanged(id string, before, after *table.Entry) {
	c := &s.events
	if after == nil || after.Removed {
		c.setStatus(id, nil)
	}
	if after == nil || c.now() != awake {
		return
	}
	o := Event{Kind: NodeEvent, NodeID: id}
	switch {
	case before == nil && !after.Removed:
		o.Type, o.Text = EventNew, id+" is new"
	case before != nil && before.Removed && !after.Removed:
		o.Type, o.Text = EventBack, id+" is back, it has registered anew"
	case before != nil && !before.Removed && after.Removed && after.State.Removal.Reason == record.ReasonExpired:
		o.Type, o.Master = EventExpired, after.State.Removal.Master
		o.Text = id + " has expired, it was silent for too long"
	default:
		return
	}
	if !after.Removed {
		fresh := Status("")
		c.setStatus(id, &fresh) // it is not online again when it is first heard
	}
	s.logEvent(o)
}

func (c *eventLog) setStatus(id string, to *Status) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if to == nil {
		delete(c.statuses, id)
		return
	}
	if c.statuses == nil {
		c.statuses = map[string]Status{}
	}
	c.statuses[id] = *to
}

// publishedStatus notes that a node has another status. Two changes are not worth a line:
// that a node which is new, or was known before this run, is heard; and that a new one
// is not yet, for its record travels faster than its pulse.
func (s *Store) publishedStatus(id string, status Status) {
	e := s.table.Get(id)
	if e == nil || e.Removed {
		return // its removal says it
	}
	c := &s.events
	c.mu.Lock()
	was, known := c.statuses[id]
	c.mu.Unlock()
	isNew := known && was == ""
	if was == status || isNew && status != Online {
		return
	}
	c.setStatus(id, &status)
	if isNew || !known && status != Offline || c.now() != awake {
		return
	}
	o := Event{Kind: NodeEvent, Type: string(status), NodeID: id}
	switch status {
	case Online:
		o.Text = id + " is online again"
	default:
		o.Text = id + " is " + string(status)
		if n, err := s.Node(id); err == nil && n.Reason != "" {
			o.Text += ": " + n.Reason
		} else if err == nil && !n.LastSeen.IsZero() {
			o.Text += ", last heard at " + n.LastSeen.Format(time.RFC3339)
		}
	}
	s.logEvent(o)
}

// vmsChanged notes which VMs of a node are new or gone, or in another state. What
// becomes of the VMs of a node that comes and goes is said by that.
func (s *Store) vmsChanged(before, after *table.Entry, was, vms []VM) {
	if before == nil || before.Removed || after.Removed || s.events.now() != awake {
		return
	}
	states := make(map[string]string, len(was))
	for _, v := range was {
		states[v.SID] = v.State
	}
	for _, v := range vms {
		o := Event{Kind: VMEvent, NodeID: after.ID, VM: v.SID}
		name := v.Name
		if name == "" {
			name = v.SID
		}
		switch state, had := states[v.SID]; {
		case v.State == VMDeleted && had:
			o.Type, o.Text = EventGone, fmt.Sprintf("VM %s is gone from %s", name, after.ID)
		case !had:
			o.Type, o.Text = EventNew, fmt.Sprintf("VM %s is new on %s, %s", name, after.ID, v.State)
		case state != v.State:
			o.Type, o.Text = EventChanged, fmt.Sprintf("VM %s on %s is %s, was %s", name, after.ID, v.State, state)
		default:
			continue
		}
		s.logEvent(o)
	}
}

// masterChanged tells watchers of a master, and notes its status where it is another.
func (s *Store) masterChanged(id string) {
	s.changes.Add(change{kind: MasterChange, id: id})
	c := &s.events
	c.masters.Lock()
	defer c.masters.Unlock()
	m, err := s.Master(id)
	if err != nil {
		delete(c.masterStatus, id)
		return
	}
	was, known := c.masterStatus[id]
	if was == m.Status {
		return
	}
	if c.masterStatus == nil {
		c.masterStatus = map[string]MasterStatus{}
	}
	c.masterStatus[id] = m.Status
	o := Event{Kind: MasterEvent, Master: id}
	name := s.nameOf(id)
	switch m.Status {
	case MasterAlive:
		o.Type, o.Text = EventJoined, name+" is here"
		if known {
			o.Type, o.Text = EventBack, name+" is back"
		}
	case MasterSuspect:
		o.Type, o.Text = EventSuspect, name+" is silent; what it alone hears does not count"
	case MasterDown:
		o.Type, o.Text = EventDown, name+" is down"
	case MasterLeft:
		o.Type, o.Text = EventLeft, name+" has left"
	default:
		return
	}
	s.logEvent(o)
}

// nameOf returns what people call a master, or what there is of its id.
func (s *Store) nameOf(master string) string {
	if master == s.text {
		return s.cfg.Name
	}
	if s.cluster != nil {
		if name := s.cluster.members.name(master); name != "" {
			return name
		}
	}
	return "master " + master[max(0, len(master)-8):]
}
