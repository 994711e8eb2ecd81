package explorer

import (
	"net"
	"slices"
	"strings"
	"testing"
)

func TestAdvertise(t *testing.T) {
	bound := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9002}
	rpc := func(a advertised) []string { return a.rpc }
	for _, c := range []struct {
		advertise, want []string
	}{
		{nil, []string{"http://127.0.0.1:9002"}},
		{[]string{"10.0.0.1", "fd00::1", "h.example:9004"}, []string{"http://10.0.0.1:9002", "http://[fd00::1]:9002", "http://h.example:9002"}},
		{[]string{"10.0.0.1", "rpc=https://x.example/api"}, []string{"https://x.example/api"}},
		{[]string{"/ip4/10.0.0.1/tcp/9004"}, []string{"http://127.0.0.1:9002"}},
	} {
		if got := urlsFor(c.advertise, bound, rpc); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.advertise, got, c.want)
		}
	}
	for _, url := range urlsFor(nil, &net.TCPAddr{IP: net.IPv4zero, Port: 1}, rpc) {
		if strings.Contains(url, "0.0.0.0") {
			t.Error(url)
		}
	}
	if urls := urlsFor(nil, nil, rpc); len(urls) != 0 {
		t.Error("addresses of a listener that is not there:", urls)
	}
}
