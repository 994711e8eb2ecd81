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

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/watch"
)

const (
	// maxEvents is how many events are remembered, half of them about nodes
	// and VMs and half about everything else, so that what thousands of nodes do does
	// not push out what an operator said.
	maxEvents = 10_000

	// Of one thing that happens to nodes or VMs, so many are listed at a time, and one
	// more in every refillEvery. The rest is counted, and one event stands for it.
	eventBurst  = 100
	refillEvery = time.Second

	maxEventText = 256 // bytes of each text
)

// phase is what is told of records that come in. Only what is news to the grid is: not
// what is read from disk, nor what a new master is told by the others.
type phase int32

const (
	asleep   phase = iota // the records on disk are being read
	learning              // those of the other masters are being fetched
	awake
)

// eventLog is the bounded log of what happened.
type eventLog struct {
	phase atomic.Int32 // a phase

	mu       sync.Mutex
	last     uint64    // id of the latest
	frequent eventRing // about nodes and VMs
	rare     eventRing // about everything else
	keys     map[uint64]struct{}
	buckets  map[rateKey]*bucket
	counts   map[rateKey]uint64

	statuses map[string]Status // of nodes, as last published; empty: it is new, and was not online yet

	masters      sync.Mutex              // held while it is found out what to tell of a master
	masterStatus map[string]MasterStatus // as last published
}

// eventRing holds the latest events of a part, ascending by id.
type eventRing struct {
	slots []slot
	next  int // where the next one goes once it is full
}

// slot is an event; key is not 0 where it must not be noted twice.
type slot struct {
	*Event
	key uint64
}

// now is what is told of records that come in.
func (c *eventLog) now() phase { return phase(c.phase.Load()) }

// add returns the slot that had to give way, an empty one where none had.
func (r *eventRing) add(s slot) (gone slot) {
	if len(r.slots) < maxEvents/2 {
		r.slots = append(r.slots, s)
		return slot{}
	}
	gone, r.slots[r.next] = r.slots[r.next], s
	r.next = (r.next + 1) % len(r.slots)
	return gone
}

// at returns the i-th event from the oldest on.
func (r *eventRing) at(i int) *Event { return r.slots[(r.next+i)%len(r.slots)].Event }

// below returns how many events have an id less than a given one.
func (r *eventRing) below(id uint64) int {
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

// rateKey is what events have in common of which there may be many at a time.
type rateKey struct {
	kind  EventKind
	event string
}

// bucket is how many more events of one key are listed, and how many were not.
type bucket struct{ left, more int }

// add appends an event and tells watchers. Of those with the same key, which is
// not 0, only the first is taken. News is counted.
func (c *eventLog) add(h *watch.Buffer[change], o Event, key uint64, news bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if key != 0 {
		if _, ok := c.keys[key]; ok {
			return
		}
	}
	m := rateKey{o.Kind, o.Type}
	if news {
		if c.counts == nil {
			c.counts = map[rateKey]uint64{}
		}
		c.counts[m]++
	}
	if o.Kind == NodeEvent || o.Kind == VMEvent {
		f := c.buckets[m]
		if f == nil {
			f = &bucket{left: eventBurst}
			if c.buckets == nil {
				c.buckets = map[rateKey]*bucket{}
			}
			c.buckets[m] = f
		}
		if f.left == 0 {
			f.more++
			return
		}
		f.left--
	}
	c.append(h, o, key)
}

// append gives an event its place and its id. The caller holds mu.
func (c *eventLog) append(h *watch.Buffer[change], o Event, key uint64) {
	c.last++
	o.ID = c.last
	for _, text := range []*string{&o.NodeID, &o.VM, &o.Master, &o.By, &o.Text} {
		*text = clip(*text)
	}
	ring := &c.rare
	if o.Kind == NodeEvent || o.Kind == VMEvent {
		ring = &c.frequent
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
	h.Add(change{kind: LogChange, event: &o})
}

func (c *eventLog) counted() []EventCount {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]EventCount, 0, len(c.counts))
	for m, n := range c.counts {
		out = append(out, EventCount{m.kind, m.event, n})
	}
	slices.SortFunc(out, func(a, b EventCount) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Type, b.Type))
	})
	return out
}

// clip cuts a text that is too long, and gives it memory of its own: it may be a part
// of a whole record.
func clip(s string) string {
	if len(s) > maxEventText {
		const sign = "…"
		end := maxEventText - len(sign)
		for end > 0 && !utf8.RuneStart(s[end]) {
			end--
		}
		return s[:end] + sign
	}
	return strings.Clone(s)
}

// before fills a list with the latest events below an id, the latest first.
func (c *eventLog) before(id uint64, into []*Event) []*Event {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, b := c.frequent.below(id), c.rare.below(id)
	for len(into) < cap(into) && a+b > 0 {
		if b == 0 || a > 0 && c.frequent.at(a-1).ID > c.rare.at(b-1).ID {
			a--
			into = append(into, c.frequent.at(a))
		} else {
			b--
			into = append(into, c.rare.at(b))
		}
	}
	return into
}

// refill adds tokens to the buckets, and an event for each key of which there were too many since the last
// one, and lets one more of each be listed.
func (c *eventLog) refill(h *watch.Buffer[change], at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for m, f := range c.buckets {
		if f.more > 0 {
			things := "nodes"
			if m.kind == VMEvent {
				things = "VMs"
			}
			c.append(h, Event{At: at, Kind: m.kind, Type: m.event, More: f.more, Text: fmt.Sprintf("the same of %d more %s", f.more, things)}, 0)
			f.more = 0
		}
		if f.left++; f.left >= eventBurst {
			delete(c.buckets, m)
		}
	}
}

// summarize has bursts of events summed up.
func (s *Store) summarize(ctx context.Context) {
	tick := time.NewTicker(refillEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.events.refill(s.changes, s.cfg.seams.Wall().UTC().Round(0))
		case <-ctx.Done():
			return
		}
	}
}
