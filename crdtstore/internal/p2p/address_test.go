package p2p

import (
	"crypto/rand"
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	ma "github.com/multiformats/go-multiaddr"
)

const someID = "12D3KooWEnPUoyXCo1sfmt6oNNEaGBZ6vBxyGjTvXzLPdEWHdVTZ"

func texts(addrs []ma.Multiaddr) []string {
	var out []string
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}

func TestParseAddress(t *testing.T) {
	for text, want := range map[string]struct {
		addr string // empty: it is a name
		id   string
	}{
		"10.0.0.1":                          {"/ip4/10.0.0.1/tcp/9004", ""},
		" 10.0.0.1 ":                        {"/ip4/10.0.0.1/tcp/9004", ""},
		"10.0.0.1:7":                        {"/ip4/10.0.0.1/tcp/7", ""},
		"10.0.0.1:65535":                    {"/ip4/10.0.0.1/tcp/65535", ""},
		"2001:db8::1":                       {"/ip6/2001:db8::1/tcp/9004", ""},
		"[2001:db8::1]":                     {"/ip6/2001:db8::1/tcp/9004", ""},
		"[2001:db8::1]:7":                   {"/ip6/2001:db8::1/tcp/7", ""},
		"::1":                               {"/ip6/::1/tcp/9004", ""},
		"::ffff:10.0.0.1":                   {"/ip4/10.0.0.1/tcp/9004", ""},
		"/ip4/10.0.0.1/tcp/7":               {"/ip4/10.0.0.1/tcp/7", ""},
		"/ip6/::1/tcp/7":                    {"/ip6/::1/tcp/7", ""},
		"/ip4/10.0.0.1/tcp/7/p2p/" + someID: {"/ip4/10.0.0.1/tcp/7", someID},
		"/ip4/10.0.0.1/udp/7/quic-v1":       {"/ip4/10.0.0.1/udp/7/quic-v1", ""},
		"/ip4/10.0.0.1/udp/7/quic-v1/p2p/" + someID: {"/ip4/10.0.0.1/udp/7/quic-v1", someID},
		"localhost":                           {"", ""},
		"localhost:7":                         {"", ""},
		"/dns4/localhost/tcp/7/p2p/" + someID: {"", someID},
		"a-host_name.example.org:9004":        {"", ""},
	} {
		a, err := ParseAddress(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if a.String() != strings.TrimSpace(text) {
			t.Errorf("%q shows as %q", text, a)
		}
		if id := a.id; want.id != "" && id.String() != want.id || want.id == "" && id != "" {
			t.Errorf("%q is for %s", text, id)
		}
		if want.addr == "" {
			continue
		}
		got, err := a.Resolve(t.Context())
		if err != nil || !slices.Equal(texts(got), []string{want.addr}) {
			t.Errorf("%q is %v, %v, want %s", text, got, err, want.addr)
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for _, text := range []string{
		"", " ", ":", ":9004", "host:", "host:0", "host:65536", "host:http", "host:-1", "1.2.3.4:x",
		"::1]:9004:1", "a b", "a/b", "http://host:9004", "host:1:2", "user@host", "*",
		"/", "/ip4", "/ip4/1.2.3.4.5/tcp/1", "/nonsense/1", "/p2p/" + someID, "/ip4/10.0.0.1/tcp/7/p2p/nobody",
	} {
		if a, err := ParseAddress(text); err == nil {
			t.Errorf("%q was taken as %+v", text, a)
		} else if !strings.Contains(err.Error(), strings.TrimSpace(text)) {
			t.Errorf("%q: the error does not show it: %v", text, err)
		}
	}
}

func TestNamesStandForTheirAddresses(t *testing.T) {
	for _, text := range []string{"localhost:7", "/dns/localhost/tcp/7"} {
		a, err := ParseAddress(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.Resolve(t.Context())
		if err != nil || len(got) == 0 {
			t.Fatalf("%s: %v, %v", text, got, err)
		}
		for _, m := range got {
			if s := m.String(); s != "/ip4/127.0.0.1/tcp/7" && s != "/ip6/::1/tcp/7" {
				t.Errorf("%s is also %s", text, s)
			}
		}
	}
}

// needsBothFamilies skips a test where the system has only one.
func needsBothFamilies(t *testing.T) {
	t.Helper()
	for _, network := range []string{"tcp4", "tcp6"} {
		l, err := net.Listen(network, ":0")
		if err != nil {
			t.Skip("this system does not have both IPv4 and IPv6:", err)
		}
		l.Close()
	}
}

// All addresses are those of both families, at one port.
func TestListensOnBothFamilies(t *testing.T) {
	needsBothFamilies(t)
	for _, text := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		addrs, err := ParseListen(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		h, err := NewHost(newKey(t), addrs)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		ports := map[string]bool{}
		for _, a := range h.Network().ListenAddresses() {
			port, _ := a.ValueForProtocol(ma.P_TCP)
			ports[port] = true
		}
		for _, ip := range []string{"127.0.0.1", "::1"} {
			for port := range ports {
				c, err := net.Dial("tcp", net.JoinHostPort(ip, port))
				if err != nil || len(ports) != 1 {
					t.Errorf("%s: %s at ports %v: %v", text, ip, ports, err)
					continue
				}
				c.Close()
			}
		}
	}
}

// A port that is taken in either family is taken.
func TestListensOnAllOrNothing(t *testing.T) {
	needsBothFamilies(t)
	taken, err := net.Listen("tcp6", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	addrs, err := ParseListen(t.Context(), "0.0.0.0:"+port)
	if err != nil {
		t.Fatal(err)
	}
	if h, err := NewHost(newKey(t), addrs); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the error is %v", err)
		if err == nil {
			h.Close()
		}
	}
}

func newKey(t *testing.T) crypto.PrivKey {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestParseListen(t *testing.T) {
	needsBothFamilies(t)
	for text, want := range map[string]string{
		"0.0.0.0:9004":          "/ip4/0.0.0.0/tcp/9004 /ip6/::/tcp/9004",
		"0.0.0.0":               "/ip4/0.0.0.0/tcp/9004 /ip6/::/tcp/9004",
		"::":                    "/ip4/0.0.0.0/tcp/9004 /ip6/::/tcp/9004",
		":7":                    "/ip4/0.0.0.0/tcp/7 /ip6/::/tcp/7",
		":0":                    "/ip4/0.0.0.0/tcp/0 /ip6/::/tcp/0",
		"[::]:0":                "/ip4/0.0.0.0/tcp/0 /ip6/::/tcp/0",
		"/ip4/0.0.0.0/tcp/9004": "/ip4/0.0.0.0/tcp/9004",
		"/ip6/::/tcp/9004":      "/ip6/::/tcp/9004",
		"127.0.0.1:0":           "/ip4/127.0.0.1/tcp/0",
		"[::1]:0":               "/ip6/::1/tcp/0",
		"127.0.0.1":             "/ip4/127.0.0.1/tcp/9004",
		"/ip4/127.0.0.1/tcp/0":  "/ip4/127.0.0.1/tcp/0",
	} {
		got, err := ParseListen(t.Context(), text)
		if err != nil || !slices.Equal(texts(got), strings.Fields(want)) {
			t.Errorf("%q is %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", ":", "0.0.0.0:x", ":65536", "localhost:0", "nonsense nonsense", "/nonsense"} {
		if got, err := ParseListen(t.Context(), text); err == nil {
			t.Errorf("%q was taken as %v", text, got)
		}
	}
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "[::1]:7", "host:9004", "/ip4/10.0.0.1/tcp/7/p2p/" + someID, "fe80::1%eth0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAddress(text)
		if err != nil {
			return
		}
		name, _, _ := strings.Cut(a.host, "%") // the zone of an IPv6 address may be called anything
		if a.raw == nil && (name == "" || strings.ContainsAny(name, " /[]@")) {
			t.Errorf("%q has the host %q", text, a.host)
		}
		if again, err := ParseAddress(a.String()); err != nil || again.host != a.host || again.port != a.port || again.id != a.id {
			t.Errorf("%q comes back as %+v, %v", text, again, err)
		}
	})
}
