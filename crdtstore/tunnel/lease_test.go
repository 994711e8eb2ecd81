package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"pgregory.net/rapid"
)

// pipe is a stream in memory, of a connection that knows only who is at the other end.
type pipe struct {
	network.Stream
	net  net.Conn
	conn *pipeConn

	half       bool // it can be closed in one direction
	halfClosed bool
}

func (p *pipe) CloseWrite() error {
	if p.half {
		p.halfClosed = true
		return nil
	}
	return p.Close()
}

func (p *pipe) SetProtocol(protocol.ID) error      { return nil }
func (p *pipe) Read(b []byte) (int, error)         { return p.net.Read(b) }
func (p *pipe) Write(b []byte) (int, error)        { return p.net.Write(b) }
func (p *pipe) Close() error                       { return p.net.Close() }
func (p *pipe) Reset() error                       { return p.net.Close() }
func (p *pipe) SetDeadline(t time.Time) error      { return p.net.SetDeadline(t) }
func (p *pipe) SetReadDeadline(t time.Time) error  { return p.net.SetReadDeadline(t) }
func (p *pipe) SetWriteDeadline(t time.Time) error { return p.net.SetWriteDeadline(t) }
func (p *pipe) Conn() network.Conn                 { return p.conn }

type pipeConn struct {
	network.Conn
	peer   peer.ID
	closed chan struct{}
	once   sync.Once
	// dialled is called for each stream that is opened to the other end.
	dialled func(there net.Conn)
}

func (c *pipeConn) NewStream(context.Context) (network.Stream, error) {
	if c.dialled == nil {
		return nil, errors.New("nobody is there")
	}
	here, there := net.Pipe()
	go c.dialled(there)
	return &pipe{net: here, conn: c}, nil
}

func (c *pipeConn) RemotePeer() peer.ID { return c.peer }

func (c *pipeConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

// leases is a Host to which agents come by pipes, in a bubble.
type leases struct {
	*Host
	mu      sync.Mutex
	refuse  error
	asked   []string
	changes []string
}

func newLeases() *leases {
	l := &leases{}
	l.Host = &Host{
		log: slog.New(slog.DiscardHandler), sessions: map[string]*session{}, busy: map[network.Conn]int{},
		cfg: HostConfig{
			Admit: func(node, key string, boot uint64) error {
				l.mu.Lock()
				defer l.mu.Unlock()
				l.asked = append(l.asked, fmt.Sprint(node, " ", key, " ", boot))
				return l.refuse
			},
			Changed: func(node string, open bool) { l.changes = append(l.changes, fmt.Sprint(node, " ", open)) },
		},
	}
	return l
}

func (l *leases) set(refuse error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = refuse
}

// connect opens a tunnel, and returns the agent's end of it.
func (l *leases) connect(t *testing.T, node, key string, boot uint64) (agent framed, conn *pipeConn, refused string, ended <-chan struct{}) {
	t.Helper()
	here, there := net.Pipe()
	t.Cleanup(func() { here.Close() })
	conn = &pipeConn{peer: peer.ID(key), closed: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.open(&pipe{net: there, conn: conn})
	}()
	agent = frames(&pipe{net: here, conn: conn}, maxClaim)
	var v verdict
	err := agent.writeJSON(claim{node, boot})
	if err == nil {
		err = agent.readJSON(&v)
	}
	if err != nil {
		t.Fatal(err)
	}
	return agent, conn, v.Refused, done
}

// beat says that the agent is there, and reports whether the master has heard it.
func beat(agent framed) bool {
	if agent.write(nil) != nil {
		return false
	}
	_, err := agent.read()
	return err == nil
}

func ended(c <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// A tunnel stays for as long as its agent is heard, and not for 12 s longer; then the
// connection is closed as well, for nobody is there.
func TestSilentAgentLosesItsTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		agent, conn, refused, done := l.connect(t, "n", "key", 7)
		if refused != "" {
			t.Fatal(refused)
		}
		for range 100 {
			time.Sleep(silence - time.Second)
			if !beat(agent) || ended(done) {
				t.Fatal("an agent that is heard has lost its tunnel")
			}
		}
		time.Sleep(12*time.Second - time.Millisecond)
		if ended(done) {
			t.Error("an agent that may yet be heard has lost its tunnel")
		}
		time.Sleep(time.Millisecond)
		if !ended(done) || !ended(conn.closed) || l.Len() != 0 {
			t.Error("an agent that is silent for 12 s keeps its tunnel or its connection")
		}
		if want := []string{"n true", "n false"}; !slices.Equal(l.changes, want) {
			t.Errorf("changes %q, want %q", l.changes, want)
		}
	})
}

// Whoever may not hold a tunnel any more, because the node has booted again, or was
// removed, loses it with the next beat, whether it is used or not. The connection stays.
func TestTunnelIsAdmittedAgainAndAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		agent, conn, refused, done := l.connect(t, "n", "key", 7)
		if refused != "" || !beat(agent) {
			t.Fatal(refused)
		}
		l.set(errors.New("the node speaks as a later boot"))
		if beat(agent) || !ended(done) || l.Len() != 0 {
			t.Error("it still has the tunnel")
		}
		if ended(conn.closed) {
			t.Error("its connection is closed, over which it may ask")
		}
		for _, asked := range l.asked {
			if want := fmt.Sprint("n ", peer.ID("key"), " 7"); asked != want {
				t.Errorf("asked whether %q may, want %q", asked, want)
			}
		}
		if _, _, refused, done := l.connect(t, "n", "key", 7); refused == "" || !ended(done) || l.Len() != 0 {
			t.Errorf("refused for %q", refused)
		}
	})
}

