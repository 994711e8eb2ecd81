package tunnel

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/multiformats/go-varint"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
)

func newIdentity(t *testing.T) *identity.Identity {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.FromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// edge is a Host that admits each agent for the node that bears its id, and any for
// nodes whose names begin with "any".
type edge struct {
	*Host
	id    string
	least atomic.Uint64 // boot
	// answer is called before a request is answered; nil: nothing is.
	answer atomic.Pointer[func()]

	mu      sync.Mutex
	changes []string
	changed chan struct{}
}

func newEdge(t *testing.T) *edge {
	t.Helper()
	id := newIdentity(t)
	e := &edge{id: id.ID(), changed: make(chan struct{}, 100)}
	h, err := Listen(t.Context(), HostConfig{
		Identity: id, Listen: "127.0.0.1:0",
		Admit: func(node, key string, boot uint64) error {
			if boot < e.least.Load() {
				return errors.New("an older boot")
			}
			if node != key && !strings.HasPrefix(node, "any") {
				return errors.New("another key has this node")
			}
			return nil
		},
		Changed: func(node string, open bool) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.changes = append(e.changes, fmt.Sprint(node, open))
			e.changed <- struct{}{}
		},
		Answer: func(_ context.Context, key string, request []byte) []byte {
			if f := e.answer.Load(); f != nil {
				(*f)()
			}
			return fmt.Append(nil, key, " asks ", string(request))
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	e.Host = h
	t.Cleanup(func() { h.Close() })
	return e
}

func (e *edge) addrs() (out []string) {
	for _, a := range e.Addrs() {
		out = append(out, a+"/p2p/"+e.id)
	}
	return out
}

// newAgent is a Client that answers every line with the line, behind a name.
func newAgent(t *testing.T, id *identity.Identity, name string) *Client {
	t.Helper()
	c, err := NewClient(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		for {
			conn, err := c.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for in := bufio.NewScanner(conn); in.Scan(); {
					fmt.Fprintln(conn, name, in.Text())
				}
			}()
		}
	}()
	return c
}

func open(t *testing.T, c *Client, e *edge, node string) *Tunnel {
	t.Helper()
	m, err := c.Master(e.addrs())
	if err != nil {
		t.Fatal(err)
	}
	tun, err := m.Open(t.Context(), node, 7)
	if err != nil {
		t.Fatal(err)
	}
	return tun
}

// soon fails the test where something does not happen.
func soon(t *testing.T, what string, do func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("never: ", what)
	}
}

// say sends a line and returns the line that comes back.
func say(t *testing.T, conn net.Conn, line string) string {
	t.Helper()
	fmt.Fprintln(conn, line)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(answer)
}

func TestTunnel(t *testing.T) {
	e, id := newEdge(t), newIdentity(t)
	if _, err := e.Dial(t.Context(), id.ID()); !errors.Is(err, ErrNone) {
		t.Errorf("before there is a tunnel: %v", err)
	}
	agent := newAgent(t, id, "agent")
	tun := open(t, agent, e, id.ID())
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			conn, err := e.Dial(t.Context(), id.ID())
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if got, want := say(t, conn, fmt.Sprint("hello ", i)), fmt.Sprint("agent hello ", i); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	all.Wait()
	tun.Close()
	agent.mu.Lock()
	if len(agent.opened) != 0 {
		t.Error("the agent takes connections of a master to which it has closed the tunnel")
	}
	agent.mu.Unlock()
	<-e.changed
	<-e.changed
	if want := []string{id.ID() + "true", id.ID() + "false"}; !slices.Equal(e.changes, want) {
		t.Errorf("changes %q, want %q", e.changes, want)
	}
	if _, err := e.Dial(t.Context(), id.ID()); !errors.Is(err, ErrNone) || e.Len() != 0 {
		t.Errorf("after it was closed: %v", err)
	}
}

func TestAnotherKeyIsRefused(t *testing.T) {
	e, id := newEdge(t), newIdentity(t)
	m, err := newAgent(t, newIdentity(t), "thief").Master(e.addrs())
	if err != nil {
		t.Fatal(err)
	}
	var refused *RefusedError
	if _, err := m.Open(t.Context(), id.ID(), 7); !errors.As(err, &refused) || refused.Reason != "another key has this node" {
		t.Errorf("got %v", err)
	}
	if e.Len() != 0 {
		t.Error("it has the tunnel all the same")
	}
	// Nor can a master reach an agent that has not opened a tunnel to it.
	m.client.mu.Lock()
	defer m.client.mu.Unlock()
	if len(m.client.opened) != 0 {
		t.Error("the agent takes connections of a master that refused it")
	}
}

// Whoever opens a tunnel for a node last has it: the agent came back before it was
// missed. The one before it ends without a change.
func TestTheLastOneHasIt(t *testing.T) {
	e := newEdge(t)
	first := open(t, newAgent(t, newIdentity(t), "first"), e, "any")
	second := open(t, newAgent(t, newIdentity(t), "second"), e, "any")
	<-first.Done()
	conn, err := e.Dial(t.Context(), "any")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := say(t, conn, "x"); got != "second x" {
		t.Errorf("got %q", got)
	}
	if len(e.changes) != 1 {
		t.Errorf("changes %q", e.changes)
	}
	e.least.Store(8)
	if _, err := e.Dial(t.Context(), "any"); !errors.Is(err, ErrNone) {
		t.Error("it is no more admitted:", err)
	}
	<-second.Done()
	if second.Err() == nil {
		t.Error("it does not say why it ended")
	}
}

func TestAsk(t *testing.T) {
	e, id := newEdge(t), newIdentity(t)
	m, err := newAgent(t, id, "agent").Master(e.addrs())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		got, err := m.Ask(t.Context(), fmt.Append(nil, "x", i))
		if want := fmt.Sprint(id.ID(), " asks x", i); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		if i == 1 {
			m.Close() // the next request opens a stream again
		}
	}
	big := bytes.Repeat([]byte("b"), 1<<20)
	if got, err := m.Ask(t.Context(), big); err != nil || !bytes.HasSuffix(got, big) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	e.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Ask(ended, nil); !errors.Is(err, ErrNotSent) {
		t.Errorf("with a context that has ended: %v", err)
	}
	if _, err := m.Ask(t.Context(), nil); !errors.Is(err, ErrNotSent) {
		t.Errorf("to a master that is gone: %v", err)
	}
}

