package workeragent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/tunnel"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
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
	boot func() uint64 // that the node speaks as
	log  *slog.Logger
	list func() []knownMaster // that are known now
	at   func(addrs []string) (*tunnel.Master, error)
	open func(ctx context.Context, m *tunnel.Master, id string) (opened, error)
	news chan struct{} // holds a token when an attempt has ended or a tunnel is gone

	mu    sync.Mutex       // guards what follows
	edges map[string]*edge // by the master's id
}

// opened is a tunnel that is open: a [tunnel.Tunnel].
type opened interface {
	Done() <-chan struct{}
	Err() error
	Close()
}

// edge is how it stands with one master. The mutex of tunnels guards it.
type edge struct {
	id, name string
	addrs    []string
	master   *tunnel.Master
	well     bool // the last beat to it went well
	tunnel   opened
	opening  bool
	failures int // in a row
	next     time.Time
	last     string // what the log said last
	noCalls  bool   // it takes no calls over the edge
}

func newTunnels(node string, boot func() uint64, client *tunnel.Client, log *slog.Logger) *tunnels {
	return &tunnels{
		node: node, boot: boot, log: log, at: client.Master, edges: map[string]*edge{}, news: make(chan struct{}, 1),
		open: func(ctx context.Context, m *tunnel.Master, _ string) (opened, error) {
			t, err := m.Open(ctx, node, boot())
			if err != nil {
				return nil, err // not a nil *Tunnel in an opened
			}
			return t, nil
		},
	}
}

// run keeps the tunnels open until ctx ends. changed holds a token when the masters
// have changed.
func (t *tunnels) run(ctx context.Context, changed <-chan struct{}) {
	move := time.NewTimer(jittered(moveEvery))
	defer move.Stop()
	for ctx.Err() == nil {
		wait := t.step(ctx)
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-changed:
		case <-t.news:
		case <-move.C:
			t.move(ctx)
			move.Reset(jittered(moveEvery))
		case <-ctx.Done():
		}
		again.Stop()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.edges {
		if e.tunnel != nil {
			go e.tunnel.Close()
		}
	}
}

// step opens what is missing, and says how long to wait when nothing happens.
func (t *tunnels) step(ctx context.Context) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range t.refresh() {
		go m.Close() // beats need mu, and this may wait for the network
	}
	now, wait, have := time.Now(), time.Minute, 0
	for _, e := range t.edges {
		if e.tunnel != nil || e.opening {
			have++
		}
	}
	for _, e := range t.ranked() {
		if have >= wantedTunnels {
			break
		}
		if e.tunnel != nil || e.opening {
			continue
		}
		if left := e.next.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		have++
		t.begin(ctx, e)
	}
	return wait
}

// refresh takes the masters of the moment, and returns those to be closed. The caller
// holds mu.
func (t *tunnels) refresh() (left []*tunnel.Master) {
	current := map[string]bool{}
	for _, m := range t.list() {
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
				t.log.Warn("a master's edge addresses cannot be used", "master", m.ID, "error", err)
				continue
			}
			if e.master != nil {
				left = append(left, e.master)
			}
			e.addrs, e.master, e.next, e.failures = m.EdgeAddrs, master, time.Time{}, 0
		}
	}
	for id, e := range t.edges {
		if !current[id] && e.tunnel == nil && !e.opening {
			delete(t.edges, id)
			if e.master != nil {
				left = append(left, e.master)
			}
		}
	}
	return left
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

// begin opens a tunnel in the background. The caller holds mu.
func (t *tunnels) begin(ctx context.Context, e *edge) {
	e.opening = true
	master := e.master
	go func() {
		ctx, cancel := context.WithTimeout(ctx, openWithin)
		defer cancel()
		tun, err := t.open(ctx, master, e.id)
		t.ended(ctx, e, tun, err)
	}()
}

