package explorer

import (
	"net"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
)

// advertised is Config.Advertise, sorted by what it is for.
type advertised struct {
	hosts, mesh, rpc, ui []string
}

func parseAdvertise(in []string) (a advertised, err error) {
	for _, s := range in {
		kind, url, isURL := strings.Cut(s, "=")
		switch {
		case isURL && (kind == "rpc" || kind == "ui"):
			if !strings.HasPrefix(url, "http://") && !strings.HasPrefix(url, "https://") {
				return a, configErrorf("advertise", "%q must be an http or https URL", s)
			}
			if kind == "rpc" {
				a.rpc = append(a.rpc, url)
			} else {
				a.ui = append(a.ui, url)
			}
		case strings.HasPrefix(s, "/"):
			a.mesh = append(a.mesh, s)
		case s == "" || strings.ContainsAny(s, "/ =@"):
			return a, configErrorf("advertise", "%q is neither host, host:port, multiaddr, rpc=URL nor ui=URL", s)
		default:
			host := s
			if _, err := netip.ParseAddr(strings.Trim(s, "[]")); err != nil && strings.Contains(s, ":") {
				if err := validHostPort("advertise", s); err != nil {
					return a, err
				}
				host, _, _ = net.SplitHostPort(s)
			}
			a.mesh = append(a.mesh, s)
			a.hosts = append(a.hosts, strings.Trim(host, "[]"))
		}
	}
	return a, nil
}

// urlsFor returns where others reach a listener: at the URLs that the
// configuration names, else at its hosts, else at the addresses listened on.
func urlsFor(advertise []string, bound net.Addr, named func(advertised) []string) []string {
	a, _ := parseAdvertise(advertise)
	if urls := named(a); len(urls) > 0 {
		return urls
	}
	tcp, ok := bound.(*net.TCPAddr)
	if !ok {
		return []string{}
	}
	hosts := a.hosts
	if len(hosts) == 0 {
		hosts = hostsOf(tcp.AddrPort().Addr().Unmap())
	}
	urls := []string{}
	for _, h := range hosts {
		u := url.URL{Scheme: "http", Host: net.JoinHostPort(h, strconv.Itoa(tcp.Port))}
		urls = append(urls, u.String())
	}
	return urls
}

// hostsOf returns the addresses behind one listened on: itself, or all of this
// machine's where it stands for them.
func hostsOf(addr netip.Addr) (hosts []string) {
	if !addr.IsUnspecified() {
		return []string{addr.String()}
	}
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		n, ok := a.(*net.IPNet)
		if !ok {
			continue
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		ip = ip.Unmap()
		// A link-local address means nothing on another machine. An IPv6 wildcard
		// takes IPv4 too, an IPv4 one does not take IPv6.
		if ok && ip.IsGlobalUnicast() && (ip.Is4() || addr.Is6()) {
			hosts = append(hosts, ip.String())
		}
	}
	if len(hosts) == 0 { // a machine without a network
		hosts = []string{"127.0.0.1"}
	}
	return hosts
}

// ownHost reports whether a Host header names this master. An IP address
// always does: rebinding takes a name.
func (s *Server) ownHost(host string) bool {
	host = strings.ToLower(hostOnly(host))
	if host == "" || host == "localhost" || strings.HasSuffix(host, ".localhost") || s.hosts[host] {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// ownHosts collects the names of this master.
func ownHosts(cfg Config) map[string]bool {
	hosts := map[string]bool{}
	add := func(host string) {
		if host = strings.ToLower(hostOnly(host)); host != "" {
			hosts[host] = true
		}
	}
	for _, addr := range []string{cfg.RPCAddr, cfg.UIAddr} {
		add(addr)
	}
	if name, err := os.Hostname(); err == nil {
		add(name)
	}
	a, _ := parseAdvertise(cfg.Advertise)
	for _, host := range a.hosts {
		add(host)
	}
	for _, raw := range append(a.rpc, a.ui...) {
		if u, err := url.Parse(raw); err == nil {
			add(u.Host)
		}
	}
	return hosts
}

// hostOnly takes the port, and the brackets of IPv6, away.
func hostOnly(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		return h
	}
	return strings.Trim(host, "[]")
}
