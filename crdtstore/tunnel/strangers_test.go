package tunnel

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-varint"
)

// hostOf is a host that has some connections, and opens streams.
type hostOf struct {
	host.Host
	conns  []network.Conn
	stream func() network.Stream

	streams int // that were opened
}

func (h *hostOf) Network() network.Network                     { return networkOf{conns: h.conns} }
func (h *hostOf) Peerstore() peerstore.Peerstore               { return forgetful{} }
func (h *hostOf) Connect(context.Context, peer.AddrInfo) error { return nil }

func (h *hostOf) NewStream(context.Context, peer.ID, ...protocol.ID) (network.Stream, error) {
	if h.streams++; h.streams > 100 {
		return nil, errors.New("streams are opened without end")
	}
	return h.stream(), nil
}

type networkOf struct {
	network.Network
	conns []network.Conn
}

func (n networkOf) Conns() []network.Conn { return n.conns }

type forgetful struct{ peerstore.Peerstore }

func (forgetful) AddAddrs(peer.ID, []ma.Multiaddr, time.Duration) {}

func newConn(id string) *pipeConn { return &pipeConn{peer: peer.ID(id), closed: make(chan struct{})} }

// A connection with which nothing is done is closed after 15 s, one that only asks after
// two minutes; one with a tunnel stays.
func TestIdleConnectionsAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		l.host = &hostOf{}
		idle, asks, tunnelled := newConn("idle"), newConn("asks"), newConn("agent")
		for _, c := range []*pipeConn{idle, asks, tunnelled} {
			l.connected(l.host.Network(), c)
		}
		finish := make(chan struct{})
		serve := l.during(func(network.Stream) { <-finish })
		go serve(&pipe{conn: asks})
		go serve(&pipe{conn: tunnelled})
		if err := l.enter("n", &session{conn: tunnelled, lease: new(lease)}); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			at     time.Duration
			closed []*pipeConn
		}{
			{15*time.Second - 1, nil}, {15 * time.Second, []*pipeConn{idle}},
			{2*time.Minute - 1, []*pipeConn{idle}}, {2 * time.Minute, []*pipeConn{idle, asks}}, {time.Hour, []*pipeConn{idle, asks}},
		} {
			time.Sleep(c.at - time.Since(time.Unix(946684800, 0)))
			for _, conn := range []*pipeConn{idle, asks, tunnelled} {
				if is := ended(conn.closed); is != slices.Contains(c.closed, conn) {
					t.Errorf("after %v the connection of %s is closed: %v", c.at, conn.peer, is)
				}
			}
		}
		// When the last stream ends, so does the connection, unless something follows.
		close(finish)
		synctest.Wait()
		time.Sleep(15*time.Second - 1)
		if ended(tunnelled.closed) {
			t.Error("a connection is closed that may be used again")
		}
		time.Sleep(time.Nanosecond)
		if !ended(tunnelled.closed) {
			t.Error("a connection that was used is kept for ever")
		}
		if len(l.busy) != 0 {
			t.Errorf("streams are counted that have ended: %v", l.busy)
		}
	})
}

// Of connections without a tunnel there may be so many; further ones are closed at once,
// however many have one.
func TestConnectionsWithoutATunnelAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, c := range map[string]struct {
			conns, tunnels int
			closed         bool
		}{
			"as many as there may be": {8192, 0, false}, "one too many": {8193, 0, true},
			"with tunnels": {10_000, 2000, false}, "with too few tunnels": {10_000, 1000, true},
		} {
			l := newLeases()
			l.host = &hostOf{conns: make([]network.Conn, c.conns)}
			for i := range c.tunnels {
				l.sessions[fmt.Sprint(i)] = &session{}
			}
			conn := newConn("new")
			l.connected(l.host.Network(), conn)
			if is := ended(conn.closed); is != c.closed {
				t.Errorf("%s: it is closed: %v", name, is)
			}
		}
		time.Sleep(time.Hour) // until all timers are over
	})
}

// A connection has at most 16 streams, and none after Close.
func TestStreamsOfAConnectionAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		finish, served := make(chan struct{}), 0
		serve := l.during(func(network.Stream) {
			served++
			<-finish
		})
		conn := newConn("agent")
		var ends []net.Conn
		offer := func(c *pipeConn) (refused bool) {
			here, there := net.Pipe()
			ends = append(ends, here)
			go serve(&pipe{net: there, conn: c})
			synctest.Wait()
			_ = here.SetReadDeadline(time.Now())
			_, err := here.Read(make([]byte, 1))
			return !errors.Is(err, context.DeadlineExceeded) && fmt.Sprint(err) == "EOF"
		}
		for i := range 20 {
			if refused := offer(conn); refused != (i >= 16) {
				t.Errorf("stream %d is refused: %v", i, refused)
			}
		}
		if offer(newConn("other")) || served != 17 {
			t.Errorf("another connection has to pay for it; %d are served", served)
		}
		l.closed = true
		if !offer(newConn("late")) {
			t.Error("a stream is taken after Close")
		}
		close(finish)
		synctest.Wait()
		time.Sleep(time.Minute)
	})
}

