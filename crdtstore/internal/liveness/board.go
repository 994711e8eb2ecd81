package liveness

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const shards = 64

// Pulse is what was last heard of a node by some master.
type Pulse struct {
	NodeID  string
	Version record.Version
	Usage   record.Usage
	UptimeS uint64
	Age     time.Duration
	Tunnel  bool // that master holds the tunnel of the node's agent
}

// Heard is when one master heard a node, and whether it holds its tunnel.
type Heard struct {
	Master string
	At     time.Time
	Tunnel bool
}

// Board keeps the pulses of all nodes. Its methods may be called concurrently;
// none blocks for long.
type Board struct {
	self string
	seed maphash.Seed
	part [shards]shard
}

type shard struct {
	mu    sync.Mutex
	lives map[string]*life
	// pending are the nodes heard directly since the last Collect.
	pending []*life
	// roused are the nodes heard since the last Roused that somebody waits for.
	roused []string
}

type life struct {
	id      string
	version record.Version // of the beat that Usage and UptimeS are from
	at      time.Time      // when that beat was heard
	usage   record.Usage
	uptime  uint64
	direct  record.Version // of the last beat that came to this master
	heard   []Heard        // one per master
	first   [1]Heard       // of which this is the first, to be found beside the rest
	queued  bool
	gone    bool // forgotten, while there is still something to tell of it
	awaited bool // the next word of it is to be told by Roused
}

// New returns an empty board of the master self.
func New(self string) *Board {
	b := &Board{self: self, seed: maphash.MakeSeed()}
	for i := range b.part {
		b.part[i].lives = map[string]*life{}
	}
	return b
}

func (b *Board) shard(id string) *shard {
	return &b.part[maphash.String(b.seed, id)%shards]
}

func (s *shard) life(id string) *life {
	l := s.lives[id]
	if l == nil {
		l = &life{id: id, awaited: true}
		l.heard = l.first[:0]
		s.lives[id] = l
	}
	return l
}

// Beat notes that this master heard a node. usage and uptime are left as they
// were where nil. It reports false for a beat that is late or repeated, which
// changes nothing; the zero version, of senders that do not count, is taken
// always.
func (b *Board) Beat(now time.Time, id string, v record.Version, usage *record.Usage, uptime *uint64) bool {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.life(id)
	if v != (record.Version{}) {
		if v.Compare(l.direct) <= 0 {
			return false
		}
		l.direct = v
	}
	if v.Compare(l.version) >= 0 || v == (record.Version{}) {
		if v != (record.Version{}) {
			l.version = v
		}
		if usage != nil || uptime != nil {
			l.at = now
		}
		if usage != nil {
			l.usage = *usage
		}
		if uptime != nil {
			l.uptime = *uptime
		}
	}
	s.hear(l, b.self, now)
	s.queue(l)
	return true
}

// Tunnel notes that this master holds the tunnel of a node's agent from now on, or no
// more. To hold it is a sign of life.
func (b *Board) Tunnel(now time.Time, id string, open bool) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.life(id)
	if open {
		s.hear(l, b.self, now).Tunnel = true
	} else {
		for i := range l.heard {
			if l.heard[i].Master == b.self {
				l.heard[i].Tunnel = false
			}
		}
	}
	s.queue(l)
}

// queue has the next Collect tell of a node.
func (s *shard) queue(l *life) {
	if !l.queued {
		l.queued = true
		s.pending = append(s.pending, l)
	}
}

// Merge takes over what another master heard. Ages are clipped at zero.
func (b *Board) Merge(now time.Time, master string, p Pulse) {
	s := b.shard(p.NodeID)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.life(p.NodeID)
	at := now.Add(-max(p.Age, 0))
	// Of one version, which is how it stands with senders that do not count, the
	// later word is taken.
	if c := l.version.Compare(p.Version); c < 0 || c == 0 && l.at.Before(at) {
		l.version, l.usage, l.uptime, l.at = p.Version, p.Usage, p.UptimeS, at
	}
	// A pulse that was overtaken may say what was before; the next one says it again.
	s.hear(l, master, at).Tunnel = p.Tunnel
}

