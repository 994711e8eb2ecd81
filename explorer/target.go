package explorer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

// computePort is where a node's compute service listens on TCP when its
// address names no port.
const computePort = 9003

// dialTimeout bounds how long connecting to a node may take.
const dialTimeout = 3 * time.Second

// checkTarget decides whether a node may be called at the address that it gave of
// itself. Registering is open to everybody, so the address may be meant to make
// this master call something that only it can reach. What limits the harm:
// callers are trusted or show a token, the request is always a POST of JSON-RPC
// to /rpc with a method out of a list or a stream of a VM, and nothing of an answer to a
// POST that is not JSON-RPC gets back. What remains is refused: this master itself, which
// would call itself in a circle with a trusted origin, and addresses that no
// node can have, such as the link-local ones where clouds keep credentials. Names
// are looked at once they are resolved, in dialerTo.
//
// A socket path or a loopback address means the node's own machine. Where the
// node says that it is on another machine than this master, such an address would
// reach somebody else's service here, and is refused.
func (s *Server) checkTarget(node crdtstore.Node, ep client.Endpoint) error {
	if ep.Network == "unix" {
		if filepath.Clean(ep.Address) == s.cfg.RPCSocket {
			return fmt.Errorf("%s is this master itself", ep.URL)
		}
		return s.sameMachine(node, ep)
	}
	for _, o := range s.rpcURLs {
		if strings.TrimPrefix(strings.TrimPrefix(o, "http://"), "https://") == ep.Address {
			return fmt.Errorf("%s is this master itself", ep.URL)
		}
	}
	if addr, err := netip.ParseAddrPort(ep.Address); err == nil {
		return s.checkAddr(node, ep, addr)
	}
	return nil
}

// checkAddr is the part of checkTarget that takes an address which is no name.
func (s *Server) checkAddr(node crdtstore.Node, ep client.Endpoint, addr netip.AddrPort) error {
	ip := addr.Addr().Unmap()
	switch {
	case ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified():
		return fmt.Errorf("%s is no address that a node can have", ip)
	case s.isOwn(ip) && slices.Contains(s.ownPorts(), addr.Port()):
		return fmt.Errorf("%s is this master itself", ep.URL)
	case ip.IsLoopback():
		return s.sameMachine(node, ep)
	}
	return nil
}

// ownPorts are the TCP ports that this master listens on.
func (s *Server) ownPorts() (ports []uint16) {
	for _, a := range []net.Addr{s.rpcAddr, s.uiAddr} {
		if tcp, ok := a.(*net.TCPAddr); ok {
			ports = append(ports, uint16(tcp.Port))
		}
	}
	return ports
}

// isOwn reports whether an address is one of this machine's.
func (s *Server) isOwn(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	all, _ := net.InterfaceAddrs()
	return slices.ContainsFunc(all, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		return ok && n.IP.Equal(ip.AsSlice())
	})
}

// dialerTo connects to an address. What a name has turned out to stand for is checked
// when it is connected to, so that no other answer to the name comes in between.
func (s *Server) dialerTo(node crdtstore.Node, ep client.Endpoint) func(context.Context) (net.Conn, error) {
	d := &net.Dialer{Timeout: dialTimeout}
	if ep.Network == "tcp" {
		d.Control = func(_, address string, _ syscall.RawConn) error {
			addr, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return s.checkAddr(node, ep, addr)
		}
	}
	return func(ctx context.Context) (net.Conn, error) { return d.DialContext(ctx, ep.Network, ep.Address) }
}

// sameMachine returns an error if the node says that it is on another machine.
func (s *Server) sameMachine(node crdtstore.Node, ep client.Endpoint) error {
	own := identity.Machine()
	if node.MachineID == "" || own == "" || node.MachineID == own {
		return nil
	}
	return errors.New(ep.URL + " is on the node's own machine, which is not this one; " +
		"its agent needs a tunnel to a master, or --advertise-compute with an address that masters can reach")
}
