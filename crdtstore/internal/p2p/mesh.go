package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	ma "github.com/multiformats/go-multiaddr"
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
	// connections is gone on which it was. Calls for one master do not overlap.
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
	cfg   Config
	log   *slog.Logger
	host  host.Host
	guard *guard
	pins  *pins
	came  event.Emitter

	cancel context.CancelFunc
	loops  sync.WaitGroup

	mu      sync.Mutex
	members map[peer.ID]*member  // admitted and connected
	known   map[peer.ID]*contact // every master ever heard of
	found   [][]target           // what each of Peers stands for
	named   map[string]bool      // IPs that Peers stand for
	at      map[string]peer.ID   // who was met at an address; may be ourselves
	busy    map[string]bool      // dials under way, by address or id
	grumble map[string]string    // the last failure logged, by address or id
	closing bool
}

type contact struct{ addrs []ma.Multiaddr }

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
		members: map[peer.ID]*member{}, known: map[peer.ID]*contact{}, named: map[string]bool{},
		found: make([][]target, len(cfg.Peers)), at: map[string]peer.ID{}, busy: map[string]bool{}, grumble: map[string]string{},
	}
	bus := eventbus.NewBus()
	m.guard = &guard{Host: m.host, bus: bus, mesh: m}
	if m.came, err = bus.Emitter(new(event.EvtPeerProtocolsUpdated)); err != nil {
		return nil, err
	}
	m.Learn(cfg.Known)
	return m, nil
}

// Start joins the mesh. The protocols above should be in place on Host by then.
// ctx bounds nothing but the start.
func (m *Mesh) Start(ctx context.Context) {
	m.resolve(ctx)
	m.host.Network().Notify(&network.NotifyBundle{ConnectedF: m.connected, DisconnectedF: m.disconnected})
	m.host.SetStreamHandler(admitProtocol, m.answer)
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
	return errors.Join(err, m.came.Close())
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
// admitted one vouches for, connected or not.
func (m *Mesh) Knows(id peer.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[id] != nil
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

// Learn adds masters to look for. Without a cluster secret, only what an
// admitted master says, or what an earlier run knew, may be learned.
func (m *Mesh) Learn(list []Contact) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range list {
		id, err := peer.Decode(c.ID)
		if err != nil || id == m.host.ID() || len(m.known) >= maxContacts {
			continue
		}
		m.contact(id, parseAddrs(c.Addrs))
	}
}

// contact is called with mu held.
func (m *Mesh) contact(id peer.ID, addrs []ma.Multiaddr) {
	c := m.known[id]
	if c == nil {
		c = &contact{}
		m.known[id] = c
	}
	if len(addrs) > 0 {
		c.addrs = addrs
	}
}

// Contacts returns the masters that this one vouches for.
func (m *Mesh) Contacts() []Contact { return m.contacts("") }

func (m *Mesh) contacts(but peer.ID) []Contact {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Contact
	for id, c := range m.known {
		if id == but || len(c.addrs) == 0 {
			continue
		}
		one := Contact{ID: id.String()}
		for _, a := range c.addrs {
			one.Addrs = append(one.Addrs, a.String())
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Contact) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out
}

// Forget stops looking for a master, until it is heard of again.
func (m *Mesh) Forget(id peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.members[id] == nil {
		delete(m.known, id)
	}
}

// refused logs why a peer was turned away, once per reason.
func (m *Mesh) refused(id peer.ID, from ma.Multiaddr, err error) {
	m.complain(id.String(), "master refused", err, "master", id, "from", from)
}

func (m *Mesh) complain(key, msg string, err error, args ...any) {
	m.mu.Lock()
	again := m.grumble[key] == err.Error() || m.closing
	if len(m.grumble) > 1024 {
		clear(m.grumble)
	}
	m.grumble[key] = err.Error()
	m.mu.Unlock()
	if !again {
		m.log.Warn(msg, append(args, "err", err)...)
	}
}

// resolveTimeout bounds one look at the names, so that a name server that does
// not answer does not keep this master from those that it has addresses of.
const resolveTimeout = 2 * time.Second

// resolve looks up what the configured addresses stand for now.
func (m *Mesh) resolve(ctx context.Context) []target {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found := make([][]ma.Multiaddr, len(m.cfg.Peers))
	var all sync.WaitGroup
	for i, a := range m.cfg.Peers {
		all.Go(func() {
			var err error
			if found[i], err = a.Resolve(ctx); err != nil {
				m.complain(a.text, "cannot resolve the address of a master", err, "address", a.text)
			}
		})
	}
	all.Wait()
	var out []target
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, a := range m.cfg.Peers {
		if len(found[i]) > 0 {
			m.found[i] = nil
		}
		for _, addr := range found[i] {
			m.found[i] = append(m.found[i], target{addr, a.id})
			m.named[remoteIP(addr).String()] = true
		}
		out = append(out, m.found[i]...)
	}
	return out
}

// expect decides, where there is no secret, whether a peer at an address is one
// this master was told about: it was vouched for, or it comes from an IP that
// Peers name, and no other peer id is pinned at the address it says it has. The
// port is not compared: the masters on one machine may each name but one other.
// So without a secret, whoever has the IP of a master can become one.
func (m *Mesh) expect(id peer.ID, from ma.Multiaddr, says []string) error {
	ip := remoteIP(from)
	m.mu.Lock()
	vouched, named := m.known[id] != nil, m.named[ip.String()]
	m.mu.Unlock()
	if vouched {
		return nil
	}
	if !named {
		return errUnnamed
	}
	for _, a := range parseAddrs(says) {
		if remoteIP(a) == ip {
			return m.pins.pin(a.String(), id)
		}
	}
	return fmt.Errorf("%w: it does not say that it listens on %s, where it comes from", errUnnamed, ip)
}
