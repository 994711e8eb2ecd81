package p2p

import (
	"github.com/libp2p/go-libp2p/core/host"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	ma "github.com/multiformats/go-multiaddr"
)

// maxAllowed bounds the addresses of masters that are remembered for allow.
const maxAllowed = 1024

// allow has connections from the IP of a master be taken by Limits.Masters where strangers
// have used up the rest. The caller holds mu.
func (m *Mesh) allow(at ma.Multiaddr) {
	ip := remoteIP(at)
	if !ip.IsValid() || m.allowed[ip] || len(m.allowed) >= maxAllowed {
		return
	}
	m.allowed[ip] = true
	allowIP(m.host, at)
}

// allowIP is allow for a host that may have no limits, as one in a test.
func allowIP(h host.Host, at ma.Multiaddr) {
	list := rcmgr.GetAllowlist(h.Network().ResourceManager())
	if list == nil || len(at) == 0 {
		return
	}
	_ = list.Add(ma.Multiaddr{at[0]}) // an IP, which is always good
}