// A stream for requests may be idle for ten minutes; a request that has begun has to
// come, and a tunnel to be asked for, in seconds.
func TestSlowRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		l.ctx = t.Context()
		l.cfg.Answer = func(_ context.Context, key string, request []byte) []byte { return fmt.Append(nil, key, request) }
		for name, c := range map[string]struct {
			serve func(network.Stream)
			sent  []byte
			ends  time.Duration
		}{
			"idle":                     {l.answer, nil, 10 * time.Minute},
			"begun":                    {l.answer, varint.ToUvarint(100), 12 * time.Second},
			"no claim":                 {l.open, nil, 2 * time.Second},
			"half a claim":             {l.open, varint.ToUvarint(100), 2 * time.Second},
			"a claim that is too long": {l.open, varint.ToUvarint(64<<10 + 1), 0},
		} {
			here, there := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				c.serve(&pipe{net: there, conn: newConn("agent")})
			}()
			began := time.Now()
			go func() { _, _ = here.Write(c.sent) }()
			select {
			case <-done:
			case <-time.After(time.Hour):
			}
			if took := time.Since(began); took != c.ends {
				t.Errorf("%s: it ended after %v, want %v", name, took, c.ends)
			}
			here.Close()
		}
	})
}

// What cannot have arrived is sent once more where a stream that was kept turns out to be
// closed, and not for ever; after a failure the next request opens a stream.
func TestAskOpensStreams(t *testing.T) {
	id := newIdentity(t).ID()
	synctest.Test(t, func(t *testing.T) {
		opened := 0
		answers := []int{} // how many requests each stream answers
		h := &hostOf{stream: func() network.Stream {
			here, there := net.Pipe()
			n := answers[min(opened, len(answers)-1)]
			opened++
			go func() {
				defer there.Close()
				f := frames(&pipe{net: bufferedConn{there, bufio.NewReader(there)}}, maxAsk)
				for range n {
					b, err := f.read()
					if err != nil || f.write(b) != nil {
						return
					}
				}
			}()
			return &pipe{net: here}
		}}
		m, err := (&Client{host: h}).Master([]string{"/ip4/10.0.0.1/tcp/1/p2p/" + id})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			answers []int
			ask     []bool // whether each request goes well
			opened  int
		}{
			{[]int{0}, []bool{false, false}, 2},
			{[]int{3}, []bool{true, true, true}, 1},
			{[]int{1, 1, 1}, []bool{true, true, true}, 3},
			{[]int{1, 0}, []bool{true, false, false}, 3},
			{[]int{0, 2}, []bool{false, true, true}, 2},
		} {
			answers, opened = c.answers, 0
			for i, well := range c.ask {
				if got, err := m.Ask(t.Context(), []byte("x")); (err == nil) != well || well && string(got) != "x" {
					t.Errorf("%v: request %d: %q, %v", c.answers, i, got, err)
				}
				synctest.Wait()
			}
			if opened != c.opened {
				t.Errorf("%v: %d streams were opened, want %d", c.answers, opened, c.opened)
			}
			m.Close()
		}
	})
}

type bufferedConn struct {
	net.Conn
	in *bufio.Reader
}

func (b bufferedConn) Read(p []byte) (int, error) { return b.in.Read(p) }

// An agent takes connections of masters to which it has a tunnel, and no more than wait
// for somebody to accept them.
func TestAgentTakesConnectionsOfItsMasters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{host: &hostOf{}, arriving: make(chan net.Conn, maxWaiting), closing: make(chan struct{}), opened: map[network.Conn]int{}}
		master := newConn("master")
		defer close(c.closing)
		arrive := func() (taken bool) {
			here, there := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				c.arrived(&pipe{net: there, conn: master})
			}()
			_ = here.SetReadDeadline(time.Now().Add(time.Second))
			said := await(here) == nil
			select {
			case <-done:
			case <-time.After(time.Second):
				t.Error("the stream handler waits for somebody to accept")
			}
			_ = here.SetReadDeadline(time.Now().Add(time.Second))
			_, err := here.Read(make([]byte, 1))
			return said && fmt.Sprint(err) != "EOF"
		}
		if arrive() {
			t.Error("a master without a tunnel is taken")
		}
		c.count(master, 1)
		c.count(master, 1)
		for i := range maxWaiting {
			if !arrive() {
				t.Fatalf("connection %d is refused", i)
			}
		}
		if arrive() {
			t.Error("more are taken than may wait")
		}
		<-c.arriving
		if !arrive() {
			t.Error("there is room again")
		}
		<-c.arriving
		c.count(master, -1)
		if !arrive() {
			t.Error("it has a tunnel still")
		}
		<-c.arriving
		c.count(master, -1)
		if arrive() {
			t.Error("its last tunnel is gone")
		}
	})
}