// ended takes the outcome of an attempt.
func (t *tunnels) ended(ctx context.Context, e *edge, tun opened, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer signal(t.news)
	e.opening = false
	if err != nil {
		e.failures++
		e.next = time.Now().Add(reopening.delay(e.failures))
		if e.failures > 2 { // at first the master does not know the node yet
			t.logState(e, slog.LevelWarn, "no tunnel to a master", "error", err)
		}
		return
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		go tun.Close()
		return
	}
	e.tunnel, e.failures = tun, 0
	t.logState(e, slog.LevelInfo, "tunnel open")
	go func() {
		<-tun.Done()
		t.lost(e, tun)
	}()
	t.trim()
}

// trim closes the tunnel that this node wants least, where it has one too many. The
// caller holds mu.
func (t *tunnels) trim() {
	have := 0
	for _, e := range t.ranked() {
		if e.tunnel == nil {
			continue
		}
		if have++; have > wantedTunnels {
			go e.tunnel.Close()
			e.tunnel = nil
			t.logState(e, slog.LevelInfo, "tunnel closed, another one has its place")
		}
	}
}

// lost notes that a tunnel is gone. The next attempt waits for a random while: a master
// that stops leaves all its agents at once.
func (t *tunnels) lost(e *edge, tun opened) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer signal(t.news)
	if e.tunnel != tun {
		return
	}
	e.tunnel, e.failures = nil, 1
	e.next = time.Now().Add(reopening.delay(3))
	t.logState(e, slog.LevelInfo, "tunnel lost", "error", tun.Err())
}

// move opens a tunnel to a master that this node would rather have one to. When it is
// open the one goes that this node wants least: a master that answers need not have an
// edge that can be reached.
func (t *tunnels) move(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var missing *edge
	surplus := false
	for i, e := range t.ranked() {
		switch {
		case i < wantedTunnels && e.well && e.tunnel == nil && missing == nil:
			missing = e
		case i >= wantedTunnels && e.tunnel != nil:
			surplus = true
		}
	}
	if missing != nil && surplus && !missing.opening {
		t.begin(ctx, missing)
	}
}

// logState logs a change, and is silent while nothing else happens. The caller holds mu.
func (t *tunnels) logState(e *edge, level slog.Level, message string, args ...any) {
	if e.last == message {
		return
	}
	e.last = message
	t.log.Log(context.Background(), level, message, append(args, "master", e.id, "name", e.name)...)
}

// status returns the ids of the masters to which there are tunnels.
func (t *tunnels) status() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := []string{}
	for _, e := range t.ranked() {
		if e.tunnel != nil {
			out = append(out, e.id)
		}
	}
	return out
}

// caller returns a caller for the master at some edge addresses.
func (t *tunnels) caller(addrs []string) (caller, error) {
	m, err := t.at(addrs)
	if err != nil {
		return nil, err
	}
	return &asker{master: m}, nil
}

// framed returns a caller for a master to which there is a tunnel; nil: there is none,
// or the master takes no calls over it.
func (t *tunnels) framed(id string) caller {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.edges[id]
	if e == nil || e.tunnel == nil || e.noCalls {
		return nil
	}
	return &asker{master: e.master, onNoCalls: func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		e.noCalls = true
	}}
}

// errDeaf: the master takes no calls over the edge. It has done nothing.
var errNoCalls = errors.New("this master takes calls over HTTP only")

// asker calls a master over the connection of tunnels.
type asker struct {
	master    *tunnel.Master
	onNoCalls func() // called when the master takes no calls this way; nil: there is no other way
	id        uint64
}

func (a *asker) Call(ctx context.Context, method string, params, result any) error {
	a.id++
	request, err := jsonrpc.EncodeRequest(a.id, method, params)
	if err != nil {
		return err
	}
	answer, err := a.master.Ask(ctx, request)
	if err != nil {
		return err
	}
	resp, err := jsonrpc.DecodeResponse(a.id, answer)
	if err != nil {
		return fmt.Errorf("answer of master %s: %w", a.master.ID(), err)
	}
	if resp.Error != nil {
		if resp.Error.Code == jsonrpc.CodeUnauthorized && a.onNoCalls != nil {
			a.onNoCalls()
			return errNoCalls
		}
		return resp.Error
	}
	return json.Unmarshal(resp.Result, result)
}

// Close leaves the connection to the tunnels.
func (a *asker) Close() {}
