package tunnel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	msmux "github.com/multiformats/go-multistream"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
)

// forAgents: thousands of agents come from behind one address, and come back together
// when their master does.
var forAgents = p2p.Limits{Inbound: 65536, Greeting: 4096, PerAddress: 32768, Rate: 2000, Burst: 10000}

// HostConfig configures a Host.
type HostConfig struct {
	// Identity is the master's.
	Identity *identity.Identity
	// Listen is host:port, or a multiaddr.
	Listen string
	// MaxConns bounds the connections that agents have opened, each of which takes a file
	// descriptor; one address gets at most three quarters of it. 0: 65,536.
	MaxConns int
	// Advertise are hosts or IPs at which agents reach the port that is listened on.
	// Empty: the addresses of this machine's interfaces.
	Advertise []string
	// Admit decides whether the agent with a key, at one of its boots, may hold the tunnel
	// of a node, when the tunnel is opened, whenever it is used, and every few seconds.
	// key is the agent's peer id in text form. The text of an error is told to the agent
	// that opens one. It is called from several goroutines at once.
	Admit func(nodeID, key string, boot uint64) error
	// Changed is called when a node's tunnel has opened, or has closed and no other took
	// its place, in the order in which it happens. It must not block or call the Host.
	Changed func(nodeID string, open bool)
	// Answer answers a request of the agent with a key, which need not have a tunnel.
	// Requests of one agent come one after the other. An empty answer is sent as such.
	Answer func(ctx context.Context, key string, request []byte) []byte
	// Logger takes what goes wrong. nil: nothing is logged.
	Logger *slog.Logger
}

// Host is a master's end of the tunnels.
type Host struct {
	cfg   HostConfig
	log   *slog.Logger
	host  host.Host
	addrs []string
	ctx   context.Context // of the streams; ends with Close
	stop  context.CancelFunc

	mu       sync.Mutex          // guards what follows
	sessions map[string]*session // by node id
	busy     map[network.Conn]int
	closed   bool
	work     sync.WaitGroup
}

// session is the tunnel of one node.
type session struct {
	conn  network.Conn
	lease network.Stream
	key   string
	boot  uint64
}

// Listen begins to listen for agents.
func Listen(ctx context.Context, cfg HostConfig) (*Host, error) {
	addrs, err := p2p.ParseListen(ctx, cfg.Listen)
	if err != nil {
		return nil, err
	}
	under, err := p2p.NewHost(cfg.Identity.Libp2pKey(), addrs, p2p.WithLimits(forAgents.Within(cmp.Or(cfg.MaxConns, forAgents.Inbound))))
	if err != nil {
		return nil, err
	}
	h := &Host{cfg: cfg, log: cfg.Logger, host: under, sessions: map[string]*session{}, busy: map[network.Conn]int{}}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	h.ctx, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	h.addrs = h.advertised()
	under.Network().Notify(&network.NotifyBundle{ConnectedF: h.connected})
	under.SetStreamHandler(askProtocol, h.during(h.answer))
	under.SetStreamHandler(openProtocol, h.during(h.open))
	return h, nil
}

// advertised returns where agents should look for this host.
func (h *Host) advertised() (out []string) {
	for _, name := range h.cfg.Advertise {
		out = append(out, multiaddrOf(name, portOf(h.host.Network().ListenAddresses())))
	}
	if len(h.cfg.Advertise) == 0 {
		for _, a := range h.host.Addrs() {
			out = append(out, a.String())
		}
	}
	return out
}

// Addrs are multiaddrs at which agents reach this host, without /p2p/ID.
func (h *Host) Addrs() []string { return slices.Clone(h.addrs) }

// Len is how many nodes have a tunnel here.
func (h *Host) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.sessions)
}

// Conns is how many connections agents have to this host.
func (h *Host) Conns() int { return len(h.host.Network().Conns()) }

// Close closes all tunnels and ends what runs over them.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.stop()
	err := h.host.Close()
	h.work.Wait()
	return err
}

// connected closes a connection with which nothing is done, or nothing but to ask for
// long: strangers may ask, and are not to keep agents out.
func (h *Host) connected(n network.Network, c network.Conn) {
	if n != nil {
		if h.Conns()-h.Len() > maxWithout {
			go c.Close()
			return
		}
		time.AfterFunc(withoutTunnel, func() {
			if !h.tunnelled(c) {
				_ = c.Close() // an agent connects again
			}
		})
	}
	time.AfterFunc(strangerTimeout, func() {
		h.mu.Lock()
		n := h.busy[c]
		h.mu.Unlock()
		if n == 0 {
			_ = c.Close() // whoever it was
		}
	})
}

// tunnelled reports whether a connection has a tunnel.
func (h *Host) tunnelled(c network.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.sessions {
		if s.conn == c {
			return true
		}
	}
	return false
}

