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

// membership is what the agent knows of the masters of its grid, and which of its
// links beats to which: one for each master. Configured addresses keep their
// links for ever. A master that an answer named, and to which no configured
// address leads, gets a link of its own.
//
// While its mutex is held, only the states of links and the node are locked.
type membership struct {
	log     *slog.Logger
	path    string                     // of the file; empty: none is kept
	link    func(m *member) *link      // makes one to a learned master
	first   func() time.Duration       // to wait before the first call after a start
	tunnels bool                       // edge addresses can be called
	tunnel  func(master string) caller // over a tunnel that is up; nil: there are none

	work    chan struct{} // holds a token when run should look
	dirty   chan struct{} // holds one when the file should be written
	changed chan struct{} // holds one when masters would return something else

	mu        sync.Mutex // guards what follows, and the slots of the links
	known     map[string]*member
	endpoints []endpoint        // that are configured
	pins      map[string]string // edge address that is configured without an id → id of the master first met there
	leads     map[string]string // configured address → id of the master it led to last
	links     []*link           // the configured ones in their order, then the learned ones
	saved     []byte
}

// member is what is known of one master.
type member struct {
	id, name string
	urls     []string  // of its API, as far as usable from here
	edges    []string  // for tunnels
	fixed    bool      // an edge address of it is configured
	left     bool      // it has stopped on purpose
	named    time.Time // when an answer last named it
	proven   bool      // it has answered in this run
}

// slot is a link's entry in the membership.
type slot struct {
	master   string // id; empty: not known yet
	failures int    // in a row
	good     time.Time
	stop     context.CancelFunc
}

// knownMaster is what the membership says of a master.
type knownMaster struct {
	ID, Name  string
	EdgeAddrs []string // multiaddrs with the id
	Well      bool     // the last beat to it went well
}

func newMembership(path string, log *slog.Logger) *membership {
	return &membership{
		log: log, path: path,
		work: make(chan struct{}, 1), dirty: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		known: map[string]*member{}, leads: map[string]string{}, pins: map[string]string{},
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

// tryAgain has links that wait because their master refused them try again now.
func (d *membership) tryAgain() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range d.links {
		signal(l.again)
	}
}

// learn takes what a master says of the masters, and whether it is on this machine.
func (d *membership) learn(infos []memberInfo, fromHere bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, changed := time.Now(), false
	for _, w := range infos {
		if d.take(w, fromHere, now) {
			changed = true
		}
	}
	if changed {
		d.news()
	}
}

// take takes what was said of one master, and reports whether it was news. The
// caller holds mu.
func (d *membership) take(w memberInfo, fromHere bool, now time.Time) (changed bool) {
	m := d.known[w.ID]
	if w.Status == statusLeft {
		if m != nil && !m.left {
			m.left, changed = true, true
		}
		return changed
	}
	if m == nil {
		if len(d.known) >= maxMasters && !d.makeRoom(now) {
			return false
		}
		m = &member{id: w.ID}
		d.known[w.ID], changed = m, true
		d.log.Debug("learned of a master", "master", w.ID, "name", clip(w.Name))
	}
	m.named = now
	if m.left {
		m.left, changed = false, true
	}
	if name := clip(w.Name); name != m.name {
		m.name, changed = name, true
	}
	// Of a master that is away the others may have an old account.
	current := w.Status == statusSelf || w.Status == statusAlive
	for _, kind := range []struct {
		said  []string
		into  *[]string
		edges bool
	}{{w.RPCURLs, &m.urls, false}, {w.EdgeAddrs, &m.edges, true}} {
		addrs := usable(w.ID, kind.said, kind.edges, fromHere, *kind.into)
		if len(addrs) > 0 && (current || len(*kind.into) == 0) && !slices.Equal(addrs, *kind.into) {
			*kind.into, changed = addrs, true
		}
	}
	return changed
}

// makeRoom forgets a master that has never answered, the one that was not named
// for longest. The caller holds mu.
func (d *membership) makeRoom(now time.Time) bool {
	var oldest *member
	for _, m := range d.known {
		if !m.proven && !m.fixed && m.named.Before(now) && (oldest == nil || m.named.Before(oldest.named)) {
			oldest = m
		}
	}
	if oldest != nil {
		d.drop(oldest)
	}
	return oldest != nil
}

// drop forgets a master. The caller holds mu.
func (d *membership) drop(m *member) {
	delete(d.known, m.id)
	d.links = slices.DeleteFunc(d.links, func(l *link) bool {
		if l.route == nil || l.slot.master != m.id {
			return false
		}
		if l.slot.stop != nil {
			l.slot.stop()
		}
		return true
	})
}

// leadsTo notes to which master a link leads. It returns false when that is not
// the one that a learned link is for.
func (d *membership) leadsTo(l *link, id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if l.route != nil {
		return l.slot.master == id
	}
	if l.slot.master != id {
		l.slot.master, d.leads[l.state.get().Address] = id, id
		d.news()
	}
	return true
}

// noteOutcome notes how the last call of a link went.
func (d *membership) noteOutcome(l *link, well bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := l.slot
	if well {
		l.slot.failures, l.slot.good = 0, time.Now()
		if m := d.known[l.slot.master]; m != nil {
			m.proven = true
		}
	} else {
		l.slot.failures++
	}
	if before.holds() != l.slot.holds() || before.well() != l.slot.well() || before.settled() != l.slot.settled() {
		d.news()
	}
}

// well reports whether the last beat went well.
func (s slot) well() bool { return s.failures == 0 && !s.good.IsZero() }

// holds reports whether the address still counts as leading to its master.
func (s slot) holds() bool { return s.failures == 0 || s.failures < givenUp && !s.good.IsZero() }

// settled reports whether it is known where the address leads, or that it leads
// nowhere for now.
func (s slot) settled() bool { return s.master != "" || s.failures > 0 || !s.good.IsZero() }

// active reports whether a link should beat: no earlier one does so to the same
// master.
func (d *membership) active(l *link) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, other := range d.links {
		if other == l {
			break
		}
		if l.slot.master != "" && other.slot.master == l.slot.master && other.slot.holds() {
			return false
		}
	}
	return true
}

// framed returns a caller for the master of a link over a tunnel; nil: there is
// none.
func (d *membership) framed(l *link) caller {
	if d.tunnel == nil {
		return nil
	}
	d.mu.Lock()
	id := l.slot.master
	d.mu.Unlock()
	if id == "" {
		return nil
	}
	return d.tunnel(id)
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
	addrs := m.urls
	if d.tunnels {
		addrs = slices.Concat(m.urls, m.edges)
	}
	for _, addr := range addrs {
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
		for _, l := range d.links {
			k.Well = k.Well || l.slot.master == id && l.slot.well()
		}
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
		s := l.state.get()
		s.Master, s.Learned = l.slot.master, l.route != nil
		if m := d.known[s.Master]; m != nil {
			s.Name = m.name
		}
		out = append(out, s)
	}
	return out
}
