package workeragent

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// forgetAfter is how long a learned master is still looked for that nobody
	// names any more and that does not answer.
	forgetAfter = 10 * time.Minute

	// givenUp is after how many failures in a row an address no longer counts as
	// leading to its master, so that another may be used in its place. One that
	// has never answered in this run has only one.
	givenUp = 3

	sweepEvery = 30 * time.Second
)

// membership is the list of the masters that the agent knows, and of its links to them.
// One link beats to each master. Configured addresses keep their links for ever. A master
// that an answer named, and to which no configured address leads, gets a link of its own.
type membership struct {
	log       *slog.Logger
	endpoints []endpoint            // that are configured
	link      func(m *member) *link // makes one to a learned master
	first     func() time.Duration  // to wait before the first call after a start
	edges     edgeDialer
	file      memberFile

	work    chan struct{} // holds a token when run should look
	dirty   chan struct{} // holds one when the file should be written
	changed chan struct{} // holds one when masters would return something else

	mu    sync.Mutex // guards what follows, and how the links stand; a leaf, held across no I/O
	known map[string]*member
	pins  map[string]string // edge address that is configured without an id → id of the master first met there
	links []*link           // the configured ones in their order, then the learned ones
}

// knownMaster is what the membership says of a master.
type knownMaster struct {
	ID, Name  string
	EdgeAddrs []string // multiaddrs with the id
	Well      bool     // the last beat to it went well
}

func newMembership(file string, edges edgeDialer, log *slog.Logger) *membership {
	return &membership{
		log: log, edges: edges, file: memberFile{path: file},
		work: make(chan struct{}, 1), dirty: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		known: map[string]*member{}, pins: map[string]string{},
	}
}

// signal puts a token into a channel that has room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it has not been taken since the last one
	}
}

// news has everything looked at again that depends on the membership. The caller
// holds mu.
func (d *membership) news() {
	signal(d.work)
	signal(d.dirty)
	signal(d.changed)
	for _, l := range d.links {
		signal(l.wake)
	}
}

// run keeps the links to what is known until ctx ends: it starts those that are
// there, makes those to learned masters, and forgets masters that are gone. It returns
// when all links have ended.
func (d *membership) run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	start := func(l *link) {
		ctx, stop := context.WithCancel(ctx)
		l.stop = stop
		running.Go(func() {
			defer stop()
			l.run(ctx)
		})
	}
	d.mu.Lock()
	for _, l := range d.links {
		start(l)
	}
	d.mu.Unlock()
	// Agents learn of a master when they beat to another, and so one after the
	// other. What they remember, they remember together.
	for first := d.first; ctx.Err() == nil; first = func() time.Duration { return 0 } {
		for _, m := range d.review(start, first) {
			d.log.Info("forgot a master that is gone", "master", m.id, "name", m.name)
		}
		pause(ctx, sweepEvery, d.work)
	}
}

// review is one look of run. first says how long a new link waits. It returns the masters
// that were forgotten after they had answered.
func (d *membership) review(start func(*link), first func() time.Duration) (gone []*member) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for _, id := range slices.Sorted(maps.Keys(d.known)) {
		m := d.known[id]
		if d.expired(m, now) {
			if !d.answered(id).IsZero() {
				gone = append(gone, m)
			}
			d.drop(m)
			d.news()
		} else if d.wanting(m) {
			l := d.link(m)
			l.first = first()
			d.links = append(d.links, l)
			start(l)
		}
	}
	return gone
}

// wanting reports whether a master should get a link: it has none, no configured
// address leads to it, and none may yet turn out to. The caller holds mu.
func (d *membership) wanting(m *member) bool {
	if m.left || len(d.addresses(m)) == 0 {
		return false
	}
	return !slices.ContainsFunc(d.links, func(l *link) bool {
		here := l.status.Master == m.id
		if l.status.Learned {
			return here
		}
		return !l.status.settled() || here && l.status.holds()
	})
}

// expired reports whether a master can be forgotten. While no other master answers,
// the fault may be on this side, and nothing is forgotten. The caller holds mu.
func (d *membership) expired(m *member, now time.Time) bool {
	others := slices.ContainsFunc(d.links, func(l *link) bool { return l.status.Master != m.id && l.status.well() })
	return others && !d.fixed(m.id) && now.Sub(m.named) >= forgetAfter && now.Sub(d.answered(m.id)) >= forgetAfter
}

// answered returns when a beat to a master last went well; zero: none did in this run. The
// caller holds mu.
func (d *membership) answered(id string) (last time.Time) {
	for _, l := range d.links {
		if at := l.status.LastBeat; l.status.Master == id && at != nil && at.After(last) {
			last = *at
		}
	}
	return last
}

