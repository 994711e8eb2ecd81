package explorer

import (
	"net"
	"testing"
)

// What means all addresses means both families, and anything else what it says.
func TestListenTCP(t *testing.T) {
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skip("there is no IPv6 here: ", err)
	} else {
		_ = l.Close()
	}
	for addr, want := range map[string]map[string]bool{
		"0.0.0.0:0":   {"127.0.0.1": true, "::1": true},
		"[::]:0":      {"127.0.0.1": true, "::1": true},
		":0":          {"127.0.0.1": true, "::1": true},
		"127.0.0.1:0": {"127.0.0.1": true, "::1": false},
		"[::1]:0":     {"127.0.0.1": false, "::1": true},
	} {
		l, err := listenTCP(addr)
		if err != nil {
			t.Fatal(addr, err)
		}
		_, port, _ := net.SplitHostPort(l.Addr().String())
		for host, reached := range want {
			c, err := net.Dial("tcp", net.JoinHostPort(host, port))
			if (err == nil) != reached {
				t.Errorf("%s is reached at %s: %v", addr, host, err)
			}
			if err == nil {
				_ = c.Close()
			}
		}
		_ = l.Close()
	}
	l, err := listenTCP("0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if again, err := listenTCP(l.Addr().String()); err == nil {
		_ = again.Close()
		t.Error("a port is listened on twice")
	}
}
