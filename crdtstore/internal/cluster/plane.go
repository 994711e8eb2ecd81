package cluster

import (
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dagsync"
)

// EventRebuilt happens to a master whose connection is made anew, for nothing arrived over it.
const EventRebuilt = "rebuilt"

const (
	// hopless is how long nothing may arrive in one hop from a master that is connected,
	// which says something every second.
	hopless = 4 * time.Second
	// lateAnnouncement is how long an announcement may be behind the pulse that tells of it.
	lateAnnouncement = 1500 * time.Millisecond
	// maxGaps is how many times in a row announcements may be missing, with none that
	// arrives in between, until the connection is made anew, and how many may come by way
	// of others only.
	maxGaps = 3
	// rebuildLeast and rebuildMost bound how long it is waited between two attempts to
	// make the connection to one master anew, which may not be what is wrong.
	rebuildLeast = 4 * time.Second
	rebuildMost  = time.Minute
)

// plane watches whether what the other masters say arrives here, and in one hop. Its
// methods may be called concurrently, and do not block.
type plane struct {
	mu      sync.Mutex // guards what follows
	of      map[peer.ID]*sender
	gaps    uint64 // how often announcements were missing
	rebuilt uint64 // connections that were given up for it
}

// sender is what arrives from one master.
type sender struct {
	run       string
	announced uint64    // the last announcement of that run that is accounted for
	since     time.Time // since when one is missing; zero: none is
	gaps      int       // in a row
	detours   int       // announcements that came by way of others, since the last that did not
	detour    time.Time // when the first of these came

	met    time.Time // when it was connected
	direct time.Time // when its last pulse arrived in one hop
	back   bool      // whether it says that our pulses arrive there so
	first  time.Time // when it was first heard or connected
	both   time.Time // when both were so last
	wait   time.Duration
	next   time.Time // no attempt to make the connection anew before that
}

func newPlane() *plane { return &plane{of: map[peer.ID]*sender{}} }

// sender is called with mu held.
func (p *plane) sender(now time.Time, id peer.ID) *sender {
	s := p.of[id]
	if s == nil {
		s = &sender{first: now}
		p.of[id] = s
	}
	return s
}

// met notes that a master was connected.
func (p *plane) met(now time.Time, id peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sender(now, id).met = now
}

// hop notes that a message arrived straight from its author.
func (p *plane) hop(now time.Time, id peer.ID, pulse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.sender(now, id); pulse {
		s.direct = now
		if s.back {
			s.both = now
		}
	} else {
		s.detours = 0
	}
}

// announced takes the number of an announcement that arrives, and reports whether some
// before it are missing.
func (p *plane) announced(now time.Time, id peer.ID, run string, seq uint64) (gap bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sender(now, id)
	if s.detours++; s.detours == 1 { // until hop says otherwise
		s.detour = now
	}
	if run == "" || s.run == run && seq <= s.announced {
		return false
	}
	gap = s.run == run && seq > s.announced+1
	s.run, s.announced, s.since, s.gaps = run, seq, time.Time{}, 0
	if gap {
		p.gaps++
	}
	return gap
}

// checkCount takes the number of the last announcement as a pulse tells it, and reports whether
// announcements are missing.
func (p *plane) checkCount(now time.Time, id peer.ID, run string, last uint64) (gap bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sender(now, id)
	switch {
	case run == "":
		return false
	case s.run != run: // what it said before is fetched when it is met
		s.run, s.announced, s.since, s.gaps = run, last, time.Time{}, 0
		return false
	case last <= s.announced:
		s.since = time.Time{}
		return false
	case s.since.IsZero():
		s.since = now
		return false
	case now.Sub(s.since) < lateAnnouncement:
		return false
	}
	s.announced, s.since = last, time.Time{}
	s.gaps++
	p.gaps++
	return true
}

// broken returns the connected masters whose connection has to be made anew, for nothing
// arrives over it as it should.
func (p *plane) broken(now time.Time, connected []peer.ID) (out []peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range connected {
		s := p.of[id]
		switch {
		case s == nil || s.met.IsZero() || now.Before(s.next):
			continue
		case s.works(now):
			if now.Sub(s.next) > rebuildMost {
				s.wait = 0
			}
			continue
		}
		s.wait = min(max(2*s.wait, rebuildLeast), rebuildMost)
		s.next, s.gaps, s.detours = now.Add(s.wait), 0, 0
		p.rebuilt++
		out = append(out, id)
	}
	return out
}

// works reports whether pulses and announcements arrive in one hop, or may yet, for the
// master was just met.
func (s *sender) works(now time.Time) bool {
	return now.Sub(laterOf(s.direct, s.met)) <= hopless && s.gaps < maxGaps &&
		(s.detours < maxGaps || now.Sub(laterOf(s.detour, s.met)) <= hopless)
}

// direct reports whether pulses of a master arrive in one hop.
func (p *plane) direct(now time.Time, id peer.ID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.of[id]
	return s != nil && !s.direct.IsZero() && now.Sub(s.direct) <= hopless
}

// echoed notes whether a master says that our pulses arrive there in one hop.
func (p *plane) echoed(now time.Time, id peer.ID, is bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sender(now, id).back = is
}

// bothWays reports whether pulses arrive in one hop, from a master and there, and since
// when they do not.
func (p *plane) bothWays(now time.Time, id peer.ID) (is bool, since time.Time) {
	is = p.direct(now, id)
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.of[id]
	switch {
	case s == nil:
		return false, now
	case is && s.back:
		return true, time.Time{}
	}
	return false, laterOf(s.first, s.both)
}

// counts returns how often announcements were missing, and how many connections were made
// anew because nothing arrived over them.
func (p *plane) counts() (gaps, rebuilt uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gaps, p.rebuilt
}

// forget drops a master that is gone for good.
func (p *plane) forget(id peer.ID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.of, id)
}

// Arrived is of [gossip.Handler]: it takes an announcement as it comes in, before it waits
// for the disk.
func (c *Cluster) Arrived(from peer.ID, data []byte) {
	run, seq := dagsync.Sequence(data)
	if c.plane.announced(time.Now(), from, run, seq) {
		c.pull(from)
	}
}

// Hop is of [gossip.Handler]: a message came straight from its author.
func (c *Cluster) Hop(from peer.ID, pulse bool) { c.plane.hop(time.Now(), from, pulse) }

// rebuild makes anew the connections over which nothing arrives.
func (c *Cluster) rebuild(now time.Time) {
	for _, id := range c.plane.broken(now, c.mesh.Peers()) {
		const why = "announcements do not arrive over the connection, it is made anew"
		c.cfg.States.State(slog.LevelWarn, "plane "+id.String(), "rebuilt", why, "master", id)
		c.cfg.Store.Happened(EventRebuilt, id.String(), c.cfg.Members.Name(id.String())+": "+why)
		c.mesh.Drop(id, why)
	}
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
