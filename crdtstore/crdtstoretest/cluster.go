package crdtstoretest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/seam"
)

// Cluster is a number of masters in this process. Its methods may be called
// concurrently, but for Open and Stop of one master.
type Cluster struct {
	t     testing.TB
	dirs  []string
	tune  func(i int, cfg *crdtstore.Config)
	addrs []string // where each master listens
	place []int    // where each master lives in the simulated network

	mu     sync.Mutex
	stores []*crdtstore.Store
	hosts  []host.Host
	ids    map[peer.ID]int
	cut    func(a, b int) bool // whether two masters cannot talk; nil: all can

	net *simulation // nil: the loopback interface
}

// Start starts n masters at one time, with nothing on their disks. All have the same
// list of peers, which names each of them, and share a secret. Start waits until all are
// connected to all and healthy. tune, which may be nil, changes their
// configurations. The masters are closed when the test ends.
func Start(t testing.TB, n int, tune func(i int, cfg *crdtstore.Config)) *Cluster {
	t.Helper()
	return start(t, n, tune, nil)
}

// StartSimulated is Start over a simulated network, for a test that runs in a
// bubble of testing/synctest: time passes there when everybody waits for it, so
// that minutes take as long as there is work to do in them. Everything else is
// what programs use: libp2p hosts (over QUIC), gossipsub, the history on disk. Cut
// and Links decide what becomes of each packet; seed, of those that fate decides.
// A process has one simulated cluster at a time, and no other one meanwhile.
func StartSimulated(t testing.TB, n int, seed uint64, tune func(i int, cfg *crdtstore.Config)) *Cluster {
	t.Helper()
	net := newSimulation(t, seed)
	t.Cleanup(net.close)
	return start(t, n, tune, net)
}

func start(t testing.TB, n int, tune func(i int, cfg *crdtstore.Config), net *simulation) *Cluster {
	t.Helper()
	c := &Cluster{
		t: t, tune: tune, stores: make([]*crdtstore.Store, n), hosts: make([]host.Host, n),
		addrs: make([]string, n), ids: map[peer.ID]int{}, net: net,
	}
	for i := range n {
		c.dirs = append(c.dirs, t.TempDir())
		c.place = append(c.place, i)
		if net != nil {
			c.addrs[i] = listenAddr(i)
		} else {
			c.addrs[i] = freeAddr(t)
		}
	}
	t.Cleanup(func() {
		for i := range n {
			c.Stop(i)
		}
	})
	c.OpenAll()
	c.WaitConnected()
	c.WaitHealthy()
	return c
}

