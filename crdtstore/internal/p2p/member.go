package p2p

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

const (
	pingEvery   = time.Second
	pingTimeout = 4 * time.Second
	// challengeTimeout is how long the connection of a member may take to answer when
	// the same master asks to be admitted on another one.
	challengeTimeout = time.Second
	// releaseTimeout is how long the protocols above may take to let go of a member that
	// is gone, before it is admitted anew. They take milliseconds.
	releaseTimeout = time.Second
)

// member is an admitted master; Mesh.mu guards all but its run, which stays the same. It is one for as long as every connection stands on
// which it was admitted: two, where both have dialed at the same moment. Streams are
// opened on the first, and taken on all. A peer that comes back on another connection
// is a new member, so nothing that belonged to the old one is used again.
type member struct {
	run     string // empty: an earlier version, which does not say
	conns   []network.Conn
	present bool // announced with Joined
	rtt     time.Duration
}

func (mb *member) has(c network.Conn) bool {
	// An earlier version may open streams on a connection that has no handshake.
	return mb != nil && (mb.run == "" || slices.Contains(mb.conns, c))
}

// Admitted reports whether a peer is an admitted and connected master.
func (m *Mesh) Admitted(id peer.ID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.members[id] != nil
}

// Run returns the run of the master at the other end of a connection, as it said at its
// admission; empty: it does not say, or is not admitted.
func (m *Mesh) Run(c network.Conn) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mb := m.members[c.RemotePeer()]; mb.has(c) {
		return mb.run
	}
	return ""
}

// admittedOn reports whether a connection is one of an admitted master.
func (m *Mesh) admittedOn(c network.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.members[c.RemotePeer()].has(c)
}

// Peers returns the admitted and connected masters.
func (m *Mesh) Peers() []peer.ID {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]peer.ID, 0, len(m.members))
	for id := range m.members {
		out = append(out, id)
	}
	return out
}

// RTT is the last measured round trip to a master, 0 where there is none.
func (m *Mesh) RTT(id peer.ID) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mb := m.members[id]; mb != nil {
		return mb.rtt
	}
	return 0
}

// errGone: the connection was closed while a master was admitted on it.
var errGone = errors.New("the connection is closed")

// enter counts a peer in on a connection: from here on streams from and to it pass.
func (m *Mesh) enter(ctx context.Context, c network.Conn, theirs hello, introduced []Contact) error {
	id := c.RemotePeer()
	if err := m.cfg.Runs.Yielded(); err != nil {
		return err
	}
	if err := m.clear(ctx, c, theirs.Run, theirs.Yielded); err != nil {
		return err
	}
	m.released(ctx, id)
	m.mu.Lock()
	defer m.Learn(introduced)
	defer m.mu.Unlock()
	if c.IsClosed() {
		return errGone
	}
	switch mb := m.members[id]; {
	case mb == nil:
		m.members[id] = &member{run: theirs.Run, conns: []network.Conn{c}}
	case mb.run != theirs.Run:
		return errors.New("admitted on another connection meanwhile")
	case !slices.Contains(mb.conns, c):
		mb.conns = append(mb.conns, c)
	}
	k := m.contact(id, parseAddrs(theirs.Addrs))
	k.met, k.named = true, time.Now()
	m.reserve(c.RemoteMultiaddr())
	m.states.Ended("master " + id.String())
	return nil
}

// answers reports whether all connections of a member answer now.
func (m *Mesh) answers(ctx context.Context, conns []network.Conn) bool {
	ctx, cancel := context.WithTimeout(ctx, challengeTimeout)
	defer cancel()
	for _, c := range conns {
		if _, err := m.echo(ctx, c); err != nil {
			return false
		}
	}
	return true
}

// released waits until the protocols above have let go of a member that is gone: pubsub
// takes the end of an old stream for the end of the new one.
func (m *Mesh) released(ctx context.Context, id peer.ID) {
	if m.cfg.Held == nil || m.Admitted(id) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	for m.cfg.Held(id) && ctx.Err() == nil {
		select {
		case <-time.After(10 * time.Millisecond): // there is nothing to wait on
		case <-ctx.Done():
		}
	}
}

// withdraw undoes enter for a peer whose handshake broke off after it, so that
// it is tried again.
func (m *Mesh) withdraw(id peer.ID) {
	m.mu.Lock()
	mb := m.members[id]
	undo := mb != nil && !mb.present
	m.mu.Unlock()
	if undo {
		m.drop(id, mb, "the handshake broke off")
	}
}