// fixed reports whether an edge address with the id of a master is configured.
func (d *membership) fixed(id string) bool {
	return slices.ContainsFunc(d.endpoints, func(p endpoint) bool { return p.master == id })
}

// drop forgets a master. The caller holds mu.
func (d *membership) drop(m *member) {
	delete(d.known, m.id)
	d.links = slices.DeleteFunc(d.links, func(l *link) bool {
		if !l.status.Learned || l.status.Master != m.id {
			return false
		}
		l.stop()
		return true
	})
}

// learn takes what a master says of the masters, and whether it is on this machine.
func (d *membership) learn(infos []memberInfo, fromHere bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, changed := time.Now(), false
	for _, w := range infos {
		m := d.known[w.ID]
		if m == nil {
			if w.Status == statusLeft || len(d.known) >= maxMasters && !d.makeRoom(now) {
				continue
			}
			m = &member{id: w.ID}
			d.known[w.ID], changed = m, true
		}
		if m.take(w, fromHere, now) {
			changed = true
		}
	}
	if changed {
		d.news()
	}
}

// makeRoom forgets a master that has never answered, the one that was not named
// for longest. The caller holds mu.
func (d *membership) makeRoom(now time.Time) bool {
	var oldest *member
	for _, m := range d.known {
		if m.named.Before(now) && (oldest == nil || m.named.Before(oldest.named)) && !d.fixed(m.id) && d.answered(m.id).IsZero() {
			oldest = m
		}
	}
	if oldest != nil {
		d.drop(oldest)
	}
	return oldest != nil
}

// leadsTo notes to which master a link leads. It returns false when that is not
// the one that a learned link is for.
func (d *membership) leadsTo(l *link, id string) bool {
	if l.status.Learned {
		return l.status.Master == id
	}
	if l.status.Master != id {
		d.note(l, func(s *ExplorerStatus) { s.Master = id })
	}
	return true
}

// note changes how a link stands, on the goroutine of the link.
func (d *membership) note(l *link, change func(*ExplorerStatus)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	was, is := l.status, &l.status
	change(is)
	if was.Master != is.Master || was.holds() != is.holds() || was.well() != is.well() || was.settled() != is.settled() {
		d.news()
	}
}

// active reports whether a link should beat: no earlier one does so to the same
// master.
func (d *membership) active(l *link) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, other := range d.links {
		if other == l || l.status.Master == "" {
			break
		}
		if other.status.Master == l.status.Master && other.status.holds() {
			return false
		}
	}
	return true
}

// tryAgain has links that wait because their master refused them try again now.
func (d *membership) tryAgain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.links {
		signal(l.again)
	}
}

// pin notes who is met at an edge address that is configured without an id, and returns
// who was met there first.
func (d *membership) pin(addr, id string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if was := d.pins[addr]; was != "" {
		return was
	}
	d.pins[addr] = id
	signal(d.dirty)
	return id
}

// reach returns the addresses at which a link to a learned master calls it: its
// URLs, then its edge addresses, without what is configured and so has a link.
func (d *membership) reach(id string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if m := d.known[id]; m != nil {
		return d.addresses(m)
	}
	return nil
}

func (d *membership) addresses(m *member) (out []string) {
	for _, addr := range slices.Concat(m.urls, m.edges) {
		p, err := parseEndpoint(addr)
		if err == nil && !slices.ContainsFunc(d.endpoints, p.same) {
			out = append(out, addr)
		}
	}
	return out
}

// masters returns the masters that are known, in the order of their ids.
func (d *membership) masters() []knownMaster {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []knownMaster
	for _, id := range slices.Sorted(maps.Keys(d.known)) {
		m := d.known[id]
		if m.left {
			continue
		}
		k := knownMaster{ID: id, Name: m.name, EdgeAddrs: slices.Clone(m.edges)}
		for _, p := range d.endpoints {
			if p.master == id && !slices.Contains(k.EdgeAddrs, p.edge) {
				k.EdgeAddrs = append(k.EdgeAddrs, p.edge)
			}
		}
		k.Well = slices.ContainsFunc(d.links, func(l *link) bool { return l.status.Master == id && l.status.well() })
		out = append(out, k)
	}
	return out
}

// status returns how the links stand, the configured ones first.
func (d *membership) status() []ExplorerStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]ExplorerStatus, 0, len(d.links))
	for _, l := range d.links {
		s := l.status
		if m := d.known[s.Master]; m != nil {
			s.Name = m.name
		}
		out = append(out, s)
	}
	return out
}