// during counts the streams of a connection, and closes it when the last one ends: an
// agent keeps one for as long as it has something to do here.
func (h *Host) during(handle func(network.Stream)) network.StreamHandler {
	return func(s network.Stream) {
		c := s.Conn()
		h.mu.Lock()
		if h.closed || h.busy[c] >= 16 {
			h.mu.Unlock()
			_ = s.Reset()
			return
		}
		h.busy[c]++
		h.work.Add(1)
		h.mu.Unlock()
		defer h.work.Done()
		defer func() {
			h.mu.Lock()
			h.busy[c]--
			if h.busy[c] > 0 {
				h.mu.Unlock()
				return
			}
			delete(h.busy, c)
			h.mu.Unlock()
			h.connected(nil, c) // unless something follows
		}()
		handle(s)
	}
}

// answer answers the requests that arrive on a stream.
func (h *Host) answer(s network.Stream) {
	defer s.Close()
	key := s.Conn().RemotePeer().String()
	f := frames(s, maxAsk)
	f.begun = func() { _ = s.SetReadDeadline(time.Now().Add(silence)) }
	for h.ctx.Err() == nil {
		_ = s.SetReadDeadline(time.Now().Add(idle))
		request, err := f.read()
		if err != nil {
			_ = s.Reset() // not to wait for what the other side still sends
			return
		}
		_ = s.SetWriteDeadline(time.Now().Add(silence))
		if err := f.write(h.cfg.Answer(h.ctx, key, request)); err != nil {
			_ = s.Reset()
			return
		}
	}
}

// open takes the tunnel of a node and keeps it for as long as the agent is heard.
func (h *Host) open(s network.Stream) {
	defer s.Close()
	f := frames(s, maxClaim)
	_ = s.SetDeadline(time.Now().Add(dialTimeout))
	var c claim
	if err := f.readJSON(&c); err != nil {
		_ = s.Reset()
		return
	}
	key := s.Conn().RemotePeer().String()
	if err := h.cfg.Admit(c.NodeID, key, c.Boot); err != nil {
		h.log.Debug("tunnel refused", "node", c.NodeID, "key", key, "err", err)
		_ = f.writeJSON(verdict{Refused: err.Error()})
		return
	}
	mine := &session{s.Conn(), s, key, c.Boot}
	if err := h.enter(c.NodeID, mine); err != nil {
		_ = f.writeJSON(verdict{Refused: err.Error()})
		return
	}
	defer h.leave(c.NodeID, mine)
	// The agent may count on its tunnel from the verdict on, so it stands by then.
	for err := f.writeJSON(verdict{}); err == nil; err = f.write(nil) {
		_ = s.SetDeadline(time.Now().Add(silence))
		if _, err := f.read(); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				// Nobody is there. What waits for an answer is not to wait for TCP.
				_ = s.Conn().Close()
			}
			break
		}
		if err := h.cfg.Admit(c.NodeID, key, c.Boot); err != nil {
			h.log.Debug("tunnel is not admitted any more", "node", c.NodeID, "key", key, "err", err)
			break
		}
	}
	_ = s.Reset()
}

// enter gives the tunnel of a node to the agent that has opened one last, for an agent may
// come back before it was missed. An earlier boot of the same agent does not get it: it is
// what is left of it, or a copy.
func (h *Host) enter(node string, mine *session) error {
	before, err := h.replace(node, mine)
	if before != nil {
		_ = before.lease.Reset() // not under mu, for it may wait for the network
	}
	return err
}

// replace makes a session that of a node, and returns the one that has to end.
func (h *Host) replace(node string, mine *session) (before *session, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before = h.sessions[node]
	if before != nil && before.key == mine.key && before.boot > mine.boot {
		return nil, errors.New("a later boot of the agent has the tunnel")
	}
	h.sessions[node] = mine
	if before == nil {
		h.cfg.Changed(node, true)
	}
	return before, nil
}

func (h *Host) leave(node string, mine *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions[node] == mine {
		delete(h.sessions, node)
		h.cfg.Changed(node, false)
	}
}

// Dial opens a connection to a node. It returns when the agent at the other end has
// said that it is there, within 2 s, so that a request which follows was sent to
// somebody. Errors: ErrNone, and nothing was sent.
func (h *Host) Dial(ctx context.Context, node string) (net.Conn, error) {
	h.mu.Lock()
	mine := h.sessions[node]
	h.mu.Unlock()
	if mine == nil {
		return nil, ErrNone
	}
	// The node may have been removed since, or have got another key or boot.
	if err := h.cfg.Admit(node, mine.key, mine.boot); err != nil {
		_ = mine.lease.Reset()
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	// Of this very connection: a key may have come twice.
	s, err := mine.conn.NewStream(network.WithNoDial(ctx, "tunnel"))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	lift := within(ctx, s, dialTimeout)
	err = s.SetProtocol(computeProtocol)
	if err == nil {
		err = msmux.SelectProtoOrFail(computeProtocol, s)
	}
	if err == nil {
		err = await(s)
	}
	if lift(); err != nil {
		_ = s.Reset()
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	return p2p.Conn(s), nil
}
