package p2p

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// resolveTimeout bounds one look at the names, so that a name server that does
// not answer does not keep this master from those that it has addresses of.
const resolveTimeout = 2 * time.Second

// namedAge is for how long an address counts as named by the operator after a name
// last stood for it, so that a name server that is away for a moment keeps nobody out.
const namedAge = 10 * time.Minute

// configured is one of Config.Peers.
type configured struct {
	Address
	found   []target  // what it stood for when it was last resolved
	unknown string    // why it cannot be resolved; empty: it can
	since   time.Time // since when that is so
}

// attempt is how an address of a configured peer was found when it was last tried.
type attempt struct {
	failure
	since time.Time // since when the cause is the same
	next  time.Time // when it is tried again, where that is not at once
}

// retryAfter is the pause before an address is tried again at which somebody has to do
// something first.
const retryAfter = 2 * time.Second

// resolve looks up what the configured addresses stand for now. Where that cannot be
// found out, it is what it was.
func (m *Mesh) resolve(ctx context.Context) []target {
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	found := make([][]ma.Multiaddr, len(m.peers))
	failed := make([]error, len(m.peers))
	var all sync.WaitGroup
	for i, p := range m.peers {
		all.Go(func() { found[i], failed[i] = p.Resolve(ctx) })
	}
	all.Wait()
	own := m.ownAddrs()
	now := time.Now()
	var out []target
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, p := range m.peers {
		p.resolved(now, found[i], failed[i])
		for _, t := range p.found {
			key := t.addr.String()
			if failed[i] == nil {
				m.named[remoteIP(t.addr).String()] = now
				m.reserve(t.addr)
			}
			if own[key] {
				m.at[key] = m.host.ID()
			}
			out = append(out, t)
		}
	}
	for ip, at := range m.named {
		if now.Sub(at) > namedAge {
			delete(m.named, ip)
		}
	}
	m.forgetAddrs(out)
	return out
}

func (p *configured) resolved(now time.Time, found []ma.Multiaddr, err error) {
	if err == nil && len(found) == 0 {
		err = errors.New("it has no addresses")
	}
	if err != nil {
		if text := lookupFailure(err); p.unknown != text {
			p.unknown, p.since = text, now
		}
		return
	}
	p.unknown, p.found = "", p.found[:0:0]
	for _, a := range found {
		p.found = append(p.found, target{addr: a, id: p.id})
	}
}

// lookupFailure is why a name cannot be resolved, in words that do not vary.
func lookupFailure(err error) string {
	dns, ok := errors.AsType[*net.DNSError](err)
	switch {
	case ok && dns.IsNotFound:
		return "its name is not known: no such host"
	case ok && dns.IsTimeout, errors.Is(err, context.DeadlineExceeded):
		return "its name cannot be resolved: the name server does not answer"
	}
	return "its name cannot be resolved"
}

// forgetAddrs drops what is known of addresses that no peer stands for any more. The
// caller holds mu.
func (m *Mesh) forgetAddrs(current []target) {
	if len(m.at)+len(m.attempts) <= 2*len(current) {
		return
	}
	keep := map[string]bool{}
	for _, t := range current {
		keep[t.addr.String()] = true
	}
	for key := range m.at {
		if !keep[key] {
			delete(m.at, key)
		}
	}
	for key := range m.attempts {
		if !keep[key] {
			delete(m.attempts, key)
		}
	}
}

// expect decides, where there is no secret, whether a peer at an address is one
// this master knows of: it was introduced, or it comes from an IP that
// Peers name, and no other peer id is pinned at the address it says it has. The
// port is not compared: the masters on one machine may each name but one other.
// So without a secret, whoever has the IP of a master can become one.
func (m *Mesh) expect(id peer.ID, from ma.Multiaddr, addrs []string) error {
	ip := remoteIP(from)
	m.mu.Lock()
	introduced, named := m.contacts[id] != nil, time.Since(m.named[ip.String()]) <= namedAge
	m.mu.Unlock()
	if introduced {
		return nil
	}
	if !named {
		return errUnnamed
	}
	for _, a := range parseAddrs(addrs) {
		if remoteIP(a) == ip {
			return m.pins.pin(a.String(), id)
		}
	}
	return fmt.Errorf("%w: it does not say that it listens on %s, where it comes from", errUnnamed, ip)
}

// failedAt notes why an address could not be used.
func (m *Mesh) failedAt(addr string, f failure) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	a := m.attempts[addr]
	if a == nil || a.cause != f.cause {
		a = &attempt{since: now}
		m.attempts[addr] = a
	}
	a.failure = f
	if f.lasts() {
		a.next = now.Add(retryAfter)
	}
}

// Unmet is a configured peer that was never met.
type Unmet struct {
	Peer   string   // as configured
	ID     peer.ID  // who is there, as its key proves; empty: not known
	Addrs  []string // what it stands for, as multiaddrs
	Cause  Cause    // empty: it was not tried yet
	Reason string
	Since  time.Time // since when the cause is the same, by the monotonic clock
}