// freeAddr returns an address on which nobody listens, below the ports that connections
// are given.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.N(20_000)))
		if err == nil {
			_ = l.Close()
			return l.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// OpenAll starts all masters that do not run, at one time.
func (c *Cluster) OpenAll() {
	c.t.Helper()
	errs := make([]error, len(c.dirs))
	var all sync.WaitGroup
	for i := range c.dirs {
		if c.Store(i) == nil {
			all.Go(func() { errs[i] = c.open(i) })
		}
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		c.t.Fatal(err)
	}
}

// Open starts master i, which must not run.
func (c *Cluster) Open(i int) {
	c.t.Helper()
	if err := c.open(i); err != nil {
		c.t.Fatal(err)
	}
}

func (c *Cluster) open(i int) error {
	cfg := crdtstore.Config{
		Dir: c.dirs[i], Name: fmt.Sprintf("m%d", i), Secret: "test", Listen: []string{c.addrs[i]}, Peers: slices.Clone(c.addrs),
	}
	seam.Of(&cfg).NewHost = func(key crypto.PrivKey, listen []ma.Multiaddr) (host.Host, error) { return c.host(i, key, listen) }
	if c.tune != nil {
		c.tune(i, &cfg)
	}
	s, err := crdtstore.Open(context.Background(), cfg)
	if err != nil {
		return fmt.Errorf("open master %d: %w", i, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stores[i] = s
	return nil
}

func (c *Cluster) host(i int, key crypto.PrivKey, listen []ma.Multiaddr) (host.Host, error) {
	how := p2p.WithGater(gater{c, i})
	if c.net != nil {
		how = p2p.WithTransport(c.net.transport(c.place[i]))
	}
	h, err := p2p.NewHost(key, listen, how)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hosts[i], c.ids[h.ID()] = h, i
	return h, nil
}

// Stop closes master i, if it runs.
func (c *Cluster) Stop(i int) {
	c.mu.Lock()
	s := c.stores[i]
	c.stores[i] = nil
	c.mu.Unlock()
	if s == nil {
		return
	}
	if err := s.Close(); err != nil {
		c.t.Errorf("close master %d: %v", i, err)
	}
}

// Store returns master i.
func (c *Cluster) Store(i int) *crdtstore.Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stores[i]
}

// Len is the number of masters, running or not.
func (c *Cluster) Len() int { return len(c.dirs) }

// Dir is where master i keeps everything. It may be changed while the master does
// not run.
func (c *Cluster) Dir(i int) string { return c.dirs[i] }

// Cut lets no two masters talk for which cut is true, until Heal or the next
// Cut. Connections between them are closed. In a simulated network they are not:
// what a sends does not reach b if cut is true of a and b, which need not be so
// the other way round.
func (c *Cluster) Cut(cut func(a, b int) bool) {
	if c.net != nil {
		at := slices.Clone(c.place)
		c.net.change(func() {
			c.net.cut = func(a, b int) bool { return cut(slices.Index(at, a), slices.Index(at, b)) }
		})
		return
	}
	c.mu.Lock()
	c.cut = cut
	hosts, ids := append([]host.Host(nil), c.hosts...), c.ids
	c.mu.Unlock()
	for a, h := range hosts {
		if h == nil {
			continue
		}
		for _, p := range h.Network().Peers() {
			if b, ok := ids[p]; ok && cut(a, b) {
				_ = h.Network().ClosePeer(p)
			}
		}
	}
}

// Split cuts the first k masters off from the others.
func (c *Cluster) Split(k int) { c.Cut(func(a, b int) bool { return (a < k) != (b < k) }) }

// Heal lets all masters talk again.
func (c *Cluster) Heal() {
	if c.net != nil {
		c.net.change(func() { c.net.cut = nil })
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = nil
}

// Links sets what happens to the packets that a sends to b, in a simulated
// network. Before it is called, each takes 5 ms.
func (c *Cluster) Links(link func(a, b int) Link) {
	c.t.Helper()
	if c.net == nil {
		c.t.Fatal("the network of this cluster is not simulated")
	}
	c.net.change(func() { c.net.link = link })
}

// WaitConnected waits until every running master is alive to every other.
func (c *Cluster) WaitConnected() {
	c.t.Helper()
	c.wait("all masters to be alive to all", func() bool {
		running := c.running()
		for _, s := range running {
			alive := 0
			for _, m := range s.Masters() {
				if m.Status == crdtstore.MasterAlive || m.Status == crdtstore.MasterSelf {
					alive++
				}
			}
			if alive < len(running) {
				return false
			}
		}
		return true
	})
}

// WaitHealthy waits until every running master is healthy.
func (c *Cluster) WaitHealthy() {
	c.t.Helper()
	c.wait("all masters to be healthy", func() bool {
		for _, s := range c.running() {
			if s.Health() != nil {
				return false
			}
		}
		return true
	})
}

// WaitEqual waits until all running masters have equal digests.
func (c *Cluster) WaitEqual() {
	c.t.Helper()
	c.wait("equal digests", func() bool {
		running := c.running()
		for _, s := range running {
			if s.Masters()[0].Digest != running[0].Masters()[0].Digest {
				return false
			}
		}
		return true
	})
}

func (c *Cluster) running() []*crdtstore.Store {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*crdtstore.Store
	for _, s := range c.stores {
		if s != nil {
			out = append(out, s)
		}
	}
	return out
}

// wait polls, for there is nothing to wait on that all masters share.
func (c *Cluster) wait(what string, done func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			c.t.Fatalf("waited 30 s for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// gater keeps apart the masters that are cut off from each other.
type gater struct {
	cluster *Cluster
	self    int
}

var _ connmgr.ConnectionGater = gater{}

func (g gater) allows(p peer.ID) bool {
	g.cluster.mu.Lock()
	defer g.cluster.mu.Unlock()
	other, ok := g.cluster.ids[p]
	return !ok || g.cluster.cut == nil || !g.cluster.cut(g.self, other)
}

func (g gater) InterceptPeerDial(p peer.ID) bool                 { return g.allows(p) }
func (g gater) InterceptAddrDial(p peer.ID, _ ma.Multiaddr) bool { return g.allows(p) }
func (g gater) InterceptAccept(network.ConnMultiaddrs) bool      { return true }
func (g gater) InterceptSecured(_ network.Direction, p peer.ID, _ network.ConnMultiaddrs) bool {
	return g.allows(p)
}
func (g gater) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
