package crdtstoretest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/transport"
	"github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
)

// Link is what happens to the packets that one master sends to another.
type Link struct {
	// Delay is how long a packet takes, and Jitter how much longer at most: the
	// packets overtake each other within it.
	Delay, Jitter time.Duration
	// Loss is the share of packets that do not arrive, and Twice the share of
	// those that arrive a second time, from 0 to 1.
	Loss, Twice float64
}

// simulation carries packets between the masters of a simulated cluster.
type simulation struct {
	router simnet.VariableLatencyRouter
	done   chan struct{}
	work   sync.WaitGroup
	procs  int // GOMAXPROCS of before

	mu   sync.Mutex
	rand *rand.Rand
	cut  func(a, b int) bool // whether nothing gets from a to b; nil: all does
	link func(a, b int) Link
	port int // the last that was handed out
}

// simulating is whether there is a simulation: there can be only one at a time.
// Pebble keeps channels in pools, and a channel is of no use in another bubble.
var simulating atomic.Bool

func newSimulation(t testing.TB, seed uint64) *simulation {
	t.Helper()
	if !simulating.CompareAndSwap(false, true) {
		t.Fatal("there is a simulated cluster already; such tests cannot be parallel")
	}
	emptyPools()
	n := &simulation{
		// Most of the time one goroutine waits for another, so one thread is faster
		// than two. And the race detector breaks down when two threads run the timers
		// of a bubble at once: https://go.dev/issue/78156.
		procs: runtime.GOMAXPROCS(1),
		done:  make(chan struct{}), rand: rand.New(rand.NewPCG(seed, 0)), port: 40000,
		link: func(int, int) Link { return Link{Delay: 5 * time.Millisecond} },
	}
	n.router.CloseSignal = n.done
	n.router.LatencyFunc = func(p *simnet.Packet) time.Duration {
		n.mu.Lock()
		defer n.mu.Unlock()
		l := n.link(master(p.From), master(p.To))
		if l.Jitter > 0 {
			return l.Delay + time.Duration(n.rand.Int64N(int64(l.Jitter)))
		}
		return l.Delay
	}
	n.router.Start(&n.work)
	return n
}

func (n *simulation) close() {
	close(n.done)
	n.work.Wait()
	runtime.GOMAXPROCS(n.procs)
	emptyPools()
	simulating.Store(false)
}

// emptyPools makes sure that nothing is left in any sync.Pool: what one garbage
// collection finds there, the next one takes away.
func emptyPools() {
	runtime.GC()
	runtime.GC()
}

// ip is where a master lives, and master who lives there.
func ip(i int) net.IP { return net.IPv4(10, 0, byte(i>>8), byte(i)).To4() }

func master(a net.Addr) int {
	b := a.(*net.UDPAddr).IP.To4()
	return int(b[2])<<8 | int(b[3])
}

func listenAddr(i int) string { return fmt.Sprintf("/ip4/%s/udp/9004/quic-v1", ip(i)) }

// RecvPacket takes a packet that a master sends.
func (n *simulation) RecvPacket(p *simnet.Packet) {
	from, to := master(p.From), master(p.To)
	p.To = &net.UDPAddr{IP: ip(to), Port: p.To.(*net.UDPAddr).Port} // the router compares bytes
	n.mu.Lock()
	l := n.link(from, to)
	times := 1
	switch {
	case n.cut != nil && n.cut(from, to), n.rand.Float64() < l.Loss:
		times = 0
	case n.rand.Float64() < l.Twice:
		times = 2
	}
	n.mu.Unlock()
	for range times {
		n.router.RecvPacket(p)
	}
}

// transport makes the transport of master i.
func (n *simulation) transport(i int) func(crypto.PrivKey, network.ResourceManager, connmgr.ConnectionGater) (transport.Transport, error) {
	return func(key crypto.PrivKey, limits network.ResourceManager, gater connmgr.ConnectionGater) (transport.Transport, error) {
		// The same at every start, so that the others soon learn of a restart.
		raw, err := key.Raw()
		if err != nil {
			return nil, err
		}
		reset, token := sha256.Sum256(append([]byte("reset"), raw...)), sha256.Sum256(append([]byte("token"), raw...))
		conns, err := quicreuse.NewConnManager(reset, token,
			quicreuse.OverrideListenUDP(func(_ string, at *net.UDPAddr) (net.PacketConn, error) { return n.listen(i, at.Port), nil }),
			quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return sourceIP(ip(i)), nil }),
		)
		if err != nil {
			return nil, err
		}
		t, err := libp2pquic.NewTransport(key, conns, nil, gater, limits)
		if err != nil {
			return nil, errors.Join(err, conns.Close())
		}
		return quicTransport{t, conns}, nil
	}
}

func (n *simulation) listen(i, port int) net.PacketConn {
	if port == 0 {
		n.mu.Lock()
		n.port++
		port = n.port
		n.mu.Unlock()
	}
	at := &net.UDPAddr{IP: ip(i), Port: port}
	c := simnet.NewBlockingSimConn(at)
	c.SetUpPacketReceiver(n)
	n.router.AddNode(at, c)
	return c
}

type sourceIP net.IP

func (s sourceIP) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return net.IP(s), nil
}

// quicTransport closes with it what it is made of.
type quicTransport struct {
	transport.Transport
	conns *quicreuse.ConnManager
}

func (t quicTransport) Close() error {
	var err error
	if c, ok := t.Transport.(interface{ Close() error }); ok {
		err = c.Close()
	}
	return errors.Join(err, t.conns.Close())
}

// change lets f change the rules of the network.
func (n *simulation) change(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}