// Unmet returns the configured peers that were never met and are not this master itself.
// met reports whether a master was met or heard of in any run.
//
// A name may stand for several addresses. It is met when all of one family are, for
// a machine may have addresses of both families and serve one of them only, but of
// several addresses of one family each may be a master of its own.
func (m *Mesh) Unmet(met func(peer.ID) bool) []Unmet {
	m.mu.Lock()
	claimed := map[string]peer.ID{} // whose an address is, as masters that were met say
	for id, c := range m.contacts {
		for _, a := range c.addrs {
			claimed[a.String()] = id
		}
	}
	var all []candidate
	for _, p := range m.peers {
		all = append(all, m.candidate(p, claimed))
	}
	m.mu.Unlock()
	var out []Unmet
	seen := map[string]bool{}
	for _, c := range all {
		if u, is := c.unmet(func(id peer.ID) bool { return id == m.host.ID() || met(id) }); is && !seen[u.Peer] {
			seen[u.Peer] = true
			out = append(out, u)
		}
	}
	return out
}

// candidate is what is known of a configured peer.
type candidate struct {
	Unmet
	id    peer.ID // as configured
	addrs []candidateAddr
}

type candidateAddr struct {
	addr    ma.Multiaddr
	id      peer.ID // who is there; empty: not known
	attempt attempt // the last one
}

// candidate is called with mu held.
func (m *Mesh) candidate(p *configured, claimed map[string]peer.ID) candidate {
	c := candidate{Unmet: Unmet{Peer: p.text, ID: p.id, Since: m.began}, id: p.id}
	if p.unknown != "" {
		c.Cause, c.Reason, c.Since = Unreachable, p.unknown, p.since
	}
	for _, t := range p.found {
		key := t.addr.String()
		a := candidateAddr{addr: t.addr, id: m.at[key]}
		if a.id == "" {
			a.id = claimed[key]
		}
		if p.id != "" && a.id != m.host.ID() {
			a.id = p.id // whoever else is there is not the one that is meant
		}
		if at := m.attempts[key]; at != nil {
			a.attempt = *at
		}
		c.addrs = append(c.addrs, a)
		c.Addrs = append(c.Addrs, key)
	}
	return c
}

// weight orders the causes by how much they say.
var weight = map[Cause]int{"": 0, Unreachable: 1, Refused: 2, NoMeshPort: 3, Secret: 4}

func (c candidate) unmet(met func(peer.ID) bool) (Unmet, bool) {
	if c.id != "" && met(c.id) {
		return Unmet{}, false
	}
	missing := map[int]int{} // addresses by family
	for _, a := range c.addrs {
		family := a.addr[0].Protocol().Code
		missing[family] += 0
		if a.id != "" && met(a.id) {
			continue
		}
		missing[family]++
		if weight[a.attempt.cause] > weight[c.Cause] {
			c.Cause, c.Reason, c.Since = a.attempt.cause, a.attempt.reason, a.attempt.since
			if len(c.addrs) > 1 {
				c.Reason = where(a.addr) + ": " + a.attempt.reason
			}
			if a.id != "" {
				c.ID = a.id
			}
		}
	}
	for _, n := range missing {
		if n == 0 {
			return Unmet{}, false
		}
	}
	return c.Unmet, true
}

// replacedFor is for how long it counts that a master refused this one for another one in
// its place. Meanwhile attempts may fail otherwise: both sides dial, and who refuses closes
// the connection that the other has just made.
const replacedFor = 15 * time.Second

// noteReplaced takes why the handshake with whoever is at an address failed, in either
// direction. Only those count that the operator has named. With a secret nobody does: ids are
// not pinned then, and who says so has proved nothing.
func (m *Mesh) noteReplaced(at ma.Multiaddr, err error) {
	var refused refusedError
	if !errors.As(err, &refused) || !refused.replaced || m.cfg.Secret != "" {
		return
	}
	ip := remoteIP(at).String()
	m.mu.Lock()
	defer m.mu.Unlock()
	if now := time.Now(); now.Sub(m.named[ip]) <= namedAge {
		m.replaced, m.replacedAt = ip+": "+refused.text, now
	}
}

// Replaced returns why a configured master refuses this one, where it knows another master
// at this one's address; empty: none does.
func (m *Mesh) Replaced() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.replacedAt) > replacedFor {
		return ""
	}
	return m.replaced
}

// where is an address as people write it.
func where(a ma.Multiaddr) string {
	if n, err := manet.ToNetAddr(a); err == nil {
		return n.String()
	}
	return a.String()
}

// logUnmet logs which configured peers were not met, when that changes.
func (m *Mesh) logUnmet() {
	m.mu.Lock()
	met := map[peer.ID]bool{}
	for id, c := range m.contacts {
		met[id] = c.met
	}
	m.mu.Unlock()
	unmet := map[string]Unmet{}
	for _, u := range m.Unmet(func(id peer.ID) bool { return met[id] }) {
		unmet[u.Peer] = u
	}
	for _, p := range m.peers {
		key := "peer " + p.text
		switch u, is := unmet[p.text]; {
		case !is:
			m.states.Ended(key)
		case u.Cause != "":
			m.states.State(slog.LevelWarn, key, string(u.Cause), "a configured master was not met",
				"peer", u.Peer, "cause", u.Cause, "err", u.Reason)
		}
	}
}
