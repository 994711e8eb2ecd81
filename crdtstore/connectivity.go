package crdtstore

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// What happens to a master that nodes cannot reach, though other masters can.
const (
	EventPartiallyConnected = "partially_connected" // it hears less than half of the nodes that another one hears
	EventFullyConnected     = "fully_connected"     // it hears them again
)

const (
	// partialLeast is how many nodes another master must hear at least before it means
	// something that one hears fewer.
	partialLeast = 3
	// maxObserved bounds the list of masters that a master says it hears.
	maxObserved = 64
	// countEvery is how often it is counted anew how many nodes this master hears.
	countEvery = 2 * time.Second
)

// hearer is a master that can be reached, and how many nodes it hears itself.
type hearer struct {
	id    string
	nodes int
}

// connectivity finds the masters that are partially connected: agents beat to all masters,
// so one that hears far fewer nodes than another has a fault between it and them, and is of
// no use as an observer. Its methods may be called concurrently.
type connectivity struct {
	mu      sync.Mutex
	few     map[string]time.Time // since when a master hears too few
	partial map[string]string    // why a master is called partially connected
}

// look compares what the masters hear. One that hears too few for longer than settle,
// in which agents come back to a master that has just started, is partially connected.
func (e *connectivity) look(now time.Time, waitWritten time.Duration, masters []hearer, name func(string) string, publish func(master, what, text string)) {
	type news struct{ master, what, text string }
	var all []news
	few, partial := map[string]time.Time{}, map[string]string{}
	e.mu.Lock()
	for _, m := range masters {
		best := best(masters, m.id)
		if best.nodes < partialLeast || 2*m.nodes >= best.nodes {
			if _, was := e.partial[m.id]; was {
				all = append(all, news{m.id, EventFullyConnected, fmt.Sprintf("%s hears %s again", name(m.id), nodes(m.nodes))})
			}
			continue
		}
		few[m.id] = now
		if since, was := e.few[m.id]; was {
			few[m.id] = since
		}
		if now.Sub(few[m.id]) < waitWritten {
			continue
		}
		partial[m.id] = fmt.Sprintf("hears %d of the %d nodes that %s hears", m.nodes, best.nodes, name(best.id))
		if _, was := e.partial[m.id]; !was {
			all = append(all, news{m.id, EventPartiallyConnected, name(m.id) + " " + partial[m.id]})
		}
	}
	e.few, e.partial = few, partial
	e.mu.Unlock()
	for _, n := range all {
		publish(n.master, n.what, n.text)
	}
}

// best returns the master that hears most, of those that are not the given one.
func best(masters []hearer, but string) (most hearer) {
	for _, m := range masters {
		if m.id != but && m.nodes > most.nodes {
			most = m
		}
	}
	return most
}

// why returns why a master is partially connected, nothing where it is not.
func (e *connectivity) why(id string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.partial[id]
}

// hearers returns the masters that can be reached and say how many nodes they hear, in
// order.
func (d *membership) hearers(now time.Time) []hearer {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []hearer
	for _, p := range d.peers {
		if p.statusAt(now) == MasterAlive && p.connectivity != nil && !p.joining {
			out = append(out, hearer{p.ID, p.connectivity.Nodes})
		}
	}
	slices.SortFunc(out, func(a, b hearer) int { return strings.Compare(a.id, b.id) })
	return out
}

// heardBy returns the masters that can be reached and say that they hear another one.
// The caller holds mu.
func (d *membership) heardBy(now time.Time, id string) []string {
	out := []string{}
	for _, p := range d.peers {
		if p.ID != id && p.connectivity != nil && p.statusAt(now) == MasterAlive && slices.Contains(p.connectivity.Masters, id) {
			out = append(out, p.ID)
		}
	}
	slices.Sort(out)
	return out
}

// heardOf is heardBy for callers that do not hold mu.
func (d *membership) heardOf(now time.Time, id string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.heardBy(now, id)
}

// directCounter is how many nodes this master hears itself, as counted a moment ago.
type directCounter struct {
	mu    sync.Mutex
	at    time.Time
	nodes int
}

// countDirect counts the nodes that this master hears itself, by the longest limit of any
// master, for the others compare it with what they hear.
func (s *Store) countDirect(now time.Time) int {
	c := &s.directCount
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || now.Sub(c.at) >= countEvery {
		c.at, c.nodes = now, s.board.CountDirect(now, s.longestOfflineAfter())
	}
	return c.nodes
}