func (s *shard) hear(l *life, master string, at time.Time) *Heard {
	l.gone = false
	if l.awaited {
		l.awaited = false
		s.roused = append(s.roused, l.id)
	}
	for i := range l.heard {
		if h := &l.heard[i]; h.Master == master {
			if h.At.Before(at) {
				h.At = at
			}
			return h
		}
	}
	l.heard = append(l.heard, Heard{Master: master, At: at})
	return &l.heard[len(l.heard)-1]
}

// Collect returns what this master heard itself since the last Collect, for the
// other masters.
func (b *Board) Collect(now time.Time) []Pulse { return b.pulses(now, false) }

// Everything returns all that this master heard itself within the last age, for
// a master that has just come.
func (b *Board) Everything(now time.Time, age time.Duration) []Pulse {
	out := b.pulses(now, true)
	recent := out[:0]
	for _, p := range out {
		if p.Age <= age {
			recent = append(recent, p)
		}
	}
	return recent
}

func (b *Board) pulses(now time.Time, all bool) []Pulse {
	var out []Pulse
	add := func(l *life) {
		for _, h := range l.heard {
			if h.Master == b.self {
				out = append(out, Pulse{l.id, l.version, l.usage, l.uptime, now.Sub(h.At), h.Tunnel})
			}
		}
	}
	for i := range b.part {
		s := &b.part[i]
		s.mu.Lock()
		if all {
			for _, l := range s.lives {
				add(l)
			}
		} else {
			for _, l := range s.pending {
				l.queued = false
				add(l)
				if l.gone {
					delete(s.lives, l.id)
				}
			}
			s.pending = s.pending[:0]
		}
		s.mu.Unlock()
	}
	return out
}

// Vital is what the board knows of one node.
type Vital struct {
	Version record.Version
	Usage   record.Usage
	UptimeS uint64
	Heard   []Heard
}

// Vital returns what is known of a node, and whether anything is. buf is used
// for Heard where it is large enough.
func (b *Board) Vital(id string, buf []Heard) (Vital, bool) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lives[id]
	if l == nil {
		return Vital{}, false
	}
	return Vital{l.version, l.usage, l.uptime, append(buf[:0], l.heard...)}, true
}

// Prune drops the nodes that are not known and that nobody has heard for so long.
// Such nodes come by pulses before their records do, and stay when these never come.
func (b *Board) Prune(now time.Time, silent time.Duration, known func(id string) bool) {
	for i := range b.part {
		s := &b.part[i]
		s.mu.Lock()
		for id, l := range s.lives {
			heard := func(h Heard) bool { return now.Sub(h.At) <= silent }
			if !l.queued && !slices.ContainsFunc(l.heard, heard) && !known(id) {
				delete(s.lives, id)
			}
		}
		s.mu.Unlock()
	}
}

// LastHeard returns when any master last heard a node; the zero time: none has.
func (b *Board) LastHeard(id string) (at time.Time) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lives[id]; l != nil {
		for _, h := range l.heard {
			if at.Before(h.At) {
				at = h.At
			}
		}
	}
	return at
}

// Direct returns when this master last heard a node itself; the zero time: never.
func (b *Board) Direct(id string) time.Time {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lives[id]; l != nil {
		for _, h := range l.heard {
			if h.Master == b.self {
				return h.At
			}
		}
	}
	return time.Time{}
}

// Await has Roused name the node when it is heard next, by whatever master. Nodes
// of which nothing is known yet are always awaited.
func (b *Board) Await(id string) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lives[id]; l != nil {
		l.awaited = true
	}
}

// Roused returns the awaited nodes that were heard since it was called last. They
// are awaited no more.
func (b *Board) Roused() []string {
	var out []string
	for i := range b.part {
		s := &b.part[i]
		s.mu.Lock()
		out = append(out, s.roused...)
		s.roused = s.roused[:0]
		s.mu.Unlock()
	}
	return out
}

// Forget drops a node.
func (b *Board) Forget(id string) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lives[id]; l != nil {
		if l.gone = true; !l.queued {
			delete(s.lives, id)
		}
	}
}
