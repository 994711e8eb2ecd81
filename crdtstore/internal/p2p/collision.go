package p2p

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
)

// CollisionError is an error: a run of a master is not admitted, for another one of the same
// identity lives.
type CollisionError struct {
	Kept    string `json:"kept"`    // the run that is admitted
	Refused string `json:"refused"` // the run that is not
	At      string `json:"at"`      // where the run is that is admitted; empty: not known
}

func (c *CollisionError) Error() string {
	text := "another process has the same identity and was there first"
	if c.At != "" {
		text += ", at " + c.At
	}
	return text
}

// Party is one of two runs of the same identity.
type Party struct {
	Run, At string
	Yielded bool // it says that it has yielded to another run
}

// Runs decides which run of a master is admitted. Its methods may be called concurrently.
type Runs interface {
	// Asks is called when a run has proved who it is. It may have yielded to another one
	// before. It is not admitted where a CollisionError is returned.
	Asks(id peer.ID, run string, yielded bool) *CollisionError
	// Both is called when two runs were found to live at the same moment, before Asks.
	// They may be runs of this master itself.
	Both(id peer.ID, a, b Party)
	// Yield is called when an admitted master says that this run is refused.
	Yield(by peer.ID, c CollisionError)
	// Yielded returns why this run does not ask to be admitted; nil: it does.
	Yielded() error
	// HasYielded reports whether this run has yielded and was not admitted since. It
	// gives way to any run that has not, also to one that began later.
	HasYielded() bool
}

// anyRun admits every run.
type anyRun struct{}

func (anyRun) Asks(peer.ID, string, bool) *CollisionError { return nil }
func (anyRun) Both(peer.ID, Party, Party)                 {}
func (anyRun) Yield(peer.ID, CollisionError)              {}
func (anyRun) Yielded() error                             { return nil }
func (anyRun) HasYielded() bool                           { return false }

// clear makes room for a run that wants to be admitted on a connection, or returns why it
// is not. A run that is a member already is asked first, on its connection: a process that
// has ended cannot answer what it is asked afterwards. So two that answer live at the same
// time, and one that does not has moved, was started again, or is gone.
func (m *Mesh) clear(ctx context.Context, c network.Conn, run string, yielded bool) error {
	id := c.RemotePeer()
	for {
		m.mu.Lock()
		old := m.members[id]
		on := old.has(c)
		var conns []network.Conn
		if old != nil {
			conns = slices.Clone(old.conns)
		}
		m.mu.Unlock()
		lives := old != nil && !on && m.answers(ctx, conns)
		if lives && old.run != run && run != "" {
			m.cfg.Runs.Both(id, Party{old.run, conns[0].RemoteMultiaddr().String(), false}, Party{run, c.RemoteMultiaddr().String(), yielded})
		}
		if no := m.cfg.Runs.Asks(id, run, yielded); no != nil {
			if lives && old.run == no.Kept {
				no.At = conns[0].RemoteMultiaddr().String()
			}
			return no
		}
		if old == nil || on || lives && old.run == run {
			return nil
		}
		m.drop(id, old, "it has come back")
	}
}

// refuse tells the other side in what it expects next that it is not admitted.
func (m *Mesh) refuse(write func(any) error, proof []byte, err error) error {
	last := done{Proof: proof, Refused: err.Error()}
	if c, ok := errors.AsType[*CollisionError](err); ok {
		last.Collision = c
	}
	_ = write(last) // whether it hears it or not
	return refusal{err}
}

// heedCollision takes what the other side says of a collision. proven is whether it has proved
// that it is a master.
func (m *Mesh) heedCollision(by peer.ID, last done, proven bool) {
	if c := last.Collision; c != nil && proven && c.Refused == m.cfg.Run && c.Kept != m.cfg.Run {
		m.cfg.Runs.Yield(by, *c)
	}
}

// MemberRun returns the run of a member and where it is; empty: it is none.
func (m *Mesh) MemberRun(id peer.ID) (run, at string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if mb := m.members[id]; mb != nil {
		return mb.run, mb.conns[0].RemoteMultiaddr().String()
	}
	return "", ""
}

const (
	mirrorEvery   = 3 * time.Second
	mirrorTimeout = 5 * time.Second
)

// dialer is the part of a swarm that dials itself: a host refuses to.
type dialer interface {
	TransportForDialing(ma.Multiaddr) transport.Transport
}

// reflect has an address be looked at now and then at which somebody has this master's
// identity.
func (m *Mesh) reflect(ctx context.Context, addr ma.Multiaddr) {
	if m.own(addr) {
		return
	}
	m.spawn("mirror "+addr.String(), func() {
		if err := m.mirror(ctx, addr); err != nil && ctx.Err() == nil {
			m.log.Debug("cannot ask who has this identity", "address", addr, "err", err)
		}
		select {
		case <-time.After(mirrorEvery):
		case <-ctx.Done():
		}
	})
}

// mirror finds out who is at an address at which somebody has this master's identity: it
// may be this master, by way of an address that the host does not have, or another process.
func (m *Mesh) mirror(ctx context.Context, addr ma.Multiaddr) error {
	ctx, cancel := context.WithTimeout(ctx, mirrorTimeout)
	defer cancel()
	sw, ok := m.host.Network().(dialer)
	if !ok {
		return nil
	}
	t := sw.TransportForDialing(addr)
	if t == nil {
		return nil
	}
	c, err := t.Dial(ctx, addr, m.host.ID())
	if err != nil {
		// Nobody is there any more, or nobody of this identity.
		m.mu.Lock()
		delete(m.at, addr.String())
		m.mu.Unlock()
		return nil
	}
	defer c.Close()
	s, err := c.OpenStream(ctx)
	if err != nil {
		return err
	}
	defer s.Reset() //nolint:errcheck // nothing is left to be sent
	at, _ := ctx.Deadline()
	_ = s.SetDeadline(at)
	if err := multistream.SelectProtoOrFail(admitProtocol, s); err != nil {
		return err
	}
	read, write := frames(s)
	mine := m.hello()
	var theirs hello
	if err := errors.Join(write(mine), read(&theirs)); err != nil {
		return fmt.Errorf("ask who has this identity: %w", err)
	}
	m.itself(theirs, addr)
	return nil
}

// itself takes what somebody says who has this master's identity.
func (m *Mesh) itself(theirs hello, at ma.Multiaddr) {
	if run := theirs.Run; run != "" && run != m.cfg.Run {
		m.cfg.Runs.Both(m.host.ID(), Party{m.cfg.Run, "", m.cfg.Runs.HasYielded()}, Party{run, at.String(), theirs.Yielded})
	}
}
