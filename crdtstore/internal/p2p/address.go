package p2p

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// DefaultPort is where a master's mesh host listens unless told otherwise.
const DefaultPort = 9004

// Address is where a master may be found, as an operator writes it: IP, host,
// host:port or multiaddr, with or without /p2p/ID.
type Address struct {
	text string
	host string // IP or name; empty for a multiaddr that is taken as it is
	port uint16
	raw  ma.Multiaddr // for what is neither TCP over IP nor over a name
	id   peer.ID      // empty where none is given
}

func (a Address) String() string { return a.text }

// ParseAddress reads an address.
func ParseAddress(text string) (Address, error) {
	text = strings.TrimSpace(text)
	a := Address{text: text, port: DefaultPort}
	if strings.HasPrefix(text, "/") {
		return a.multiaddr()
	}
	a.host = text
	if ip, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		a.host = ip.String()
		return a, nil
	}
	if host, port, err := net.SplitHostPort(text); err == nil {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 {
			return a, fmt.Errorf("address %q: port %q is not a number from 1 to 65535", text, port)
		}
		a.host, a.port = host, uint16(n)
	}
	bad := strings.ContainsFunc(a.host, func(r rune) bool {
		return !(unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_.", r))
	})
	if _, err := netip.ParseAddr(a.host); err != nil && (bad || a.host == "") {
		return a, fmt.Errorf("address %q: want an IP, a host, host:port or a multiaddr such as /ip4/10.0.0.1/tcp/9004", text)
	}
	return a, nil
}

func (a Address) multiaddr() (Address, error) {
	m, err := ma.NewMultiaddr(a.text)
	if err != nil {
		return a, fmt.Errorf("address %q: %w", a.text, err)
	}
	if rest, id := peer.SplitAddr(m); id != "" {
		m, a.id = rest, id
	}
	if len(m) == 0 {
		return a, fmt.Errorf("address %q: it has no network part, such as /ip4/10.0.0.1/tcp/9004", a.text)
	}
	tcp, err := m.ValueForProtocol(ma.P_TCP)
	if err != nil {
		a.raw = m
		return a, nil
	}
	port, err := strconv.ParseUint(tcp, 10, 16)
	if err != nil {
		return a, fmt.Errorf("address %q: %w", a.text, err)
	}
	a.port, a.host = uint16(port), ""
	for _, p := range []int{ma.P_IP4, ma.P_IP6, ma.P_DNS, ma.P_DNS4, ma.P_DNS6} {
		if v, err := m.ValueForProtocol(p); err == nil {
			a.host = v
		}
	}
	if a.host == "" {
		a.raw = m
	}
	return a, nil
}

// Resolve returns everything that the address stands for now.
func (a Address) Resolve(ctx context.Context) ([]ma.Multiaddr, error) {
	if a.raw != nil {
		return []ma.Multiaddr{a.raw}, nil
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", a.host)
	if err != nil {
		return nil, err
	}
	out := make([]ma.Multiaddr, 0, len(ips))
	for _, ip := range ips {
		m, err := manet.FromNetAddr(net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip.Unmap(), a.port)))
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// ParseListen reads a listen address: host:port, an IP or host with the default
// port, or a multiaddr. No host, 0.0.0.0 and :: stand for all addresses of both families,
// as they do for the listeners of package net; a multiaddr is taken as it is.
func ParseListen(ctx context.Context, text string) ([]ma.Multiaddr, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.Trim(text, "[]"), strconv.Itoa(DefaultPort)
	}
	ip, ipErr := netip.ParseAddr(host)
	switch {
	case strings.HasPrefix(text, "/"):
	case host == "" && err == nil, ipErr == nil && ip.Unmap().IsUnspecified():
		return everywhere(text, port)
	case port == "0":
		if ipErr != nil {
			return nil, fmt.Errorf("address %q: port 0 needs an IP", text)
		}
		m, err := manet.FromNetAddr(net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
		return []ma.Multiaddr{m}, err
	}
	a, err := ParseAddress(text)
	if err != nil {
		return nil, err
	}
	if m, err := ma.NewMultiaddr(a.text); err == nil && (m[0].Code() == ma.P_IP4 || m[0].Code() == ma.P_IP6) {
		m, _ = peer.SplitAddr(m)
		return []ma.Multiaddr{m}, nil
	}
	return a.Resolve(ctx)
}

// families are the unspecified addresses, and the networks by which it is seen whether
// the system has such a family.
var families = []struct {
	ip      netip.Addr
	network string
}{{netip.IPv4Unspecified(), "tcp4"}, {netip.IPv6Unspecified(), "tcp6"}}

// everywhere returns the unspecified addresses of the families that this system has.
func everywhere(text, port string) (out []ma.Multiaddr, err error) {
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("address %q: port %q is not a number from 0 to 65535", text, port)
	}
	for _, f := range families {
		l, err := net.Listen(f.network, netip.AddrPortFrom(f.ip, 0).String())
		if err != nil {
			continue
		}
		l.Close()
		m, err := manet.FromNetAddr(net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.ip, uint16(n))))
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("address %q: this system has neither IPv4 nor IPv6", text)
	}
	return out, nil
}

// remoteIP returns the IP of a multiaddr, the zero Addr where it has none.
func remoteIP(m ma.Multiaddr) netip.Addr {
	ip, err := manet.ToIP(m)
	if err != nil {
		return netip.Addr{}
	}
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}
