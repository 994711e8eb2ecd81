package runs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
)

// What happens when two processes have one identity, as after a data directory was copied.
const (
	EventCollision    = "identity_collision" // both live
	EventCollisionEnd = "identity_single"    // only one does
)

// ErrCollision says that another process has the identity of this master, and counts.
var ErrCollision = errors.New("another process has the identity of this master")

const (
	// yieldFor is how long after it last heard of the run to which it yielded a master
	// asks again to be admitted. A restart of the other takes less.
	yieldFor = time.Minute
	// reportedFor is for how long what another master says of collisions is shown.
	reportedFor = 5 * time.Second
	// maxCollisions bounds the collisions that one master is heard to tell of, and
	// maxPlaces the runs of which it is remembered where they are.
	maxCollisions = 16
	maxPlaces     = 64
)

// Mesh is the connections to other masters; see [p2p.Mesh], which is one.
type Mesh interface {
	Peers() []peer.ID
	// Drop closes the connections to a master.
	Drop(id peer.ID, why string)
	// MemberRun returns which run of a master is connected, and where it is.
	MemberRun(id peer.ID) (run, at string)
}

// Collisions finds processes that have one identity, and decides which one counts: the one
// that began first, by the clocks of the hosts on which they began, of those that have not
// yielded before. The other one yields:
// it takes no writes and is admitted nowhere. It is what the mesh asks about runs.
// Its methods may be called concurrently.
type Collisions struct {
	table *Table
	run   string // of this master
	self  string // id of this master

	mu      sync.Mutex // guards what follows
	mesh    Mesh       // nil: there is none yet
	yielded bool       // this run has yielded, and was not admitted since
	yield   *yield
	mine    collision            // the other process of this master's identity, while this one counts
	reports map[string]reported  // by who tells
	place   map[string]string    // by run
	open    map[string]collision // by master, as last published
	found   []Collision          // those of them that this master has found itself
}

// yield is that this run is refused.
type yield struct {
	kept  string
	since time.Time
	last  time.Time // when that was last heard
}

// reported is what another master says of collisions.
type reported struct {
	at   time.Time
	list []liveness.Collision
}

// collision is one that this master knows of.
type collision struct {
	kept, refused string // runs
	since, last   time.Time
}

var _ p2p.Runs = (*Collisions)(nil)

// NewCollisions returns what a run of a master begins with.
func NewCollisions(self, run string) *Collisions {
	return &Collisions{
		table: New(), run: run, self: self,
		reports: map[string]reported{}, place: map[string]string{}, open: map[string]collision{},
	}
}

// Use says by which mesh the other masters are reached.
func (c *Collisions) Use(m Mesh) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mesh = m
}

// Asks is of [p2p.Runs].
func (c *Collisions) Asks(id peer.ID, run string, yielded bool) *p2p.CollisionError {
	no := c.table.Asks(time.Now(), id.String(), run, yielded)
	if no == nil {
		return nil
	}
	return &p2p.CollisionError{Kept: no.Kept, Refused: no.Refused}
}

// Both is of [p2p.Runs].
func (c *Collisions) Both(id peer.ID, a, b p2p.Party) {
	c.mu.Lock()
	if len(c.place) > maxPlaces {
		clear(c.place)
	}
	c.place[a.Run], c.place[b.Run] = a.At, b.At
	c.mu.Unlock()
	if id.String() != c.self {
		c.table.Both(time.Now(), id.String(), a.Run, b.Run)
		return
	}
	if a.Yielded && !b.Yielded || a.Yielded == b.Yielded && a.Run > b.Run {
		a, b = b, a
	}
	if a.Yielded && a.Run == c.run { // to a run that is gone: the other one has yielded too
		c.mu.Lock()
		c.yield = nil
		c.mu.Unlock()
	}
	c.itself(a.Run, b.Run)
}

// HasYielded is of [p2p.Runs].
func (c *Collisions) HasYielded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.yielded
}

// Met notes that this run and one of another master have admitted each other.
func (c *Collisions) Met(now time.Time, id, run string) {
	c.mu.Lock()
	c.yielded = c.yield != nil
	c.mu.Unlock()
	c.table.Met(now, id, run)
}

// Left notes that a run of another master has ended, and reports whether it was the one
// that lives.
func (c *Collisions) Left(id, run string) bool { return c.table.Left(id, run) }

// Forget drops a master that is gone for good.
func (c *Collisions) Forget(id string) { c.table.Forget(id) }

// itself notes that two runs of this master's identity live.
func (c *Collisions) itself(kept, refused string) {
	now := time.Now()
	c.mu.Lock()
	began := false
	switch c.run {
	case refused:
		if began = c.yield == nil; began {
			c.yield = &yield{since: now}
		}
		c.yield.kept, c.yield.last, c.yielded = kept, now, true
	case kept:
		if c.mine.refused != refused || now.Sub(c.mine.last) > reportedFor {
			c.mine = collision{kept: kept, refused: refused, since: now}
		}
		c.mine.last = now
	}
	mesh := c.mesh
	c.mu.Unlock()
	if began && mesh != nil {
		for _, id := range mesh.Peers() {
			mesh.Drop(id, "this process yields to another one that has its identity")
		}
	}
}

// Yield is of [p2p.Runs].
func (c *Collisions) Yield(_ peer.ID, k p2p.CollisionError) {
	c.mu.Lock()
	if k.At != "" && len(c.place) < maxPlaces {
		c.place[k.Kept] = k.At
	}
	c.mu.Unlock()
	c.itself(k.Kept, c.run)
}

