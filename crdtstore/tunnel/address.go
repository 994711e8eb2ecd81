package tunnel

import (
	"net"
	"net/netip"
	"strconv"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// portOf is the port of the first TCP address, 0 where there is none.
func portOf(addrs []ma.Multiaddr) int {
	for _, a := range addrs {
		if addr, err := manet.ToNetAddr(a); err == nil {
			if tcp, ok := addr.(*net.TCPAddr); ok {
				return tcp.Port
			}
		}
	}
	return 0
}

// multiaddrOf is the multiaddr of a TCP port of a host or IP.
func multiaddrOf(name string, port int) string {
	ip, err := netip.ParseAddr(name)
	ip = ip.Unmap()
	kind := "/ip6/"
	switch {
	case err != nil:
		kind = "/dns/"
	case ip.Is4():
		kind, name = "/ip4/", ip.String()
	}
	return kind + name + "/tcp/" + strconv.Itoa(port)
}
