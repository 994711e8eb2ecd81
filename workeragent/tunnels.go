package workeragent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"log/slog"
	"slices"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/tunnel"
)

const (
	// wantedTunnels is how many masters an agent keeps a tunnel to: with two, one can
	// go and calls still have a way.
	wantedTunnels = 2

	// openWithin bounds one attempt to open a tunnel.
	openWithin = 6 * time.Second

	// moveEvery is about how often an agent looks whether it should have another tunnel
	// than it has: when a master comes back, tunnels come back to it bit by bit.
	moveEvery = 5 * time.Minute
)

// reopening is the back-off for a master to which no tunnel can be opened. At first it
// is short: the agent is well before the master has its account.
var reopening = backoff{floor: 100 * time.Millisecond, base: 500 * time.Millisecond, most: 10 * time.Second}

// tunnels keeps a tunnel to some of the masters, over which they call the compute
// service of this node.
type tunnels struct {
	node string
	log  *slog.Logger
	list func() []knownMaster // that are known now
	at   func(addrs []string) (*tunnel.Master, error)
	open func(ctx context.Context, m *tunnel.Master, id string) (opened, error)
	who  func(ctx context.Context, addr string) (id string, err error)
	news chan struct{}  // holds a token when an attempt has ended or a tunnel is gone
	all  sync.WaitGroup // goroutines that run has started, and waits for

	mu    sync.Mutex       // guards edges and what they point to; held across no I/O
	edges map[string]*edge // by the master's id
}

// opened is a tunnel that is open: a [tunnel.Tunnel].
type opened interface {
	Done() <-chan struct{}
	Err() error
	Close()
}

// edge is how it stands with one master.
type edge struct {
	id, name string
	addrs    []string
	master   *tunnel.Master
	well     bool               // the last beat to it went well
	release  context.CancelFunc // ends the attempt or the tunnel that there is; nil: there is none
	open     bool               // what release ends is a tunnel
	failures int                // in a row
	next     time.Time          // of the next attempt
	noCalls  bool               // it takes no calls over the edge
	last     string             // what the log said last
}

func newTunnels(node string, boot func() uint64, client *tunnel.Client, log *slog.Logger) *tunnels {
	return &tunnels{
		node: node, log: log, at: client.Master, who: client.Identify, edges: map[string]*edge{}, news: make(chan struct{}, 1),
		open: func(ctx context.Context, m *tunnel.Master, _ string) (opened, error) {
			t, err := m.Open(ctx, node, boot())
			if err != nil {
				return nil, err // not a nil *Tunnel in an opened
			}
			return t, nil
		},
	}
}

// run keeps the tunnels open until ctx ends, and returns when all are closed. changed
// holds a token when the masters have changed.
func (t *tunnels) run(ctx context.Context, changed <-chan struct{}) {
	defer t.all.Wait()
	move := time.NewTimer(jittered(moveEvery))
	defer move.Stop()
	for moving := false; ctx.Err() == nil; {
		again := time.NewTimer(t.step(ctx, moving))
		moving = false
		select {
		case <-again.C:
		case <-changed:
		case <-t.news:
		case <-move.C:
			moving = true
			move.Reset(jittered(moveEvery))
		case <-ctx.Done():
		}
		again.Stop()
	}
}

// step opens what is missing, and says how long to wait when nothing happens. moving: one
// is opened as well that this node would rather have than the worst of those it has. That
// goes when the other is open: a master that answers need not have an edge that can be
// reached.
func (t *tunnels) step(ctx context.Context, moving bool) time.Duration {
	masters := t.list()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.refresh(masters)
	now, wait, have := time.Now(), time.Minute, 0
	for _, e := range t.edges {
		if e.release != nil {
			have++
		}
	}
	for rank, e := range t.ranked() {
		better := moving && rank < wantedTunnels && e.well
		if have >= wantedTunnels && !better {
			break
		}
		if e.release != nil {
			continue
		}
		if left := e.next.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		if have >= wantedTunnels {
			moving = false
		}
		have++
		ctx, release := context.WithCancel(ctx)
		e.release = release
		master := e.master
		t.all.Go(func() {
			defer release()
			t.hold(ctx, e, master)
		})
	}
	return wait
}

