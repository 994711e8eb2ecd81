package p2p

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	ma "github.com/multiformats/go-multiaddr"
)

// target is an address to dial, and who is wanted there, if that is known.
type target struct {
	addr ma.Multiaddr
	id   peer.ID
}

// seek dials the masters that are missing, each in the background.
func (m *Mesh) seek(ctx context.Context) {
	for _, t := range m.resolve(ctx) {
		key := t.addr.String()
		m.mu.Lock()
		if t.id == "" {
			t.id = m.at[key]
		}
		a := m.attempts[key]
		there := t.id == m.host.ID() || t.id != "" && m.members[t.id] != nil
		if there {
			delete(m.attempts, key) // it may have come by itself
		}
		rests := a != nil && time.Now().Before(a.next)
		m.mu.Unlock()
		if t.id == m.host.ID() {
			m.reflect(ctx, t.addr)
			continue
		}
		if there || rests {
			continue
		}
		m.spawn(key, func() {
			if err := m.meet(ctx, t); err != nil && ctx.Err() == nil {
				m.noteReplaced(t.addr, err)
				m.failedAt(key, m.explain(ctx, t.addr, err))
			}
		})
	}
	m.mu.Lock()
	missing := map[peer.ID][]ma.Multiaddr{}
	for id, c := range m.contacts {
		if m.members[id] == nil && len(c.addrs) > 0 {
			missing[id] = c.addrs
		}
	}
	m.mu.Unlock()
	for id, addrs := range missing {
		m.spawn(id.String(), func() {
			if err := m.connect(ctx, id, addrs); err != nil && ctx.Err() == nil {
				m.missed(id, err)
			}
		})
	}
	m.logUnmet()
}

// missed logs that a known master cannot be reached at the addresses that it gave.
func (m *Mesh) missed(id peer.ID, err error) {
	state := "unreachable"
	if f, ok := dialFailure(err); ok {
		state = string(f.cause)
	}
	if errors.As(err, new(refusedError)) || errors.Is(err, errSecrets) || errors.Is(err, errOneSide) {
		state = "not admitted"
	}
	m.states.State(slog.LevelWarn, "master "+id.String(), state, "cannot reach a master", "master", id, "state", state, "err", err)
}

// Missing reports whether a configured address is that of nobody who is admitted, nor
// this master's own, and how many masters are admitted at the same moment. A name counts
// as one address.
func (m *Mesh) Missing() (missing bool, members int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.peers {
		met := slices.ContainsFunc(p.found, func(t target) bool {
			id := t.id
			if id == "" {
				id = m.at[t.addr.String()]
			}
			return id == m.host.ID() || m.members[id] != nil
		})
		if !met {
			return true, len(m.members)
		}
	}
	return false, len(m.members)
}

// meet connects to whoever is at an address.
func (m *Mesh) meet(ctx context.Context, t target) (err error) {
	key, configured := t.addr.String(), t.id
	m.mu.Lock()
	if at := m.at[key]; configured == at {
		configured = "" // it was found out, and may change
	}
	m.mu.Unlock()
	if m.own(t.addr) {
		t.id = m.host.ID()
		m.found(key, t.id)
	}
	if t.id == "" {
		if t.id, err = m.probe(ctx, t.addr); err != nil {
			return err
		}
		m.found(key, t.id)
	}
	err = m.meetAs(ctx, key, t)
	mismatch, ok := errors.AsType[sec.ErrPeerIDMismatch](err)
	switch {
	case !ok || mismatch.Expected != t.id:
		return err
	case configured != "":
		return failure{cause: Refused, reason: fmt.Sprintf("the master there is %s and not %s, as configured", mismatch.Actual, configured)}
	}
	// Somebody else lives there now.
	m.found(key, mismatch.Actual)
	return m.meetAs(ctx, key, target{addr: t.addr, id: mismatch.Actual})
}

// found notes who is at an address, as its key proves.
func (m *Mesh) found(key string, id peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at[key] = id
}

// meetAs connects to the master of a known id at an address.
func (m *Mesh) meetAs(ctx context.Context, key string, t target) error {
	if t.id == m.host.ID() {
		return nil // the list of peers may name ourselves
	}
	if m.cfg.Secret == "" {
		if err := m.pins.pin(key, t.id); err != nil {
			return failure{cause: Refused, reason: err.Error()}
		}
		// Named by the operator and pinned: expected from wherever it dials in.
		m.mu.Lock()
		m.contact(t.id, nil).ours = true
		m.mu.Unlock()
	}
	return m.connect(ctx, t.id, []ma.Multiaddr{t.addr})
}

// own reports whether an address is one that this master listens on.
func (m *Mesh) own(addr ma.Multiaddr) bool { return m.ownAddrs()[addr.String()] }

// ownAddrs are the addresses that this master listens on. A host does not dial itself, so
// this cannot be asked over the network.
func (m *Mesh) ownAddrs() map[string]bool {
	own := map[string]bool{}
	addrs, err := m.host.Network().InterfaceListenAddresses()
	if err != nil {
		return own
	}
	for _, a := range append(addrs, m.cfg.Advertise...) {
		own[a.String()] = true
	}
	return own
}

// probe finds out who is at an address.
func (m *Mesh) probe(ctx context.Context, addr ma.Multiaddr) (peer.ID, error) {
	return Identify(ctx, m.host, addr)
}

// Identify has a host find out who is at an address. Noise proves the answer: it is the key
// that the other side completed a handshake with, although that handshake then
// fails because we claimed to expect somebody else.
func Identify(ctx context.Context, h host.Host, addr ma.Multiaddr) (peer.ID, error) {
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return "", err
	}
	nobody, err := peer.IDFromPublicKey(pub)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	defer h.Peerstore().RemovePeer(nobody)
	defer h.Peerstore().ClearAddrs(nobody)
	err = h.Connect(ctx, peer.AddrInfo{ID: nobody, Addrs: []ma.Multiaddr{addr}})
	if mismatch, ok := errors.AsType[sec.ErrPeerIDMismatch](err); ok {
		return mismatch.Actual, nil
	}
	return "", fmt.Errorf("ask who is there: %w", err)
}

// connect connects to a master and has it admitted.
func (m *Mesh) connect(ctx context.Context, id peer.ID, addrs []ma.Multiaddr) error {
	if m.Admitted(id) {
		return nil
	}
	if s, ok := m.host.Network().(*swarm.Swarm); ok {
		s.Backoff().Clear(id) // the pace is ours
	}
	if m.host.Network().Connectedness(id) != network.Connected {
		dialing, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		m.host.Peerstore().AddAddrs(id, addrs, peerstore.TempAddrTTL)
		if err := m.host.Connect(dialing, peer.AddrInfo{ID: id, Addrs: addrs}); err != nil {
			return err
		}
	}
	if m.Admitted(id) { // by its own dial, meanwhile
		return nil
	}
	c := newest(m.host.Network().ConnsToPeer(id))
	if c == nil {
		return errGone
	}
	return m.admit(ctx, c)
}

// newest returns the connection that was made last, of those that are open.
func newest(conns []network.Conn) (c network.Conn) {
	for _, other := range conns {
		if !other.IsClosed() && (c == nil || c.Stat().Opened.Before(other.Stat().Opened)) {
			c = other
		}
	}
	return c
}
