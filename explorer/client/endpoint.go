package client

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"unicode"
)

// DefaultPort is the port of a master's API.
const DefaultPort = 9002

// Endpoint is where a service answers. Endpoints can be compared with ==.
type Endpoint struct {
	// Network is "unix" or "tcp", and Address what net.Dial takes with it.
	Network, Address string
	// URL is the address as it was given, in one spelling of several:
	// unix:///path, tcp://host:port, or http(s)://host:port/path.
	URL string
}

// String returns the URL.
func (e Endpoint) String() string { return e.URL }

// IsZero reports whether this is no endpoint at all.
func (e Endpoint) IsZero() bool { return e == Endpoint{} }

// scheme and path of the URL.
func (e Endpoint) scheme() string { s, _, _ := strings.Cut(e.URL, "://"); return s }

// base is the path below which the service answers, without a slash at the end:
// POST base/rpc, GET base/health and so on.
func (e Endpoint) base() string {
	if e.Network == "unix" {
		return ""
	}
	_, rest, _ := strings.Cut(e.URL, "://")
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return strings.TrimSuffix(rest[i:], "/rpc")
	}
	return ""
}

// Parse reads an address:
//
//	unix:///path/to/socket
//	tcp://host[:port], host[:port]     with defaultPort where none is given
//	http://host[:port][/path]          with port 80
//	https://host[:port][/path]         with port 443
//
// The path of a socket stands for itself, spaces and percent signs included. The path of a
// URL is where the service is mounted; requests go to path/rpc. An IPv6
// address with a port stands in brackets, and may have a zone. Parse looks
// nothing up.
func Parse(addr string, defaultPort int) (Endpoint, error) {
	scheme, rest, ok := strings.Cut(addr, "://")
	if !ok {
		if strings.HasPrefix(addr, "/") || strings.HasPrefix(addr, "./") {
			return Endpoint{}, addressErrorf(addr, "is a path; write a socket as unix:///path")
		}
		scheme, rest = "tcp", addr
	}
	scheme = strings.ToLower(scheme)
	if scheme == "unix" {
		return parseUnix(addr, rest)
	}
	if strings.ContainsFunc(addr, func(r rune) bool { return r <= ' ' || !unicode.IsPrint(r) }) {
		return Endpoint{}, addressErrorf(addr, "has spaces or characters that do not print")
	}
	switch scheme {
	case "tcp":
		if strings.Contains(rest, "/") {
			return Endpoint{}, addressErrorf(addr, "has a path; only http:// and https:// can have one")
		}
	case "http":
		defaultPort = 80
	case "https":
		defaultPort = 443
	default:
		return Endpoint{}, addressErrorf(addr, "begins with %s://; known are unix, tcp, http and https", scheme)
	}
	if strings.ContainsAny(rest, "@?#") {
		return Endpoint{}, addressErrorf(addr, "has a user, a query or a fragment; give host, port and path only")
	}
	authority, mount, _ := strings.Cut(rest, "/")
	hostPort, err := parseHostPort(addr, authority, defaultPort)
	if err != nil {
		return Endpoint{}, err
	}
	if mount = path.Clean("/" + mount); mount == "/" {
		mount = ""
	}
	return Endpoint{Network: "tcp", Address: hostPort, URL: scheme + "://" + hostPort + mount}, nil
}

func parseUnix(addr, file string) (Endpoint, error) {
	if strings.ContainsFunc(file, unicode.IsControl) {
		return Endpoint{}, addressErrorf(addr, "has control characters in its path")
	}
	if !strings.HasPrefix(file, "/") {
		return Endpoint{}, addressErrorf(addr, "needs an absolute path, as in unix:///run/rpc.sock")
	}
	// sockaddr_un has room for 107 bytes and a zero on Linux.
	if file = path.Clean(file); len(file) > 107 {
		return Endpoint{}, addressErrorf(addr, "has a path of %d bytes, the system allows 107", len(file))
	}
	return Endpoint{Network: "unix", Address: file, URL: "unix://" + file}, nil
}

func parseHostPort(addr, s string, defaultPort int) (string, error) {
	host, port := s, strconv.Itoa(defaultPort)
	if _, err := netip.ParseAddr(s); err == nil || strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		host = strings.TrimSuffix(strings.TrimPrefix(s, "["), "]") // IP without a port
	} else if strings.Contains(s, ":") {
		if host, port, err = net.SplitHostPort(s); err != nil {
			return "", addressErrorf(addr, "is not host:port; an IPv6 address with a port stands in brackets, as in [::1]:%d", DefaultPort)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", addressErrorf(addr, "has the port %q; give a number from 1 to 65535", port)
	}
	if strings.Contains(host, ":") || strings.HasPrefix(s, "[") {
		if ip, err := netip.ParseAddr(host); err != nil || !ip.Is6() {
			return "", addressErrorf(addr, "has the host %q, which is no IPv6 address", host)
		}
	} else if host == "" {
		return "", addressErrorf(addr, "has no host")
	} else if strings.ContainsAny(host, `[]%,;=\"'`) {
		return "", addressErrorf(addr, "has the host %q, which is no name", host)
	}
	return net.JoinHostPort(strings.ToLower(host), strings.TrimLeft(port, "0")), nil
}

func addressErrorf(addr, format string, args ...any) error {
	if addr == "" {
		return fmt.Errorf("address is empty; give host:port, unix:///path or a URL")
	}
	return fmt.Errorf("address %q %s", addr, fmt.Sprintf(format, args...))
}