// An earlier boot of an agent does not take the tunnel from a later one, whatever the
// master knows of the node by then.
func TestEarlierBootDoesNotTakeOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		late, _, _, lateDone := l.connect(t, "n", "key", 8)
		_, _, refused, done := l.connect(t, "n", "key", 7)
		if refused == "" || !ended(done) {
			t.Errorf("boot 7 takes the tunnel of boot 8; refused for %q", refused)
		}
		if !beat(late) || ended(lateDone) || l.Len() != 1 {
			t.Error("boot 8 has lost its tunnel")
		}
		if _, _, refused, _ := l.connect(t, "n", "key", 9); refused != "" || !ended(lateDone) {
			t.Errorf("boot 9 does not take over from boot 8: %q", refused)
		}
		if want := []string{"n true"}; !slices.Equal(l.changes, want) {
			t.Errorf("changes %q, want %q", l.changes, want)
		}
	})
}

// lease is a stream that notes that it was reset.
type lease struct {
	network.Stream
	reset int
}

func (l *lease) Reset() error { l.reset++; return nil }

// Tunnels come and go in any order. The one that is used is the last that was let in, of
// one key the latest boot; who hears of changes hears of a node's tunnel in turns.
func TestWhoHasTheTunnel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		l := newLeases()
		var open []*session // in the order in which they were let in
		last := func() *session {
			if len(open) == 0 {
				return nil
			}
			return open[len(open)-1]
		}
		holder := (*session)(nil)
		rt.Repeat(map[string]func(*rapid.T){
			"enter": func(*rapid.T) {
				mine := &session{
					lease: new(lease), key: rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "key"),
					boot: rapid.Uint64Range(1, 4).Draw(rt, "boot"),
				}
				err := l.enter("n", mine)
				if older := holder != nil && holder.key == mine.key && holder.boot > mine.boot; (err != nil) != older {
					rt.Fatalf("boot %d of %s after %+v: %v", mine.boot, mine.key, holder, err)
				}
				if err != nil {
					return
				}
				if holder != nil && holder.lease.(*lease).reset != 1 {
					rt.Error("who had it is not told")
				}
				open, holder = append(open, mine), mine
			},
			"leave": func(*rapid.T) {
				if len(open) == 0 {
					return
				}
				i := rapid.IntRange(0, len(open)-1).Draw(rt, "which")
				gone := open[i]
				open = slices.Delete(open, i, i+1)
				if gone == holder {
					holder = nil
				}
				l.leave("n", gone)
			},
			"": func(*rapid.T) {
				if l.sessions["n"] != holder {
					rt.Fatalf("the tunnel is that of %+v, want %+v; the last is %+v", l.sessions["n"], holder, last())
				}
				if holder != nil && holder.lease.(*lease).reset != 0 {
					rt.Error("who has it was reset")
				}
				for i, c := range l.changes {
					if want := fmt.Sprint("n ", i%2 == 0); c != want {
						rt.Fatalf("changes %q", l.changes)
					}
				}
				if (len(l.changes)%2 == 1) != (holder != nil) {
					rt.Fatalf("changes %q, and the tunnel is that of %+v", l.changes, holder)
				}
			},
		})
	})
}

// An agent says every 4 s that it is there, and knows within as long that it is not heard.
func TestAgentNoticesASilentMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		t.Cleanup(func() { here.Close() })
		agent, master := frames(&pipe{net: here}, maxClaim), frames(&pipe{net: there}, maxClaim)
		closing, result := make(chan struct{}), make(chan error, 1)
		go func() { result <- keep(agent.s, agent, closing) }()
		began := time.Now()
		for i := range 10 {
			if _, err := master.read(); err != nil {
				t.Fatal(err)
			}
			if at := time.Since(began); at != time.Duration(i+1)*4*time.Second {
				t.Errorf("beat %d came after %v", i, at)
			}
			if err := master.write(nil); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := master.read(); err != nil {
			t.Fatal(err)
		}
		heard := time.Now()
		if err := <-result; err == nil || errors.Is(err, ErrClosed) {
			t.Errorf("the master is silent: %v", err)
		}
		if took := time.Since(heard); took != 4*time.Second {
			t.Errorf("it took %v to notice", took)
		}
	})
}

// The agent ends a tunnel at once, and notices at once that the master does.
func TestTunnelEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, wait := range []time.Duration{0, time.Second, pingEvery + time.Second} { // before, and while an answer is waited for
			for _, master := range []bool{false, true} {
				here, there := net.Pipe()
				agent := frames(&pipe{net: here}, maxClaim)
				closing, result := make(chan struct{}), make(chan error, 1)
				go func() { result <- keep(agent.s, agent, closing) }()
				if wait > pingEvery {
					if _, err := frames(&pipe{net: there}, maxClaim).read(); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				began := time.Now()
				if master {
					there.Close()
				} else {
					close(closing)
				}
				err := <-result
				if errors.Is(err, ErrClosed) == master || time.Since(began) != 0 {
					t.Errorf("after %v it ended with %v within %v", wait, err, time.Since(began))
				}
				here.Close()
				there.Close()
			}
		}
	})
}
