package events

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

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const (
	// maxEvents is how many events are remembered, half of them about nodes
	// and VMs and half about everything else, so that what thousands of nodes do does
	// not push out what an operator set.
	maxEvents = 10_000

	// Of one thing that happens to nodes or VMs, so many are listed at a time, and one
	// more in every refillEvery. The rest is counted, and one event stands for it.
	eventBurst  = 100
	refillEvery = time.Second

	maxEventText = 256 // bytes of each text
)

// phase says which records are news when they come in: neither those that are read from
// disk, nor those that a new master fetches from the others.
type phase int32

const (
	loading phase = iota // the records on disk are being read
	joining              // those of the other masters are being fetched
	live
)

// Options say where a Log finds what its events tell beside that with which it is fed, and
// where they go. All are needed. The functions are called by the goroutine that feeds the
// log.
type Options struct {
	Run  string           // names this run: a cursor of another one is refused
	Self string           // id of this master
	Wall func() time.Time // the wall clock
	// Name returns what people call a master, given its id.
	Name func(master string) string
	// MasterStatus returns the status of a master as text, "" where it is not known.
	MasterStatus func(id string) string
	// Node returns a node as it is shown.
	Node func(id string) (record.Node, error)
	// Publish is called with each event, in order, while the log is locked: it must not
	// call the log. The event must not be modified.
	Publish func(*Event)
}

// Log is the bounded log of what happened. Its methods may be called concurrently.
type Log struct {
	opts  Options
	phase atomic.Int32 // a phase

	mu       sync.Mutex // guards all below
	last     uint64     // id of the latest
	frequent ring       // about nodes and VMs
	rare     ring       // about everything else
	keys     map[uint64]struct{}
	buckets  map[rateKey]*bucket
	counts   map[rateKey]uint64
	statuses map[string]record.Status // of nodes, as last published; empty: it is new, and was not online yet

	masters      sync.Mutex // held from reading a master's status until it is logged
	masterStatus map[string]string
}

// New returns an empty log, which takes nothing for news before [Log.Joining] or
// [Log.Live] is called.
func New(o Options) *Log {
	return &Log{
		opts: o, keys: map[uint64]struct{}{}, buckets: map[rateKey]*bucket{}, counts: map[rateKey]uint64{},
		statuses: map[string]record.Status{}, masterStatus: map[string]string{},
	}
}

// Joining tells the log that the records on disk are read. What operators ask of this
// master is logged from now on.
func (l *Log) Joining() { l.phase.CompareAndSwap(int32(loading), int32(joining)) }

func (l *Log) now() phase { return phase(l.phase.Load()) }

// ring holds the latest events of a part, ascending by id.
type ring struct {
	slots []slot
	next  int // where the next one goes once it is full
}

// slot is an event; key is not 0 where it must not be logged twice.
type slot struct {
	*Event
	key uint64
}

// add returns the slot that had to give way, an empty one where none had.
func (r *ring) add(s slot) (gone slot) {
	if len(r.slots) < maxEvents/2 {
		r.slots = append(r.slots, s)
		return slot{}
	}
	gone, r.slots[r.next] = r.slots[r.next], s
	r.next = (r.next + 1) % len(r.slots)
	return gone
}

// at returns the i-th event from the oldest on.
func (r *ring) at(i int) *Event { return r.slots[(r.next+i)%len(r.slots)].Event }

// below returns how many events have an id less than a given one.
func (r *ring) below(id uint64) int {
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
	kind  Kind
	event string
}

// bucket is how many more events of one key are listed, and how many were not.
type bucket struct{ left, more int }

// Add logs an event. Its ID is given by the log, and its time, where it has none, is now.
func (l *Log) Add(e Event) {
	if e.At.IsZero() {
		e.At = l.opts.Wall().UTC().Round(0)
	}
	l.add(e, 0, true)
}

// add appends an event. Of those with the same key, which is not 0, only the first is
// taken. News is counted.
func (l *Log) add(e Event, key uint64, news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, known := l.keys[key]; known {
		return
	}
	k := rateKey{e.Kind, e.Type}
	if news {
		l.counts[k]++
	}
	if e.Kind == KindNode || e.Kind == KindVM {
		b := l.buckets[k]
		if b == nil {
			b = &bucket{left: eventBurst}
			l.buckets[k] = b
		}
		if b.left == 0 {
			b.more++
			return
		}
		b.left--
	}
	l.append(e, key)
}

// append gives an event its place and its id. The caller holds mu.
func (l *Log) append(e Event, key uint64) {
	l.last++
	e.ID = l.last
	for _, text := range []*string{&e.NodeID, &e.VM, &e.Master, &e.By, &e.Text} {
		*text = clip(*text)
	}
	ring := &l.rare
	if e.Kind == KindNode || e.Kind == KindVM {
		ring = &l.frequent
	}
	if key != 0 {
		l.keys[key] = struct{}{}
	}
	if gone := ring.add(slot{&e, key}); gone.key != 0 {
		delete(l.keys, gone.key)
	}
	l.opts.Publish(&e)
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

// Run refills the token buckets until ctx ends.
func (l *Log) Run(ctx context.Context) {
	tick := time.NewTicker(refillEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			l.refill()
		case <-ctx.Done():
			return
		}
	}
}

// refill adds a token to each bucket, and an event for those that were not listed since
// the last time.
func (l *Log) refill() {
	at := l.opts.Wall().UTC().Round(0)
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, b := range l.buckets {
		if b.more > 0 {
			things := "nodes"
			if k.kind == KindVM {
				things = "VMs"
			}
			l.append(Event{At: at, Kind: k.kind, Type: k.event, More: b.more, Text: fmt.Sprintf("the same of %d more %s", b.more, things)}, 0)
			b.more = 0
		}
		if b.left++; b.left >= eventBurst {
			delete(l.buckets, k)
		}
	}
}

// Count is how often something happened in this run, whether it is still in the log or
// not.
type Count struct {
	Kind  Kind
	Type  string
	Count uint64
}

// Counts returns how often what has happened in this run, by kind and type.
func (l *Log) Counts() []Count {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Count, 0, len(l.counts))
	for k, n := range l.counts {
		out = append(out, Count{k.kind, k.event, n})
	}
	slices.SortFunc(out, func(a, b Count) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Type, b.Type))
	})
	return out
}