// present tells the protocols above that a peer is there.
func (m *Mesh) present(id peer.ID) {
	m.mu.Lock()
	mb := m.members[id]
	first := mb != nil && !mb.present
	if first {
		mb.present = true
	}
	m.mu.Unlock()
	if !first {
		return
	}
	m.log.Info("master connected", "master", id)
	m.appear(id)
	m.cfg.Joined(id)
}

// appear has pubsub open a stream to a member, if it has none.
func (m *Mesh) appear(id peer.ID) {
	// What a master speaks is what we speak; to wait for the identify protocol
	// to say so would be to race it.
	speaks := m.host.Mux().Protocols()
	if err := m.appeared.Emit(event.EvtPeerProtocolsUpdated{Peer: id, Added: speaks}); err != nil {
		m.log.Warn("cannot announce a master to pubsub", "master", id, "err", err)
	}
}

// Drop ends the membership of a master and closes its connections, so that everything
// between the two is made anew.
func (m *Mesh) Drop(id peer.ID, why string) {
	m.mu.Lock()
	mb := m.members[id]
	m.mu.Unlock()
	if mb != nil {
		m.drop(id, mb, why)
	}
}

// drop is Drop for one member, which may have been replaced.
func (m *Mesh) drop(id peer.ID, mb *member, why string) {
	m.mu.Lock()
	is, closing := m.members[id] == mb, m.closing
	if is {
		delete(m.members, id)
	}
	conns, present := slices.Clone(mb.conns), mb.present
	m.mu.Unlock()
	if !is {
		return
	}
	if present && !closing {
		m.log.Info("master disconnected", "master", id, "why", why)
	}
	for _, c := range conns {
		_ = c.Close() // it may be closed already
	}
	if present {
		m.cfg.Left(id)
	}
}

// ended is called when a stream has ended that lasts as long as its connection does.
// pubsub opens another one by itself, but forgets what the other side has subscribed to,
// and gives up after a few times.
func (m *Mesh) ended(c network.Conn, why string) {
	id := c.RemotePeer()
	m.mu.Lock()
	mb := m.members[id]
	is := mb.has(c)
	m.mu.Unlock()
	if is {
		m.drop(id, mb, why)
	}
}

func (m *Mesh) connected(_ network.Network, c network.Conn) {
	if c.Stat().Direction != network.DirInbound {
		return
	}
	time.AfterFunc(strangerTimeout, func() {
		if !m.admittedOn(c) {
			_ = c.Close()
		}
	})
}

func (m *Mesh) disconnected(_ network.Network, c network.Conn) {
	m.mu.Lock()
	mb := m.members[c.RemotePeer()]
	is := mb != nil && slices.Contains(mb.conns, c)
	m.mu.Unlock()
	if is {
		m.drop(c.RemotePeer(), mb, "the connection was closed")
	}
}

// ping measures the round trip on every connection to every member, and drops members
// that do not answer on one, so that they are met anew: TCP alone would wait minutes.
func (m *Mesh) ping(ctx context.Context) {
	m.mu.Lock()
	members := make(map[peer.ID]*member, len(m.members))
	for id, mb := range m.members {
		members[id] = mb
	}
	m.mu.Unlock()
	for id, mb := range members {
		m.mu.Lock()
		conns, present := slices.Clone(mb.conns), mb.present
		m.mu.Unlock()
		if present {
			m.appear(id)
		}
		for i, c := range conns {
			m.spawn("ping "+c.ID(), func() {
				ctx, cancel := context.WithTimeout(ctx, pingTimeout)
				defer cancel()
				rtt, err := m.echo(ctx, c)
				switch {
				case err == nil && i == 0:
					m.mu.Lock()
					mb.rtt = rtt
					m.mu.Unlock()
				case err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
					m.log.Warn("master does not answer, dropping the connection", "master", id)
					m.drop(id, mb, "it does not answer")
				}
			})
		}
	}
}

// echo has the process at the other end of a connection send something back that it
// cannot have known before, and returns how long that took.
func (m *Mesh) echo(ctx context.Context, c network.Conn) (time.Duration, error) {
	s, err := m.open(ctx, c, ping.ID)
	if err != nil {
		return 0, err
	}
	defer s.Reset() //nolint:errcheck // nothing is left to be sent
	if at, ok := ctx.Deadline(); ok {
		_ = s.SetDeadline(at) // the streams of all transports have deadlines
	}
	var out, back [ping.PingSize]byte
	_, _ = rand.Read(out[:]) // never fails, see crypto/rand
	began := time.Now()
	if _, err := s.Write(out[:]); err != nil {
		return 0, err
	}
	if _, err := io.ReadFull(s, back[:]); err != nil {
		return 0, err
	}
	if !bytes.Equal(out[:], back[:]) {
		return 0, errors.New("the echo is not what was sent")
	}
	return max(time.Since(began), 1), nil
}
