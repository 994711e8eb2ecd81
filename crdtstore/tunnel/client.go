package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/p2p"
)

// maxWaiting bounds the connections that wait to be accepted.
const maxWaiting = 64

// Client is an agent's end of tunnels: the listener on which connections from masters
// arrive.
type Client struct {
	host     host.Host
	arriving chan net.Conn
	closing  chan struct{}
	once     sync.Once

	mu     sync.Mutex           // guards what follows
	opened map[network.Conn]int // tunnels by connection
}

var _ net.Listener = (*Client)(nil)

// NewClient makes a client with an agent's identity. It listens on no port.
func NewClient(id *identity.Identity) (*Client, error) {
	h, err := p2p.NewHost(id.Libp2pKey(), nil)
	if err != nil {
		return nil, err
	}
	c := &Client{host: h, arriving: make(chan net.Conn, maxWaiting), closing: make(chan struct{}), opened: map[network.Conn]int{}}
	h.SetStreamHandler(computeProtocol, c.arrived)
	return c, nil
}

// arrived takes a connection, from a master to which there is a tunnel.
func (c *Client) arrived(s network.Stream) {
	c.mu.Lock()
	open := c.opened[s.Conn()] > 0
	c.mu.Unlock()
	if !open {
		_ = s.Reset()
		return
	}
	_ = s.SetWriteDeadline(time.Now().Add(dialTimeout))
	if _, err := s.Write([]byte{ready}); err != nil {
		_ = s.Reset()
		return
	}
	_ = s.SetWriteDeadline(time.Time{})
	select {
	case c.arriving <- p2p.Conn(s):
	case <-c.closing:
		_ = s.Reset()
	default: // nobody accepts
		_ = s.Reset()
	}
}

// Accept returns the next connection from a master. Errors: [net.ErrClosed].
func (c *Client) Accept() (net.Conn, error) {
	select {
	case conn := <-c.arriving:
		return conn, nil
	case <-c.closing:
		return nil, net.ErrClosed
	}
}

// Addr is of no use beyond showing that connections do not come by a port.
func (c *Client) Addr() net.Addr { return &net.UnixAddr{Name: c.host.ID().String(), Net: "libp2p"} }

// Close closes all tunnels and ends Accept.
func (c *Client) Close() error {
	c.once.Do(func() { close(c.closing) })
	return c.host.Close()
}

// Master is the edge of one master, as an agent sees it.
type Master struct {
	client *Client
	id     peer.ID
	addrs  []ma.Multiaddr
	asking chan struct{} // holds a token while a request is under way

	mu     sync.Mutex // guards what follows
	stream *framed    // for requests; nil: none is open
}

// Master returns the master at some addresses: multiaddrs with /p2p/ID, all of one
// master. It does no I/O.
func (c *Client) Master(addrs []string) (*Master, error) {
	m := &Master{client: c, asking: make(chan struct{}, 1)}
	for _, text := range addrs {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, fmt.Errorf("address %q: %w", text, err)
		}
		where, id := peer.SplitAddr(a)
		switch {
		case id == "" || len(where) == 0:
			return nil, fmt.Errorf("address %q: want a multiaddr with /p2p/ID, such as /ip4/10.0.0.1/tcp/9005/p2p/12D3KooW…", text)
		case m.id != "" && m.id != id:
			return nil, fmt.Errorf("address %q: is of another master than the one before it", text)
		}
		m.id, m.addrs = id, append(m.addrs, where)
	}
	if m.id == "" {
		return nil, errors.New("no address is given")
	}
	return m, nil
}

// Identify finds out which master is at an address, a multiaddr without /p2p/ID: its
// peer id in text form, which the handshake proves.
func (c *Client) Identify(ctx context.Context, addr string) (string, error) {
	a, err := ma.NewMultiaddr(addr)
	if err != nil {
		return "", fmt.Errorf("address %q: %w", addr, err)
	}
	id, err := p2p.Identify(ctx, c.host, a)
	if err != nil {
		return "", err
	}
	return id.String(), nil
}

// ID is the master's peer id in text form. It is proven when a connection is made.
func (m *Master) ID() string { return m.id.String() }

// newStream connects where there is no connection yet.
func (m *Master) newStream(ctx context.Context, proto protocol.ID) (network.Stream, error) {
	h := m.client.host
	h.Peerstore().AddAddrs(m.id, m.addrs, peerstore.TempAddrTTL)
	if err := h.Connect(ctx, peer.AddrInfo{ID: m.id}); err != nil {
		return nil, err
	}
	return h.NewStream(ctx, m.id, proto)
}