// A request that gets no answer holds up neither Close, which the agent calls with locks
// held, nor those that wait behind it and give up.
func TestCloseDoesNotWaitForAnAnswer(t *testing.T) {
	e, arrived, free := newEdge(t), make(chan struct{}, 2), make(chan struct{})
	defer close(free)
	answer := func() {
		arrived <- struct{}{}
		<-free
	}
	e.answer.Store(&answer)
	m, err := newAgent(t, newIdentity(t), "agent").Master(e.addrs())
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan error, 1)
	go func() {
		_, err := m.Ask(t.Context(), []byte("x"))
		asked <- err
	}()
	<-arrived
	ctx, cancel := context.WithCancel(t.Context())
	behind := make(chan error, 1)
	go func() {
		_, err := m.Ask(ctx, []byte("y"))
		behind <- err
	}()
	cancel()
	soon(t, "who waits behind it gives up", func() {
		if err := <-behind; !errors.Is(err, ErrNotSent) || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	soon(t, "it is closed", m.Close)
	soon(t, "who asked is told", func() {
		if err := <-asked; err == nil {
			t.Error("an answer to a request that was given up")
		}
	})
}

func TestSplice(t *testing.T) {
	e, id := newEdge(t), newIdentity(t)
	open(t, newAgent(t, id, "agent"), e, id.ID())
	through := func(node string) (net.Conn, error) {
		here, there := net.Pipe()
		go e.Splice(there)
		t.Cleanup(func() { here.Close() })
		return here, Through(t.Context(), here, node)
	}
	conn, err := through(id.ID())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if got, want := say(t, conn, fmt.Sprint(i)), fmt.Sprint("agent ", i); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	for _, node := range []string{"", "another", strings.Repeat("n", maxNode), strings.Repeat("n", maxNode+1)} {
		if _, err := through(node); !errors.Is(err, ErrNone) {
			t.Errorf("a node of %d letters: %v", len(node), err)
		}
	}
	e.Close()
	if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.ErrNoProgress) {
		t.Error("it goes on when the tunnel is gone")
	}
}

