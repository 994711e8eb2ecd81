package explorer

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

// computePort is where a node's compute service listens on TCP when its
// address names no port.
const computePort = 9003

// target decides whether a node may be called at the address that it gave of
// itself. Registering is open to everybody, so the address may be meant to make
// this master call something that only it can reach. What limits the harm:
// callers are trusted or show a token, the request is always a POST of JSON-RPC
// to /rpc with a method out of a list, and nothing of an answer that is not
// JSON-RPC gets back. What remains is refused here: this master itself, which
// would call itself in a circle with a trusted origin, and addresses that no
// node can have, such as the link-local ones where clouds keep credentials.
// Names are taken as they are; what they resolve to is not checked.
//
// A socket path or a loopback address means the node's own machine. Where the
// node says that it is on another machine than this master, such an address would
// reach somebody else's service here, and is refused.
func (s *Server) target(node crdtstore.Node) (client.Endpoint, error) {
	address := node.SocketPath
	if filepath.IsAbs(address) { // older agents report the bare path of a socket
		address = "unix://" + address
	}
	ep, err := client.Parse(address, computePort)
	if err != nil {
		return ep, err
	}
	if ep.Network == "unix" {
		if filepath.Clean(ep.Address) == s.cfg.RPCSocket {
			return ep, fmt.Errorf("%s is this master itself", ep.URL)
		}
		return ep, s.sameMachine(node, ep)
	}
	host, _, err := net.SplitHostPort(ep.Address)
	if err != nil {
		return ep, err
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip = ip.Unmap(); ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() {
			return ep, fmt.Errorf("%s is no address that a node can have", host)
		}
		if ip.IsLoopback() {
			if err := s.sameMachine(node, ep); err != nil {
				return ep, err
			}
		}
	}
	own := slices.Clone(s.rpcURLs)
	for _, a := range []net.Addr{s.rpcAddr, s.uiAddr} {
		if a != nil {
			own = append(own, a.String())
		}
	}
	for _, o := range own {
		if strings.TrimPrefix(strings.TrimPrefix(o, "http://"), "https://") == ep.Address {
			return ep, fmt.Errorf("%s is this master itself", ep.URL)
		}
	}
	return ep, nil
}

// sameMachine returns an error if the node says that it is on another machine.
func (s *Server) sameMachine(node crdtstore.Node, ep client.Endpoint) error {
	own := identity.Machine()
	if node.MachineID == "" || own == "" || node.MachineID == own {
		return nil
	}
	return fmt.Errorf("%s is on the node's own machine, which is not this one; start its agent with --advertise-compute and an address that masters can reach", ep.URL)
}
