package cluster

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
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/runs"
)

// What happens when two processes have one identity, as after a data directory was copied.
const (
	EventCollision    = "identity_collision" // both live
	EventCollisionEnd = "identity_single"    // only one does
)

// ErrCollision: another process has the identity of this master, and that one counts.
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

// Collisions finds processes that have one identity, and decides which one counts: the one
// that began first, by the clocks of the hosts on which they began, of those that have not
// yielded before. The other one yields:
// it takes no writes and is admitted nowhere. It is what the mesh asks about runs.
// Its methods may be called concurrently.
type Collisions struct {
	table *runs.Table
	run   string // of this master
	self  string // id of this master
	drop  func(id peer.ID, why string)
	peers func() []peer.ID

	mu      sync.Mutex // guards what follows
	yielded bool       // this run has yielded, and was not admitted since
	yield   *yield
	mine    collision            // the other process of this master's identity, while this one counts
	reports map[string]reported  // by who tells
	place   map[string]string    // by run
	open    map[string]collision // by master, as last published to watchers
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

// NewCollisions returns those of a master and its run: none yet.
func NewCollisions(self, run string) *Collisions {
	return &Collisions{
		table: runs.New(), run: run, self: self,
		drop: func(peer.ID, string) {}, peers: func() []peer.ID { return nil },
		reports: map[string]reported{}, place: map[string]string{}, open: map[string]collision{},
	}
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

// admitted notes that another master has admitted this run.
func (c *Collisions) admitted() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.yielded = c.yield != nil
}

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
	c.mu.Unlock()
	if began {
		for _, id := range c.peers() {
			c.drop(id, "this process yields to another one that has its identity")
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

// observe takes what another master says of collisions.
func (c *Collisions) observe(now time.Time, from string, list []liveness.Collision) {
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

// echoes returns the last pulses of the others, for them to see that this master had them.
func (c *Collisions) echoes(now time.Time) (out []liveness.Echo) {
	for id, p := range c.table.Echoes(now) {
		out = append(out, liveness.Echo{Master: id, Run: p.Run, Seq: p.Seq})
	}
	slices.SortFunc(out, func(a, b liveness.Echo) int { return strings.Compare(a.Master, b.Master) })
	return out[:min(len(out), membership.MaxObserved)]
}

// pulse returns what another master's pulse says of its run.
func (c *Collisions) pulse(m *liveness.MasterInfo) runs.Pulse {
	p := runs.Pulse{Run: m.Run, Seq: m.Seq}
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
func (c *Collisions) enforce(found *runs.Collision, member func(peer.ID) (run, at string)) {
	id, err := peer.Decode(found.Master)
	if err != nil {
		return
	}
	if run, at := member(id); run == found.Refused {
		c.mu.Lock()
		if len(c.place) < maxPlaces {
			c.place[run] = at
		}
		c.mu.Unlock()
		c.drop(id, "another process has its identity, and was there first")
	}
}

// look returns the collisions that this master has found itself, and tells of those that
// begin or end.
func (c *Collisions) look(now time.Time, publish func(id string, k collision, open bool)) []runs.Collision {
	own, _ := c.table.Look(now)
	all := map[string]collision{}
	c.mu.Lock()
	for from, t := range c.reports {
		if now.Sub(t.at) > reportedFor {
			delete(c.reports, from)
			continue
		}
		for _, k := range t.list {
			all[k.Master] = collision{kept: k.Kept, refused: k.Refused, since: t.at}
		}
	}
	for _, k := range own {
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
		}
	}
	c.open = all
	c.mu.Unlock()
	for id, k := range all {
		if _, is := was[id]; !is {
			publish(id, k, true)
		}
	}
	for id, k := range was {
		if _, is := all[id]; !is {
			publish(id, k, false)
		}
	}
	return own
}

// Of returns what there is to be known of a collision of a master's identity, and since
// when it lasts.
func (c *Collisions) Of(id string) (text string, since time.Time, is bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k, is := c.open[id]
	if is {
		text = c.text(k)
	}
	return text, k.since, is
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

// collided tells of a collision that begins or ends.
func (c *Cluster) collided(id string, k collision, open bool) {
	name := c.cfg.Members.Name(id)
	if open {
		text := fmt.Sprintf("%s: %s", name, c.cfg.Collisions.describe(k))
		c.cfg.Logger.Error("two processes have one identity", "master", id, "text", text)
		c.cfg.Store.Happened(EventCollision, id, text)
	} else {
		text := fmt.Sprintf("one process only has the identity of %s again", name)
		c.cfg.Logger.Info("one process only has an identity again", "master", id, "text", text)
		c.cfg.Store.Happened(EventCollisionEnd, id, text)
	}
	c.cfg.Store.MasterChanged(id)
}

func (c *Collisions) describe(k collision) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text(k)
}
