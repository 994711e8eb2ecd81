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

// Observation is when one master heard a node, and whether it holds its tunnel.
type Observation struct {
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
	mu    sync.Mutex // guards what follows
	lives map[string]*life
	// pending are the nodes heard directly since the last Collect.
	pending []*life
	// woken are the nodes heard since the last Woken that somebody waits for.
	woken []string
}

type life struct {
	id           string
	version      record.Version // of the beat that Usage and UptimeS are from
	at           time.Time      // when that beat was heard
	usage        record.Usage
	uptime       uint64
	direct       record.Version // of the last beat that came to this master
	observations []Observation  // one per master
	first        [1]Observation // of which this is the first, to be found beside the rest
	queued       bool
	forgotten    bool // forgotten, while there is still something to tell of it
	wake         bool // Woken returns it when it is heard next
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
		l = &life{id: id, wake: true}
		l.observations = l.first[:0]
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
	s.observe(l, b.self, now)
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
		s.observe(l, b.self, now).Tunnel = true
	} else {
		for i := range l.observations {
			if l.observations[i].Master == b.self {
				l.observations[i].Tunnel = false
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
	// later one is taken.
	if c := l.version.Compare(p.Version); c < 0 || c == 0 && l.at.Before(at) {
		l.version, l.usage, l.uptime, l.at = p.Version, p.Usage, p.UptimeS, at
	}
	// A pulse that was overtaken may say what was before; the next one says it again.
	s.observe(l, master, at).Tunnel = p.Tunnel
}

func (s *shard) observe(l *life, master string, at time.Time) *Observation {
	l.forgotten = false
	if l.wake {
		l.wake = false
		s.woken = append(s.woken, l.id)
	}
	for i := range l.observations {
		if h := &l.observations[i]; h.Master == master {
			if h.At.Before(at) {
				h.At = at
			}
			return h
		}
	}
	l.observations = append(l.observations, Observation{Master: master, At: at})
	return &l.observations[len(l.observations)-1]
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
		for _, h := range l.observations {
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
				if l.forgotten {
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
	Version     record.Version
	Usage       record.Usage
	UptimeS     uint64
	Observation []Observation
}

// Vital returns what is known of a node, and whether anything is. buf is used
// for the observations where it is large enough.
func (b *Board) Vital(id string, buf []Observation) (Vital, bool) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lives[id]
	if l == nil {
		return Vital{}, false
	}
	return Vital{l.version, l.usage, l.uptime, append(buf[:0], l.observations...)}, true
}

// Prune drops the nodes that are not known and that nobody has heard for so long.
// Such nodes come by pulses before their records do, and stay when these never come.
func (b *Board) Prune(now time.Time, silent time.Duration, known func(id string) bool) {
	for i := range b.part {
		s := &b.part[i]
		s.mu.Lock()
		for id, l := range s.lives {
			observations := func(h Observation) bool { return now.Sub(h.At) <= silent }
			if !l.queued && !slices.ContainsFunc(l.observations, observations) && !known(id) {
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
		for _, h := range l.observations {
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
		for _, h := range l.observations {
			if h.Master == b.self {
				return h.At
			}
		}
	}
	return time.Time{}
}

// WakeOn has Woken return the node when it is heard next, by whatever master. Nodes
// of which nothing is known yet always wake.
func (b *Board) WakeOn(id string) {
	s := b.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.lives[id]; l != nil {
		l.wake = true
	}
}

// Woken returns the nodes of WakeOn that were heard since it was called last. They
// do not wake again.
func (b *Board) Woken() []string {
	var out []string
	for i := range b.part {
		s := &b.part[i]
		s.mu.Lock()
		out = append(out, s.woken...)
		s.woken = s.woken[:0]
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
		if l.forgotten = true; !l.queued {
			delete(s.lives, id)
		}
	}
}
