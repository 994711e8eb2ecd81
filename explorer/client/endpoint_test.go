package client_test

import (
	"strings"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ in, network, address, url string }{
		{"unix:///run/x/rpc.sock", "unix", "/run/x/rpc.sock", "unix:///run/x/rpc.sock"},
		{"unix:///run//x/../rpc.sock", "unix", "/run/rpc.sock", "unix:///run/rpc.sock"},
		{"unix:///home/jürgen müller/100%/%20/rpc.sock", "unix", "/home/jürgen müller/100%/%20/rpc.sock", "unix:///home/jürgen müller/100%/%20/rpc.sock"},
		{"unix:///run/a?b#c@d", "unix", "/run/a?b#c@d", "unix:///run/a?b#c@d"},
		{"tcp://10.0.0.1:9000", "tcp", "10.0.0.1:9000", "tcp://10.0.0.1:9000"},
		{"TCP://Master.Example", "tcp", "master.example:9002", "tcp://master.example:9002"},
		{"localhost", "tcp", "localhost:9002", "tcp://localhost:9002"},
		{"localhost:80", "tcp", "localhost:80", "tcp://localhost:80"},
		{"my_host-1.x:080", "tcp", "my_host-1.x:80", "tcp://my_host-1.x:80"},
		{"::1", "tcp", "[::1]:9002", "tcp://[::1]:9002"},
		{"[::1]", "tcp", "[::1]:9002", "tcp://[::1]:9002"},
		{"[fe80::1%eth0]:7", "tcp", "[fe80::1%eth0]:7", "tcp://[fe80::1%eth0]:7"},
		{"tcp://[2001:DB8::1]:7", "tcp", "[2001:db8::1]:7", "tcp://[2001:db8::1]:7"},
		{"http://h", "tcp", "h:80", "http://h:80"},
		{"http://h:9002/", "tcp", "h:9002", "http://h:9002"},
		{"https://h/a//b/", "tcp", "h:443", "https://h:443/a/b"},
		{"http://[::1]:9002/rpc", "tcp", "[::1]:9002", "http://[::1]:9002/rpc"},
	} {
		ep, err := client.Parse(c.in, client.DefaultPort)
		if want := (client.Endpoint{Network: c.network, Address: c.address, URL: c.url}); err != nil || ep != want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", c.in, ep, err, want)
		}
		if again, err := client.Parse(ep.URL, 1); err != nil || again != ep {
			t.Errorf("%q does not parse to itself: %+v, %v", ep.URL, again, err)
		}
	}
	for _, in := range []string{
		"", "unix://", "unix://relative", "unix:///a\nb", "unix:///a\x00b", "unix:///" + strings.Repeat("x", 107), "/run/x.sock", "./x.sock",
		"tcp://", "tcp://:9002", ":9002", "h:", "h:0", "h:65536", "h:-1", "h:x", "h:1:2", "a b", "a\nb:1",
		"http://", "http://u:p@h", "http://h?x", "http://h#x", "ftp://h", "tcp://h/path", "h/path",
		"[::1", "::1]", "[nonsense]:1", "[1.2.3.4]:1:", "a,b", "http:///rpc", "://h",
	} {
		if ep, err := client.Parse(in, client.DefaultPort); err == nil {
			t.Errorf("Parse(%q) = %+v, want an error", in, ep)
		} else if in != "" && !strings.Contains(err.Error(), "address ") {
			t.Errorf("Parse(%q): %v", in, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"unix:///a", "tcp://h:1", "http://[::1]:2/x", "::1", "h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ep, err := client.Parse(s, client.DefaultPort)
		if err != nil {
			return
		}
		if again, err := client.Parse(ep.URL, 1); err != nil || again != ep {
			t.Errorf("%q parses to %+v, which parses to %+v, %v", s, ep, again, err)
		}
	})
}