// refresh takes the masters of the moment. The caller holds mu.
func (t *tunnels) refresh(masters []knownMaster) {
	current := map[string]bool{}
	for _, m := range masters {
		if len(m.EdgeAddrs) == 0 {
			continue
		}
		current[m.ID] = true
		e := t.edges[m.ID]
		if e == nil {
			e = &edge{id: m.ID}
			t.edges[m.ID] = e
		}
		e.name, e.well = m.Name, m.Well
		if !slices.Equal(e.addrs, m.EdgeAddrs) {
			master, err := t.at(m.EdgeAddrs)
			if err != nil {
				continue // its addresses were looked at when they were learned
			}
			t.leave(e)
			e.addrs, e.master, e.next, e.failures = m.EdgeAddrs, master, time.Time{}, 0
		}
	}
	for id, e := range t.edges {
		if !current[id] && e.release == nil {
			delete(t.edges, id)
			t.leave(e)
		}
	}
}

// leave closes what calls to a master go over, which may wait for the network. The caller
// holds mu.
func (t *tunnels) leave(e *edge) {
	if e.master != nil {
		t.all.Go(e.master.Close)
	}
}

// ranked returns the masters in the order in which this node wants tunnels to them:
// those that answer first, and among them each node in an order of its own, so that
// all masters get their share. The caller holds mu.
func (t *tunnels) ranked() []*edge {
	var all []*edge
	for _, e := range t.edges {
		if e.master != nil {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, func(a, b *edge) int {
		if a.well != b.well {
			if a.well {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(t.share(a.id), t.share(b.id)), cmp.Compare(a.id, b.id))
	})
	return all
}

// share is the place of a master in this node's order ("rendezvous hashing", Thaler
// and Ravishankar, 1998).
func (t *tunnels) share(master string) uint64 {
	sum := sha256.Sum256([]byte(t.node + " " + master))
	return binary.BigEndian.Uint64(sum[:])
}

// hold opens a tunnel and keeps it until it is lost or ctx ends.
func (t *tunnels) hold(ctx context.Context, e *edge, master *tunnel.Master) {
	attempt, cancel := context.WithTimeout(ctx, openWithin)
	tun, err := t.open(attempt, master, e.id)
	cancel()
	if err != nil {
		if t.ended(e, 0) > 2 { // at first the master does not know the node yet
			t.logState(e, slog.LevelWarn, "no tunnel to a master", "error", err)
		}
		return
	}
	t.begun(e)
	t.logState(e, slog.LevelInfo, "tunnel open")
	select {
	case <-tun.Done():
		t.ended(e, 2) // a master that stops leaves all its agents at once: they come back one by one
		t.logState(e, slog.LevelInfo, "tunnel lost", "error", tun.Err())
	case <-ctx.Done():
		tun.Close()
		t.ended(e, 0)
		t.logState(e, slog.LevelInfo, "tunnel closed")
	}
}

// begun notes that a tunnel is open, and closes the one that this node wants least where
// it has one too many.
func (t *tunnels) begun(e *edge) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e.open, e.failures = true, 0
	have := 0
	for _, other := range t.ranked() {
		if !other.open {
			continue
		}
		if have++; have > wantedTunnels {
			other.open = false
			other.release()
		}
	}
}

// ended notes that an attempt has failed, or that a tunnel is gone, and returns how many
// failures that makes in a row. The next attempt waits as it does after some more.
func (t *tunnels) ended(e *edge, more int) (failures int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer signal(t.news)
	e.open, e.release = false, nil
	e.failures++
	e.next = time.Now().Add(reopening.delay(e.failures + more))
	return e.failures
}

// logState logs a change, and is silent while nothing else happens.
func (t *tunnels) logState(e *edge, level slog.Level, message string, args ...any) {
	t.mu.Lock()
	same, name := e.last == message, e.name
	e.last = message
	t.mu.Unlock()
	if !same {
		t.log.Log(context.Background(), level, message, append(args, "master", e.id, "name", name)...)
	}
}

// status returns the ids of the masters to which there are tunnels.
func (t *tunnels) status() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := []string{}
	for _, e := range t.ranked() {
		if e.open {
			out = append(out, e.id)
		}
	}
	return out
}

// framed returns a caller for a master to which there is a tunnel; nil: there is none,
// or the master takes no calls over it.
func (t *tunnels) framed(id string) caller {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.edges[id]
	if e == nil || !e.open || e.noCalls {
		return nil
	}
	return &asker{master: e.master, onNoCalls: func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		e.noCalls = true
	}}
}

// identify returns the id of the master at an edge address without one.
func (t *tunnels) identify(ctx context.Context, addr string) (string, error) { return t.who(ctx, addr) }

// caller returns a caller for the master at some edge addresses.
func (t *tunnels) caller(addrs []string) (caller, error) {
	m, err := t.at(addrs)
	if err != nil {
		return nil, err
	}
	return &asker{master: m}, nil
}
