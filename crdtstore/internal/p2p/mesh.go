package p2p

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"

	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/statelog"
)

const (
	// seekEvery is how often a master looks for those it misses. It bounds how
	// long two masters stay apart after the network between them is back.
	seekEvery = 500 * time.Millisecond
	// strangerTimeout is how long a connection may stay without admission.
	strangerTimeout = 10 * time.Second
)

// Config configures a Mesh.
type Config struct {
	Host      host.Host // closed by Mesh.Close
	Peers     []Address
	Secret    string
	Advertise []ma.Multiaddr // instead of the host's own addresses
	PinsFile  string
	Known     []Contact // masters of an earlier run, to look for
	Logger    *slog.Logger
	// Joined is called when a master was admitted on both sides, Left when one of the
	// connections is gone on which it was.
	Joined func(peer.ID)
	Left   func(peer.ID)
	// Run names this run of the program: no other has it, and it sorts behind those of
	// earlier runs.
	Run string
	// Runs decides which run of a master is admitted; nil: any.
	Runs Runs
	// Lasting tells the protocols whose streams last as long as the connection; where
	// one ends before, the connection is closed. Held reports whether such a protocol
	// still keeps something of a master that is gone. Both may be nil.
	Lasting func(protocol.ID) bool
	Held    func(peer.ID) bool
}

// Mesh keeps this master connected to all others that it knows of. Its methods
// may be called concurrently.
type Mesh struct {
	cfg      Config
	secret   atomic.Pointer[string] // what proofs are made with; nil: cfg.Secret
	log      *slog.Logger
	host     host.Host
	guard    *guard
	pins     *pins
	appeared event.Emitter
	states   *statelog.Log
	began    time.Time
	started  chan struct{} // closed when others are let in

	cancel context.CancelFunc
	loops  sync.WaitGroup

	mu       sync.Mutex           // guards what follows
	members  map[peer.ID]*member  // admitted and connected
	contacts map[peer.ID]*contact // every master ever heard of
	peers    []*configured
	named    map[string]time.Time // IPs that Peers stand for, and when they last did
	reserved map[netip.Addr]bool  // IPs of masters, see reserve
	at       map[string]peer.ID   // who was found at an address; may be ourselves
	attempts map[string]*attempt  // why an address of Peers cannot be used
	busy     map[string]bool      // dials under way, by address or id
	// replaced is why a master refused this one that knows another one in its place.
	replaced   string
	replacedAt time.Time
	closing    bool
}

// New makes a mesh that does not yet look for anyone nor let anyone in.
func New(cfg Config) (*Mesh, error) {
	if cfg.Runs == nil {
		cfg.Runs = anyRun{}
	}
	pins, err := loadPins(cfg.PinsFile)
	if err != nil {
		return nil, err
	}
	m := &Mesh{
		cfg: cfg, log: cfg.Logger, host: cfg.Host, pins: pins,
		members: map[peer.ID]*member{}, contacts: map[peer.ID]*contact{}, named: map[string]time.Time{}, reserved: map[netip.Addr]bool{},
		at: map[string]peer.ID{}, attempts: map[string]*attempt{}, busy: map[string]bool{},
		states: statelog.New(cfg.Logger), began: time.Now(), started: make(chan struct{}),
	}
	for _, a := range cfg.Peers {
		m.peers = append(m.peers, &configured{Address: a})
	}
	bus := eventbus.NewBus()
	m.guard = &guard{Host: m.host, bus: bus, mesh: m}
	if m.appeared, err = bus.Emitter(new(event.EvtPeerProtocolsUpdated)); err != nil {
		return nil, err
	}
	m.Learn(cfg.Known)
	for _, c := range m.contacts {
		c.met = true
	}
	// Whoever comes too early waits, rather than take this for no master.
	m.host.SetStreamHandler(admitProtocol, func(s network.Stream) {
		select {
		case <-m.started:
			m.answer(s)
		case <-time.After(admitTimeout):
			_ = s.Reset()
		}
	})
	return m, nil
}

// Start joins the mesh. The protocols above should be in place on Host by then.
// ctx bounds nothing but the start.
func (m *Mesh) Start(ctx context.Context) {
	m.resolve(ctx)
	m.host.Network().Notify(&network.NotifyBundle{ConnectedF: m.connected, DisconnectedF: m.disconnected})
	close(m.started)
	background, cancel := context.WithCancel(context.WithoutCancel(ctx))
	m.cancel = cancel
	m.loop(background, seekEvery, m.seek)
	m.loop(background, pingEvery, m.ping)
}

// Host is the host for the protocols between masters; strangers do not exist on
// it.
func (m *Mesh) Host() host.Host { return m.guard }

// Close leaves the mesh and closes the host.
func (m *Mesh) Close() error {
	m.mu.Lock()
	m.closing = true
	m.mu.Unlock()
	if m.cancel != nil {
		m.cancel()
	}
	err := m.host.Close()
	m.loops.Wait()
	return errors.Join(err, m.appeared.Close())
}

func (m *Mesh) loop(ctx context.Context, every time.Duration, f func(context.Context)) {
	m.loops.Add(1)
	go func() {
		defer m.loops.Done()
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
				f(ctx)
				timer.Reset(every + rand.N(every/4)) // out of step with the others
			}
		}
	}()
}

// spawn runs f in the background unless something of that name is under way.
func (m *Mesh) spawn(name string, f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.busy[name] || m.closing {
		return
	}
	m.busy[name] = true
	m.loops.Add(1)
	go func() {
		defer m.loops.Done()
		f()
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.busy, name)
	}()
}

// Knows reports whether a peer is a master that was admitted, or that an
// admitted one introduces, connected or not.
func (m *Mesh) Knows(id peer.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.contacts[id] != nil
}

// Addrs are the addresses at which others should look for this master.
func (m *Mesh) Addrs() []string {
	addrs := m.cfg.Advertise
	if len(addrs) == 0 {
		addrs = m.host.Addrs()
	}
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a.String()
	}
	return out
}

// SetSecret changes the secret with which masters are admitted from now on. Those that
// were admitted stay. Whether there is a secret at all cannot change.
func (m *Mesh) SetSecret(secret string) error {
	if (secret == "") != (m.cfg.Secret == "") {
		return errors.New("that there is a cluster secret, or none, can only change with a restart")
	}
	m.secret.Store(&secret)
	return nil
}
