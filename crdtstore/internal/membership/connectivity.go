package membership

import (
	"fmt"
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
// no use as an observer.
type connectivity struct {
	few     map[string]time.Time // since when a master hears too few
	partial map[string]string    // why a master is called partially connected
}

// compare compares what the masters hear. One that hears too few for longer than wait, in
// which agents come back to a master that has just started, is partially connected.
func (c *connectivity) compare(now time.Time, wait time.Duration, masters []hearer, name func(string) string) (out []Event) {
	few, partial := map[string]time.Time{}, map[string]string{}
	for _, m := range masters {
		_, was := c.partial[m.id]
		best := best(masters, m.id)
		if best.nodes < partialLeast || 2*m.nodes >= best.nodes {
			if was {
				out = append(out, Event{Type: EventFullyConnected, Master: m.id, Row: m.id, Text: fmt.Sprintf("%s hears %s again", name(m.id), countNodes(m.nodes))})
			}
			continue
		}
		few[m.id] = now
		if since, is := c.few[m.id]; is {
			few[m.id] = since
		}
		if now.Sub(few[m.id]) < wait {
			continue
		}
		partial[m.id] = fmt.Sprintf("hears %d of the %d nodes that %s hears", m.nodes, best.nodes, name(best.id))
		if !was {
			out = append(out, Event{Type: EventPartiallyConnected, Master: m.id, Row: m.id, Text: name(m.id) + " " + partial[m.id]})
		}
	}
	c.few, c.partial = few, partial
	return out
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

// connected compares what the masters hear that can be reached and have all records.
func (t *Table) connected(now time.Time, joining bool) []Event {
	var masters []hearer
	wait, self := t.longestOfflineAfter(now), t.CountDirect(now)
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.sorted() {
		if p.statusAt(now) == Alive && p.connectivity != nil && !p.Joining {
			masters = append(masters, hearer{p.ID, p.connectivity.Nodes})
		}
	}
	if !joining {
		masters = append(masters, hearer{t.cfg.Self, self})
	}
	return t.partial.compare(now, wait, masters, t.name)
}

// PartiallyConnected returns why a master is partially connected, nothing where it is not.
func (t *Table) PartiallyConnected(id string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.partial.partial[id]
}

// directCounter is how many nodes this master hears itself, as counted a moment ago.
type directCounter struct {
	mu    sync.Mutex // guards what follows; taken before the lock of the table
	at    time.Time
	nodes int
}

// CountDirect counts the nodes that this master hears itself, by the longest limit of any
// master, for the others compare it with what they hear. The count is up to 2 s old.
func (t *Table) CountDirect(now time.Time) int {
	c := &t.direct
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || now.Sub(c.at) >= countEvery {
		c.at, c.nodes = now, t.cfg.Nodes.CountDirect(now, t.longestOfflineAfter(now))
	}
	return c.nodes
}
