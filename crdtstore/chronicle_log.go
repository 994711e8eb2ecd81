package crdtstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

const (
	// maxOccurrences is how many occurrences are remembered, half of them about nodes
	// and VMs and half about everything else, so that what thousands of nodes do does
	// not push out what an operator said.
	maxOccurrences = 10_000

	// Of one thing that happens to nodes or VMs, so many are listed at a time, and one
	// more in every floodTick. The rest is counted, and one occurrence stands for it.
	floodBurst = 100
	floodTick  = time.Second

	maxOccurrenceText = 256 // bytes of each text
)

// phase is what is told of records that come in. Only what is news to the grid is: not
// what is read from disk, nor what a new master is told by the others.
type phase int32

const (
	asleep   phase = iota // the records on disk are being read
	learning              // those of the other masters are being fetched
	awake
)

// chronicle is the bounded log of what happened.
type chronicle struct {
	phase atomic.Int32 // a phase

	mu     sync.Mutex
	last   uint64         // id of the latest
	noise  occurrenceRing // about nodes and VMs
	signal occurrenceRing // about everything else
	keys   map[uint64]struct{}
	floods map[matter]*flood
	counts map[matter]uint64

	statuses map[string]Status // of nodes, as last told; empty: it is new, and was not online yet

	masters  sync.Mutex              // held while it is found out what to tell of a master
	mastered map[string]MasterStatus // as last told
}

// occurrenceRing holds the latest occurrences of a part, ascending by id.
type occurrenceRing struct {
	slots []slot
	next  int // where the next one goes once it is full
}

// slot is an occurrence; key is not 0 where it must not be noted twice.
type slot struct {
	*Occurrence
	key uint64
}

// now is what is told of records that come in.
func (c *chronicle) now() phase { return phase(c.phase.Load()) }

// add returns the slot that had to give way, an empty one where none had.
func (r *occurrenceRing) add(s slot) (gone slot) {
	if len(r.slots) < maxOccurrences/2 {
		r.slots = append(r.slots, s)
		return slot{}
	}
	gone, r.slots[r.next] = r.slots[r.next], s
	r.next = (r.next + 1) % len(r.slots)
	return gone
}

// at returns the i-th occurrence from the oldest on.
func (r *occurrenceRing) at(i int) *Occurrence { return r.slots[(r.next+i)%len(r.slots)].Occurrence }

// below returns how many occurrences have an id less than a given one.
func (r *occurrenceRing) below(id uint64) int {
	low, high := 0, len(r.slots)
	for low < high {
		if mid := (low + high) / 2; r.at(mid).ID < id {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// matter is what occurrences have in common of which there may be many at a time.
type matter struct {
	kind OccurrenceKind
	what string
}

// flood is how many more of a matter are listed, and how many were not.
type flood struct{ left, more int }

// add appends an occurrence and tells watchers. Of those with the same key, which is
// not 0, only the first is taken. News is counted.
func (c *chronicle) add(h *hub, o Occurrence, key uint64, news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if key != 0 {
		if _, ok := c.keys[key]; ok {
			return
		}
	}
	m := matter{o.Kind, o.What}
	if news {
		if c.counts == nil {
			c.counts = map[matter]uint64{}
		}
		c.counts[m]++
	}
	if o.Kind == AboutNode || o.Kind == AboutVM {
		f := c.floods[m]
		if f == nil {
			f = &flood{left: floodBurst}
			if c.floods == nil {
				c.floods = map[matter]*flood{}
			}
			c.floods[m] = f
		}
		if f.left == 0 {
			f.more++
			return
		}
		f.left--
	}
	c.append(h, o, key)
}

// append gives an occurrence its place and its id. The caller holds mu.
func (c *chronicle) append(h *hub, o Occurrence, key uint64) {
	c.last++
	o.ID = c.last
	for _, text := range []*string{&o.NodeID, &o.VM, &o.Master, &o.By, &o.Text} {
		*text = clip(*text)
	}
	ring := &c.signal
	if o.Kind == AboutNode || o.Kind == AboutVM {
		ring = &c.noise
	}
	if key != 0 {
		if c.keys == nil {
			c.keys = map[uint64]struct{}{}
		}
		c.keys[key] = struct{}{}
	}
	if gone := ring.add(slot{&o, key}); gone.key != 0 {
		delete(c.keys, gone.key)
	}
	h.add(change{kind: LogChange, occurrence: &o})
}

func (c *chronicle) counted() []OccurrenceCount {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]OccurrenceCount, 0, len(c.counts))
	for m, n := range c.counts {
		out = append(out, OccurrenceCount{m.kind, m.what, n})
	}
	slices.SortFunc(out, func(a, b OccurrenceCount) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.What, b.What))
	})
	return out
}

// clip cuts a text that is too long, and gives it memory of its own: it may be a part
// of a whole record.
func clip(s string) string {
	if len(s) > maxOccurrenceText {
		const sign = "…"
		end := maxOccurrenceText - len(sign)
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		return s[:end] + sign
	}
	return strings.Clone(s)
}

// before fills a list with the latest occurrences below an id, the latest first.
func (c *chronicle) before(id uint64, into []*Occurrence) []*Occurrence {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, b := c.noise.below(id), c.signal.below(id)
	for len(into) < cap(into) && a+b > 0 {
		if b == 0 || a > 0 && c.noise.at(a-1).ID > c.signal.at(b-1).ID {
			a--
			into = append(into, c.noise.at(a))
		} else {
			b--
			into = append(into, c.signal.at(b))
		}
	}
	return into
}

// ebb adds an occurrence for each matter of which there were too many since the last
// one, and lets one more of each be listed.
func (c *chronicle) ebb(h *hub, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for m, f := range c.floods {
		if f.more > 0 {
			things := "nodes"
			if m.kind == AboutVM {
				things = "VMs"
			}
			c.append(h, Occurrence{At: at, Kind: m.kind, What: m.what, More: f.more, Text: fmt.Sprintf("the same of %d more %s", f.more, things)}, 0)
			f.more = 0
		}
		if f.left++; f.left >= floodBurst {
			delete(c.floods, m)
		}
	}
}

// summarize has floods of occurrences told in few words.
func (s *Store) summarize(ctx context.Context) {
	tick := time.NewTicker(floodTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.chronicle.ebb(s.hub, s.cfg.Wall().UTC().Round(0))
		case <-ctx.Done():
			return
		}
	}
}
