package p2p

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// contact is a master that was met, or that others have named.
type contact struct {
	addrs []ma.Multiaddr
	met   bool      // it was admitted, in this run or an earlier one
	ours  bool      // a configured address leads to it
	named time.Time // when it was admitted, or an admitted master last named it
}

// Learn adds masters to look for, and takes their addresses of the moment. Without a
// cluster secret, only what an admitted master says may be learned. Of masters that were
// never met, maxHearsay are kept.
func (m *Mesh) Learn(list []Contact) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, c := range list {
		id, err := peer.Decode(c.ID)
		if err != nil || id == m.host.ID() || m.contacts[id] == nil && !m.makeRoom(now) {
			continue
		}
		m.contact(id, parseAddrs(c.Addrs)).named = now
	}
}

// contact returns the contact of an id. No addresses: it keeps those it has. The caller
// holds mu.
func (m *Mesh) contact(id peer.ID, addrs []ma.Multiaddr) *contact {
	c := m.contacts[id]
	if c == nil {
		c = &contact{}
		m.contacts[id] = c
	}
	if len(addrs) > 0 {
		c.addrs = addrs
	}
	return c
}

// introducedAge is for how long after it was last named a master is looked for that was
// never met.
const introducedAge = time.Minute

// makeRoom makes room for one more master that was never met, in the place of the one
// that was not named for longest. The caller holds mu.
func (m *Mesh) makeRoom(now time.Time) bool {
	n := 0
	var oldest peer.ID
	for id, c := range m.contacts {
		if c.met || c.ours {
			continue
		}
		n++
		if oldest == "" || c.named.Before(m.contacts[oldest].named) {
			oldest = id
		}
	}
	if n < maxIntroduced {
		return true
	}
	if now.Sub(m.contacts[oldest].named) < introducedAge {
		return false
	}
	delete(m.contacts, oldest)
	return true
}

// ForgetUnheard stops looking for the masters that were never heard and that nobody has
// named for a minute. Masters that introduce each other's introduced would keep one alive for
// ever.
func (m *Mesh) ForgetUnheard(now time.Time, heard func(id string) bool) {
	m.mu.Lock()
	var old []peer.ID
	for id, c := range m.contacts {
		if !c.ours && m.members[id] == nil && now.Sub(c.named) > introducedAge {
			old = append(old, id)
		}
	}
	m.mu.Unlock()
	for _, id := range old {
		if !heard(id.String()) {
			m.Forget(id)
		}
	}
}

// Forget stops looking for a master, until it is heard of again.
func (m *Mesh) Forget(id peer.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.members[id] == nil {
		delete(m.contacts, id)
		m.states.Ended("master " + id.String())
	}
}

// Contacts returns the masters that this one introduces, in the order of their ids.
func (m *Mesh) Contacts() []Contact {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []Contact
	for id, c := range m.contacts {
		if len(c.addrs) == 0 {
			continue
		}
		one := Contact{ID: id.String()}
		for _, a := range c.addrs {
			one.Addrs = append(one.Addrs, a.String())
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Contact) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// introduced returns the masters that are named to another one in the handshake: as many as
// a frame takes. It hears of the rest by pulses.
func (m *Mesh) introduced(to peer.ID) (out []Contact) {
	size := 0
	for _, c := range m.Contacts() {
		if c.ID == to.String() {
			continue
		}
		size += len(c.ID)
		for _, a := range c.Addrs {
			size += len(a) + 4 // quotes, comma
		}
		if size += 32; size > maxVouched {
			break
		}
		out = append(out, c)
	}
	return out
}
