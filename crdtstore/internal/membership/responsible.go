package membership

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"time"
)

// What happens to the responsibility for nodes when masters go and come.
const (
	EventAdopted = "adopted" // this master took over the share of one that is gone
	EventGiven   = "given"   // this master gave a share to one that has come, or come back
)

// Rendezvous returns the master that is responsible for a node, or for anything else
// with a name, by rendezvous hashing: when a master comes or goes, only what it is
// responsible for changes hands. All masters that agree about who lives agree
// about who is responsible.
//
// The responsible master does what need be done only once: it asserts a record in a new
// epoch, writes down when a node was last seen, and lets it expire. That is no office that
// is held or handed over, but a function of the node and of the masters that live, so what
// a master that is gone was responsible for falls to others at once, and one that returns
// has its share back. Masters that disagree for a while about who lives may do the work
// twice, or leave it to the next time. Neither does harm: what they write is joined.
func Rendezvous(name string, masters []string) string {
	best, most := "", uint64(0)
	for _, m := range masters {
		sum := sha256.Sum256([]byte(m + "\x00" + name))
		if w := binary.BigEndian.Uint64(sum[:8]); best == "" || w > most || w == most && m < best {
			best, most = m, w
		}
	}
	return best
}

// handover counts the nodes that pass from one master to self when those that live are
// not before any more but after, by the master, and those that pass from self to another.
func handover(nodes iter.Seq[string], before, after []string, self string) (adopted, given map[string]int) {
	adopted, given = map[string]int{}, map[string]int{}
	for node := range nodes {
		was, is := Rendezvous(node, before), Rendezvous(node, after)
		switch {
		case was == is:
		case is == self:
			adopted[was]++
		case was == self:
			given[is]++
		}
	}
	return adopted, given
}

// liveSet is who lives. It is of the goroutine that calls Look.
type liveSet struct {
	masters []string        // when it was last looked; nil: it was not yet
	gone    map[string]bool // those of which nodes were adopted
}

// liveSet returns the masters that others need not stand in for, in order: all but those
// that are down or have left, and this one. After the start those that are known have a
// moment to be heard.
func (t *Table) liveSet(now time.Time) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(t.ids(func(p *member) bool {
		status := t.status(now, p)
		awaited := p.Heard.IsZero() && !p.HasLeft && now.Sub(t.cfg.Began) <= downAfter
		return status == Alive || status == Suspect || awaited
	}), t.cfg.Self)
}

// handOver publishes what passes to this master, and from it, by the going and coming of
// others.
func (t *Table) handOver(now time.Time) {
	before, after := t.live.masters, t.liveSet(now)
	t.live.masters = after
	if before == nil {
		t.live.gone = map[string]bool{}
		return
	}
	if slices.Equal(before, after) {
		return
	}
	adopted, given := handover(t.cfg.Nodes.NodeIDs(), before, after, t.cfg.Self)
	for _, id := range slices.Sorted(maps.Keys(adopted)) {
		t.live.gone[id] = true
		text := fmt.Sprintf("adopted %s of %s, which %s", countNodes(adopted[id]), t.Name(id), t.whyAbsent(id))
		if n := t.cfg.Nodes.CountExclusive(now, id); n > 0 {
			text += fmt.Sprintf("; %s were heard by it alone", countNodes(n))
		}
		t.publish(slog.LevelInfo, Event{Type: EventAdopted, Master: id, Text: text})
	}
	for _, id := range slices.Sorted(maps.Keys(given)) {
		text := fmt.Sprintf("gave %s to %s", countNodes(given[id]), t.Name(id))
		if t.live.gone[id] {
			text = fmt.Sprintf("gave %s back to %s", countNodes(given[id]), t.Name(id))
			delete(t.live.gone, id)
		}
		t.publish(slog.LevelInfo, Event{Type: EventGiven, Master: id, Text: text})
	}
}

func (t *Table) whyAbsent(id string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch p := t.members[id]; {
	case p == nil:
		return "is forgotten"
	case p.HasLeft:
		return "has left"
	}
	return "is down"
}

func countNodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}