func TestMasterAddresses(t *testing.T) {
	c := newAgent(t, newIdentity(t), "agent")
	a, b := newIdentity(t).ID(), newIdentity(t).ID()
	for _, bad := range [][]string{
		nil, {""}, {"10.0.0.1:9005"}, {"/ip4/10.0.0.1/tcp/9005"}, {"/p2p/" + a}, {"/ip4/10.0.0.1/tcp/9005/p2p/nobody"},
		{"/ip4/10.0.0.1/tcp/1/p2p/" + a, "/ip4/10.0.0.1/tcp/1/p2p/" + b},
	} {
		if _, err := c.Master(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	m, err := c.Master([]string{"/ip4/10.0.0.1/tcp/1/p2p/" + a, "/dns/m.example/tcp/2/p2p/" + a})
	if err != nil || m.ID() != a {
		t.Errorf("%v, %v", m, err)
	}
}

func TestAdvertised(t *testing.T) {
	for name, want := range map[string]string{
		"10.0.0.1": "/ip4/10.0.0.1/tcp/9", "::ffff:10.0.0.1": "/ip4/10.0.0.1/tcp/9",
		"fd00::1": "/ip6/fd00::1/tcp/9", "m.example": "/dns/m.example/tcp/9",
	} {
		if got := multiaddrOf(name, 9); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestID(t *testing.T) {
	id := newIdentity(t)
	if got, err := ID(id.PrivateKey().Public().(ed25519.PublicKey)); err != nil || got != id.ID() {
		t.Errorf("got %s, %v, want %s", got, err, id.ID())
	}
	if _, err := ID([]byte("short")); err == nil {
		t.Error("a short key is taken")
	}
}

// What was admitted once is looked at again when it is used.
func TestNoMoreAdmitted(t *testing.T) {
	e, id := newEdge(t), newIdentity(t)
	tun := open(t, newAgent(t, id, "agent"), e, id.ID())
	e.least.Store(8)
	if _, err := e.Dial(t.Context(), id.ID()); !errors.Is(err, ErrNone) {
		t.Errorf("a node of another boot: %v", err)
	}
	<-tun.Done()
}

// Whoever announces a long frame has to send it before memory is taken for it.
func TestFramesAreNotBelieved(t *testing.T) {
	e := newEdge(t)
	m, err := newAgent(t, newIdentity(t), "stranger").Master(e.addrs())
	if err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range 10 {
		s, err := m.newStream(t.Context(), askProtocol)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Reset()
		if _, err := s.Write(varint.ToUvarint(maxAsk)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := m.Ask(t.Context(), []byte("x")); err != nil { // the others were read by now
		t.Fatal(err)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 10<<20 {
		t.Errorf("%d bytes were taken for what did not come", grown)
	}
	if _, err := m.Ask(t.Context(), make([]byte, maxAsk+1)); err == nil {
		t.Error("a frame that is too long was taken")
	}
}

// Who is at an address is found out without knowing it.
func TestIdentify(t *testing.T) {
	id := newIdentity(t)
	h, err := Listen(t.Context(), HostConfig{Identity: id, Listen: "127.0.0.1:0", Admit: func(string, string, uint64) error { return nil }, Changed: func(string, bool) {}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	c, err := NewClient(newIdentity(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	for _, addr := range h.Addrs() {
		if got, err := c.Identify(t.Context(), addr); err != nil || got != id.ID() {
			t.Errorf("at %s is %s, %v, want %s", addr, got, err, id.ID())
		}
	}
	if got, err := c.Identify(t.Context(), "/ip4/127.0.0.1/tcp/1"); err == nil {
		t.Errorf("%s is where nobody is", got)
	}
}
