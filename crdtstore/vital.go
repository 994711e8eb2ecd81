package crdtstore

import (
	"slices"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// moment is how this master judges at one instant who is alive. What is the same for
// all nodes is found out once, and its memory is used again for each, so that many can
// be looked at. It is for one goroutine.
type moment struct {
	s         *Store
	now       time.Time
	listening record.Listening      // by what the silence of nodes is judged
	unheard   record.Listening      // and that of nodes that were not heard in this run
	masters   []membership.Observer // that were asked for
	heard     []liveness.Observation
	observers []record.Observer
}

// vital is the pulse part of a node, as it is at a moment.
type vital struct {
	liveness.Vital
	observers []record.Observer
	status    Status
	reason    string
	age       time.Duration // since any master heard it; less than 0: none has
}

func (s *Store) at(now time.Time) *moment {
	listening, unheard := s.preserver.Listening(now)
	return &moment{s: s, now: now, listening: listening, unheard: unheard}
}

// by is by what the silence of a node is judged that some masters have heard.
func (m *moment) by(observers []record.Observer) record.Listening {
	if len(observers) == 0 {
		return m.unheard
	}
	return m.listening
}

// observer is what is known of a master, the same until the moment is over.
func (m *moment) observer(master string) membership.Observer {
	for i := range m.masters {
		if m.masters[i].ID == master {
			return m.masters[i]
		}
	}
	o := m.s.members.Observer(m.now, master)
	m.masters = append(m.masters, o)
	return o
}

func (m *moment) reachable(master string) bool { return m.observer(master).Reachable }

// limit is for how long a master lets a node be silent.
func (m *moment) limit(master string) time.Duration { return m.observer(master).OfflineAfter }

// vital looks up a node's pulses and computes its status. The lists in v are good
// until the moment is asked again.
func (m *moment) vital(e *table.Entry, v *vital) {
	v.Vital, _ = m.s.board.Vital(e.ID, m.heard)
	m.heard, m.observers, v.age = v.Observation, m.observers[:0], -1
	for _, h := range v.Observation {
		age, o := m.now.Sub(h.At), m.observer(h.Master)
		m.observers = append(m.observers, record.Observer{Master: h.Master, AgeS: age.Seconds(), Reachable: o.Reachable, OfflineAfter: o.OfflineAfter})
		if v.age < 0 || age < v.age {
			v.age = max(age, 0)
		}
	}
	v.observers = m.observers
	v.status, v.reason = record.Liveness(v.observers, m.by(v.observers))
	if e.Removed {
		v.status, v.reason = Offline, "removed"
	}
}

// lastSeen is when any master heard a node, by this master's clock; the zero time:
// none has in this run.
func (m *moment) lastSeen(v *vital) time.Time {
	if v.age < 0 {
		return time.Time{}
	}
	return m.now.Add(-v.age).Round(0).UTC()
}

// show completes an entry's view with what the pulse plane knows.
func (m *moment) show(e *table.Entry) Node {
	n := e.Node()
	var v vital
	m.vital(e, &v)
	n.Usage, n.UptimeS, n.Status, n.Reason = v.Usage, v.UptimeS, v.status, v.reason
	if len(v.observers) > 0 {
		n.SeenBy = slices.Clone(v.observers)
	}
	m.s.conflicts.Mark(m.now, &n)
	for _, h := range v.Observation {
		if h.Tunnel && m.reachable(h.Master) {
			n.Tunnel = append(n.Tunnel, h.Master)
		}
	}
	if !e.Removed && m.s.acknowledged.Any(m.now, e) {
		n.VMs = m.s.acknowledged.VMs(m.now, e)
	}
	if seen := m.lastSeen(&v); n.LastSeen.Before(seen) {
		n.LastSeen = seen
	}
	return n
}