// Yielded is of [p2p.Runs].
func (c *Collisions) Yielded() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.yield == nil {
		return nil
	}
	if time.Since(c.yield.last) > yieldFor {
		c.yield = nil
		return nil
	}
	where := ""
	if at := c.place[c.yield.kept]; at != "" {
		where = ", at " + at
	}
	return fmt.Errorf("%w%s, and that one counts; stop one of the two. A copy of a data directory becomes a master of its own, and keeps its records, when identity.key is deleted from it before the start", ErrCollision, where)
}

// Observe takes another master's pulse, and reports whether it is of the run that lives.
// The connection to a run that is refused is closed.
func (c *Collisions) Observe(now time.Time, from string, m *liveness.MasterInfo) (current bool) {
	verdict, found := c.table.Observe(now, from, c.pulse(m))
	if found != nil {
		c.enforce(found)
	}
	if verdict == Current {
		c.reported(now, from, m.Collisions)
	}
	return verdict == Current
}

// reported takes what another master says of collisions.
func (c *Collisions) reported(now time.Time, from string, list []liveness.Collision) {
	list = list[:min(len(list), maxCollisions)]
	c.mu.Lock()
	if len(list) > 0 {
		c.reports[from] = reported{now, list}
	} else {
		delete(c.reports, from)
	}
	c.mu.Unlock()
	for _, k := range list {
		if k.Master == c.self {
			c.itself(k.Kept, k.Refused)
		}
	}
}

// Stamp has this master's next pulse say what others tell its run by: its number, which
// pulses of theirs came last, for them to see that this master had them, and the
// collisions that it has found.
func (c *Collisions) Stamp(now time.Time, m *liveness.MasterInfo) {
	m.Run, m.Seq = c.run, c.table.Next()
	for id, p := range c.table.Echoes(now) {
		m.Echoes = append(m.Echoes, liveness.Echo{Master: id, Run: p.Run, Seq: p.Seq})
	}
	slices.SortFunc(m.Echoes, func(a, b liveness.Echo) int { return strings.Compare(a.Master, b.Master) })
	m.Echoes = m.Echoes[:min(len(m.Echoes), membership.MaxObserved)]
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range c.found {
		m.Collisions = append(m.Collisions, liveness.Collision{Master: k.Master, Kept: k.Kept, Refused: k.Refused})
	}
}

// pulse returns what another master's pulse says of its run.
func (c *Collisions) pulse(m *liveness.MasterInfo) Pulse {
	p := Pulse{Run: m.Run, Seq: m.Seq}
	if len(p.Run) > p2p.MaxRun {
		p.Run = ""
	}
	for _, e := range m.Echoes {
		if e.Master == c.self && e.Run == c.run {
			p.Echo = e.Seq
		}
	}
	return p
}

// enforce closes the connection to a run that is refused.
func (c *Collisions) enforce(found *Collision) {
	c.mu.Lock()
	mesh := c.mesh
	c.mu.Unlock()
	id, err := peer.Decode(found.Master)
	if err != nil || mesh == nil {
		return
	}
	if run, at := mesh.MemberRun(id); run == found.Refused {
		c.mu.Lock()
		if len(c.place) < maxPlaces {
			c.place[run] = at
		}
		c.mu.Unlock()
		mesh.Drop(id, "another process has its identity, and was there first")
	}
}

// Change is a collision that has begun, or ended.
type Change struct {
	Master string
	Open   bool
	Text   string // what it is; empty: it has ended
}

// Look returns the collisions that have begun or ended since it was called last, in the
// order of the masters.
func (c *Collisions) Look(now time.Time) (out []Change) {
	found, _ := c.table.Look(now)
	all := map[string]collision{}
	c.mu.Lock()
	defer c.mu.Unlock()
	for from, t := range c.reports {
		if now.Sub(t.at) > reportedFor {
			delete(c.reports, from)
			continue
		}
		for _, k := range t.list {
			all[k.Master] = collision{kept: k.Kept, refused: k.Refused, since: t.at}
		}
	}
	for _, k := range found {
		all[k.Master] = collision{kept: k.Kept, refused: k.Refused, since: k.Since}
	}
	delete(all, c.self) // of this master it knows best itself
	switch {
	case c.yield != nil:
		all[c.self] = collision{kept: c.yield.kept, refused: c.run, since: c.yield.since}
	case c.mine.refused != "" && now.Sub(c.mine.last) <= reportedFor:
		all[c.self] = c.mine
	}
	was := c.open
	for id, k := range all {
		if before, is := was[id]; is {
			k.since = before.since
			all[id] = k
			continue
		}
		out = append(out, Change{Master: id, Open: true, Text: c.text(k)})
	}
	for id := range was {
		if _, is := all[id]; !is {
			out = append(out, Change{Master: id})
		}
	}
	c.open, c.found = all, found
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(a.Master, b.Master) })
	return out
}

// Of returns what to do about two processes of a master's identity, and since when there
// are; false: there are not.
func (c *Collisions) Of(id string) (text string, since time.Time, is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, is := c.open[id]
	if is {
		text, since = c.text(k), k.since
	}
	return text, since, is
}

// text says what a collision is. It is called with mu held.
func (c *Collisions) text(k collision) string {
	at := func(run string) string {
		switch where := c.place[run]; {
		case run == c.run:
			return "this one"
		case where != "":
			return "the one at " + where
		}
		return "the other one"
	}
	text := "two processes have this identity, as after a copy of the data directory: "
	if k.refused == c.run {
		return text + at(k.kept) + " counts, this one is refused; stop it, or delete identity.key from its data directory and start it anew"
	}
	return text + at(k.kept) + " counts; stop " + at(k.refused) + ", or delete identity.key from its data directory and start it anew"
}
