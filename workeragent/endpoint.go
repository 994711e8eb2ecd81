package workeragent

import (
	"net"
	"net/netip"
	"strings"

	"github.com/multiformats/go-multiaddr"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

// endpoint is where a master takes calls: an HTTP endpoint, or an edge address, to which
// a tunnel leads.
type endpoint struct {
	ep     client.Endpoint
	edge   string // multiaddr; empty: ep counts
	master string // id of the master at an edge address; empty: it is found out
	local  bool   // on the machine of whoever calls
}

// String is the one spelling of several.
func (p endpoint) String() string {
	if p.edge != "" {
		return p.edge
	}
	return p.ep.URL
}

// same reports whether two endpoints are one, however spelled.
func (p endpoint) same(q endpoint) bool {
	return p.edge == q.edge && p.ep.Network == q.ep.Network && p.ep.Address == q.ep.Address
}

// isMultiaddr reports whether an address is meant as a libp2p multiaddr.
func isMultiaddr(addr string) bool {
	for _, protocol := range []string{"/ip4/", "/ip6/", "/ip6zone/", "/dns", "/p2p/", "/unix/"} {
		if strings.HasPrefix(addr, protocol) {
			return true
		}
	}
	return false
}

// parseEndpoint parses the address of a master. An error is a [record.FieldError]
// about the configuration.
func parseEndpoint(addr string) (endpoint, error) {
	if !isMultiaddr(addr) {
		ep, err := parseAddress("explorers", addr, DefaultExplorerPort)
		return endpoint{ep: ep, local: local(ep)}, err
	}
	const form = "write a master's edge address as in /ip4/192.0.2.1/tcp/9005, or with /p2p/<id of the master> behind it"
	m, err := multiaddr.NewMultiaddr(addr)
	if err != nil {
		return endpoint{}, configErrorf("explorers", "%q cannot be read: %v; %s", addr, err, form)
	}
	where, id := m, ""
	if rest, last := multiaddr.SplitLast(m); last.Protocol().Code == multiaddr.P_P2P {
		where, id = rest, last.Value()
	}
	if len(where) != 2 || where[1].Protocol().Code != multiaddr.P_TCP {
		return endpoint{}, configErrorf("explorers", "%q is not a host and a TCP port; %s", addr, form)
	}
	return endpoint{edge: m.String(), master: id, local: localHost(where[0].Value())}, nil
}

// local reports whether an endpoint is on the machine of whoever calls it.
func local(ep client.Endpoint) bool {
	if ep.Network == "unix" {
		return true
	}
	host, _, err := net.SplitHostPort(ep.Address)
	return err == nil && localHost(host)
}

func localHost(host string) bool {
	ip, err := netip.ParseAddr(host)
	// To call the unspecified address is to call this machine.
	return strings.TrimSuffix(host, ".") == "localhost" || err == nil && (ip.Unmap().IsLoopback() || ip.IsUnspecified())
}

// plain reports whether HTTP is spoken there that everybody on the way can read.
func (p endpoint) plain() bool {
	return p.edge == "" && p.ep.Network != "unix" && !strings.HasPrefix(p.ep.URL, "https://")
}

// host is the host of an endpoint, as it is written.
func (p endpoint) host() string {
	host, _, _ := net.SplitHostPort(p.ep.Address)
	return host
}