// Ask sends a request and returns the answer. One request at a time is under way; others
// wait. Errors wrap ErrNotSent where the request cannot have arrived.
func (m *Master) Ask(ctx context.Context, request []byte) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, notSent(err)
	}
	select {
	case m.asking <- struct{}{}:
	case <-ctx.Done():
		return nil, notSent(ctx.Err())
	}
	defer func() { <-m.asking }()
	for {
		f := m.swap(nil) // nobody else asks, and Close finds it below
		kept := f != nil
		if !kept {
			s, err := m.newStream(ctx, askProtocol)
			if err != nil {
				return nil, notSent(err)
			}
			opened := frames(s, maxAsk)
			f = &opened
		}
		m.swap(f)
		lift := within(ctx, f.s, maxAskTime)
		err := f.write(request)
		var answer []byte
		if err == nil {
			answer, err = f.read()
		}
		if lift(); err == nil {
			return answer, nil
		}
		_ = f.s.Reset()
		if m.swap(nil) == f && kept && ctx.Err() == nil {
			continue // it was closed at the other end since; once more on a new one
		}
		return nil, err
	}
}

// maxAskTime bounds a request whose context does not.
const maxAskTime = time.Minute

// Close ends the stream of requests, and with it the request that is under way. It waits
// for none. Tunnels stay.
func (m *Master) Close() {
	if f := m.swap(nil); f != nil {
		_ = f.s.Reset()
	}
}

// swap sets the stream of requests, and returns the one before.
func (m *Master) swap(f *framed) (before *framed) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before, m.stream = m.stream, f
	return before
}

// Tunnel is an open tunnel to a master.
type Tunnel struct {
	done chan struct{}
	err  error // set before done is closed
	end  func()
}

// Open opens a tunnel for a node at a boot: from now on the master may open connections to this
// client. ctx bounds the opening only. Errors: [RefusedError], and those of the network.
func (m *Master) Open(ctx context.Context, node string, boot uint64) (*Tunnel, error) {
	s, err := m.newStream(ctx, openProtocol)
	if err != nil {
		return nil, err
	}
	m.client.count(s.Conn(), 1)
	f := frames(s, maxClaim)
	lift := within(ctx, s, 2*dialTimeout)
	var v verdict
	err = f.writeJSON(claim{node, boot})
	if err == nil {
		err = f.readJSON(&v)
	}
	lift()
	if err == nil && v.Refused != "" {
		err = &RefusedError{v.Refused}
	}
	if err != nil {
		m.client.count(s.Conn(), -1)
		_ = s.Reset()
		return nil, err
	}
	closing := make(chan struct{})
	t := &Tunnel{done: make(chan struct{}), end: sync.OnceFunc(func() { close(closing) })}
	go func() {
		t.err = keep(s, f, closing)
		m.client.count(s.Conn(), -1)
		_ = s.Reset()
		close(t.done)
	}()
	return t, nil
}

func (c *Client) count(conn network.Conn, by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opened[conn] += by; c.opened[conn] == 0 {
		delete(c.opened, conn)
	}
}

// keep shows every few seconds that the agent is there, until one side ends it.
func keep(s network.Stream, f framed, closing <-chan struct{}) error {
	beat := time.NewTicker(pingEvery)
	defer beat.Stop()
	heard := make(chan error, 1)
	for {
		go func() {
			_, err := f.read()
			heard <- err
		}()
		select {
		case err := <-heard: // before it was asked: the other side has closed
			return errors.Join(errors.New("the master has closed it"), err)
		case <-closing:
			return ErrClosed
		case <-beat.C:
		}
		_ = s.SetDeadline(time.Now().Add(pingEvery))
		if err := f.write(nil); err != nil {
			return err
		}
		select {
		case err := <-heard:
			if err != nil {
				return err
			}
		case <-closing:
			return ErrClosed
		}
		_ = s.SetDeadline(time.Time{})
	}
}

// Done is closed when the tunnel is gone; Err says why then.
func (t *Tunnel) Done() <-chan struct{} { return t.done }

// Err says why the tunnel is gone. Valid after Done.
func (t *Tunnel) Err() error { return t.err }

// Close closes the tunnel and waits until it is. Connections over it end with the
// connection to the master.
func (t *Tunnel) Close() {
	t.end()
	<-t.done
}
