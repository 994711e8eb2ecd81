package gossip

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	mocknet "github.com/libp2p/go-libp2p/p2p/net/mock"
)

// member is one master's gossip and what it was handed.
type member struct {
	*Gossip
	host host.Host
	got  chan message

	mu    sync.Mutex
	known map[peer.ID]bool
}

type message struct {
	topic string
	from  peer.ID
	data  []byte
}

func (m *member) knows(id peer.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.known[id]
}

func (m *member) take(topic string, from peer.ID, data []byte) {
	m.got <- message{topic, from, bytes.Clone(data)}
}

func (m *member) Announced(from peer.ID, data []byte) { m.take("announce", from, data) }
func (m *member) Pulsed(from peer.ID, data []byte)    { m.take("pulse", from, data) }
func (m *member) Arrived(peer.ID, []byte)             {}
func (m *member) Hop(peer.ID, bool)                   {}

// mesh makes n members in this process, connected as links say.
func mesh(t testing.TB, n int, linked func(i, j int) bool) []*member {
	t.Helper()
	net := mocknet.New()
	t.Cleanup(func() { _ = net.Close() })
	members := make([]*member, n)
	for i := range n {
		h, err := net.GenPeer()
		if err != nil {
			t.Fatal(err)
		}
		m := &member{host: h, got: make(chan message, 1<<14), known: map[peer.ID]bool{}}
		m.Gossip, err = Join(Options{Host: h, Known: m.knows, Logger: slog.New(slog.DiscardHandler), Handler: m})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Error("close:", err)
			}
		})
		members[i] = m
	}
	for i, m := range members {
		for j, other := range members {
			m.known[other.host.ID()] = true
			if i < j && linked(i, j) {
				if _, err := net.LinkPeers(m.host.ID(), other.host.ID()); err != nil {
					t.Fatal(err)
				}
				if _, err := net.ConnectPeers(m.host.ID(), other.host.ID()); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return members
}

func all(int, int) bool { return true }

// ready waits until what one member says reaches another.
func ready(t testing.TB, from, to *member) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for i := byte(0); ; i++ {
		if err := from.Pulse(t.Context(), []byte{0xff, i}); err != nil {
			t.Fatal(err)
		}
		retry := time.After(50 * time.Millisecond)
		for waiting := true; waiting; {
			select {
			case m := <-to.got:
				if m.from == from.host.ID() && m.data[0] == 0xff {
					return
				}
			case <-retry:
				waiting = false
			case <-deadline:
				t.Fatal("waited 20 s for the first message")
			}
		}
	}
}

// next returns the next message but those of ready.
func (m *member) next(t testing.TB) message {
	t.Helper()
	for {
		select {
		case msg := <-m.got:
			if msg.data[0] != 0xff {
				return msg
			}
		case <-time.After(20 * time.Second):
			t.Fatal("waited 20 s for a message")
		}
	}
}

func TestTopicsAreApart(t *testing.T) {
	m := mesh(t, 2, all)
	ready(t, m[0], m[1])
	if err := m[0].Announce(t.Context(), []byte("block")); err != nil {
		t.Fatal(err)
	}
	if got := m[1].next(t); got.topic != "announce" || got.from != m[0].host.ID() || string(got.data) != "block" {
		t.Errorf("%+v", got)
	}
	if err := m[0].Pulse(t.Context(), []byte("pulse")); err != nil {
		t.Fatal(err)
	}
	if got := m[1].next(t); got.topic != "pulse" || string(got.data) != "pulse" {
		t.Errorf("%+v", got)
	}
}

func TestUnknownAuthorsAreNotHeard(t *testing.T) {
	m := mesh(t, 3, all)
	ready(t, m[0], m[1])
	ready(t, m[2], m[1])
	m[1].mu.Lock()
	delete(m[1].known, m[2].host.ID())
	m[1].mu.Unlock()
	for i := range 20 {
		if err := m[2].Announce(t.Context(), fmt.Append(nil, "unknown", i)); err != nil {
			t.Fatal(err)
		}
	}
	// What the unknown one says after this would come after it, for messages of
	// a peer stay in order, and is let through again.
	if err := m[0].Announce(t.Context(), []byte("known")); err != nil {
		t.Fatal(err)
	}
	if got := m[1].next(t); got.from != m[0].host.ID() {
		t.Errorf("heard %q of %s", got.data, got.from)
	}
}

// TestRelayedAuthorsAreHeard has a message come by way of another.
func TestRelayedAuthorsAreHeard(t *testing.T) {
	m := mesh(t, 3, func(i, j int) bool { return j == i+1 }) // a line
	ready(t, m[0], m[1])
	ready(t, m[1], m[2])
	ready(t, m[0], m[2])
	if err := m[0].Announce(t.Context(), []byte("far")); err != nil {
		t.Fatal(err)
	}
	if got := m[2].next(t); got.from != m[0].host.ID() || string(got.data) != "far" {
		t.Errorf("%+v", got)
	}
}

func TestOwnMessagesDoNotComeBack(t *testing.T) {
	m := mesh(t, 2, all)
	ready(t, m[0], m[1])
	ready(t, m[1], m[0])
	if err := m[0].Announce(t.Context(), []byte("mine")); err != nil {
		t.Fatal(err)
	}
	m[1].next(t)
	if err := m[1].Announce(t.Context(), []byte("theirs")); err != nil {
		t.Fatal(err)
	}
	if got := m[0].next(t); string(got.data) != "theirs" {
		t.Errorf("heard %q", got.data)
	}
}

// TestBurst has several say much at one instant. Nothing is lost, and what one
// says keeps its order.
func TestBurst(t *testing.T) {
	const each = 1000
	m := mesh(t, 3, all)
	for i := range m {
		for j := range m {
			if i != j {
				ready(t, m[i], m[j])
			}
		}
	}
	for _, from := range m {
		go func() {
			for i := range each {
				data := append(binary.BigEndian.AppendUint32(nil, uint32(i)), make([]byte, 100)...)
				if err := from.Announce(t.Context(), data); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	for i, to := range m {
		next := map[peer.ID]uint32{}
		for range each * (len(m) - 1) {
			got := to.next(t)
			if n := binary.BigEndian.Uint32(got.data); n != next[got.from] {
				t.Fatalf("%d: message %d of %s comes when %d is due", i, n, got.from, next[got.from])
			}
			next[got.from]++
		}
		if in, out := to.Lost(); in+out > 0 {
			t.Errorf("%d: %d and %d messages lost", i, in, out)
		}
	}
}

func TestTooLargeIsRefused(t *testing.T) {
	m := mesh(t, 2, all)
	ready(t, m[0], m[1])
	_ = m[0].Announce(t.Context(), make([]byte, MaxMessage+1))
	if err := m[0].Announce(t.Context(), []byte("after")); err != nil {
		t.Fatal(err)
	}
	if got := m[1].next(t); string(got.data) != "after" {
		t.Errorf("heard a message of %d bytes", len(got.data))
	}
}

func TestCloseEndsBothTopics(t *testing.T) {
	m := mesh(t, 2, all)
	ready(t, m[0], m[1])
	for range 2 {
		if err := m[1].Close(); err != nil {
			t.Error(err)
		}
	}
	if err := m[1].Announce(t.Context(), []byte("late")); err == nil {
		t.Error("a closed gossip speaks")
	}
}
