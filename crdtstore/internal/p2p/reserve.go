package p2p

import (
	"github.com/libp2p/go-libp2p/core/host"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	ma "github.com/multiformats/go-multiaddr"
)

// maxReserved bounds the addresses of masters that are remembered for reserve.
const maxReserved = 1024

// reserve counts connections from the IP of a master to Limits.Masters, where strangers
// have used up the rest. It admits nobody. The caller holds mu.
func (m *Mesh) reserve(at ma.Multiaddr) {
	ip := remoteIP(at)
	if !ip.IsValid() || m.reserved[ip] || len(m.reserved) >= maxReserved {
		return
	}
	m.reserved[ip] = true
	reserveIP(m.host, at)
}

// reserveIP is reserve for a host that may have no limits, as one in a test.
func reserveIP(h host.Host, at ma.Multiaddr) {
	list := rcmgr.GetAllowlist(h.Network().ResourceManager())
	if list == nil || len(at) == 0 {
		return
	}
	_ = list.Add(ma.Multiaddr{at[0]}) // an IP, which is always good
}
