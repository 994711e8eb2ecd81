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

// What is published of the responsibility for nodes when masters go and come. These are
// notices, a while later than what they tell: responsibility follows Table.Alive at once,
// without anything being handed over.
const (
	EventAdopted = "adopted" // part of the share of one that is down or has left is this master's
	EventGiven   = "given"   // part of this master's share is that of one that has come, or come back
)

// Rendezvous returns the master that is responsible for a node, or for anything else
// with a name, by rendezvous hashing: when a master comes or goes, only what it is
// responsible for changes hands. It is asked with the masters that are [Alive]; those that
// agree about these agree about who is responsible.
//
// The responsible master does what need be done only once: it asserts a record in a new
// epoch, writes down when a node was last seen, and lets it expire. That is no office that
// is held or handed over, but a function of the node and of the masters that are alive, so
// what a suspect one was responsible for falls to others at once, and one that is heard again
// has its share back. Masters that disagree for a while about who is alive may do the work
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

// noticed is what the notices about responsibility go by. It is of the goroutine that
// calls Look.
type noticed struct {
	present []string        // when it was last looked; nil: it was not yet
	gone    map[string]bool // those of which EventAdopted was published
}

// present returns the masters that are not down and have not left, in order, and this one.
// They are more than Alive: who is silent for a moment only is no notice. After the start
// those that are known have a moment to be heard.
func (t *Table) present(now time.Time) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append(t.ids(func(p *member) bool {
		status := t.status(now, p)
		awaited := p.Heard.IsZero() && !p.HasLeft && now.Sub(t.cfg.Began) <= downAfter
		return status == Alive || status == Suspect || awaited
	}), t.cfg.Self)
}

// noticeResponsible publishes what is this master's now, and no longer, by the going and
// coming of others.
func (t *Table) noticeResponsible(now time.Time) {
	before, after := t.noticed.present, t.present(now)
	t.noticed.present = after
	if before == nil {
		t.noticed.gone = map[string]bool{}
		return
	}
	if slices.Equal(before, after) {
		return
	}
	adopted, given := handover(t.cfg.Nodes.NodeIDs(), before, after, t.cfg.Self)
	for _, id := range slices.Sorted(maps.Keys(adopted)) {
		t.noticed.gone[id] = true
		text := fmt.Sprintf("adopted %s of %s, which %s", countNodes(adopted[id]), t.Name(id), t.whyAbsent(id))
		if n := t.cfg.Nodes.CountExclusive(now, id); n > 0 {
			text += fmt.Sprintf("; %s were heard by it alone", countNodes(n))
		}
		t.publish(slog.LevelInfo, Event{Type: EventAdopted, Master: id, Text: text})
	}
	for _, id := range slices.Sorted(maps.Keys(given)) {
		text := fmt.Sprintf("gave %s to %s", countNodes(given[id]), t.Name(id))
		if t.noticed.gone[id] {
			text = fmt.Sprintf("gave %s back to %s", countNodes(given[id]), t.Name(id))
			delete(t.noticed.gone, id)
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
