package p2p

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Strangers who hold every connection that a host takes do not keep out a master whose
// address is known.
func TestStrangersLeaveRoomForMasters(t *testing.T) {
	limits := Limits{Inbound: 4, Masters: 2, Greeting: 4, PerAddress: 64, Rate: 1000, Burst: 1000}
	h, err := NewHost(newKey(t), []ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")}, WithLimits(limits))
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	at := h.Network().ListenAddresses()[0]
	port, err := at.ValueForProtocol(ma.P_TCP)
	if err != nil {
		t.Fatal(err)
	}
	for range limits.Inbound + 2 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
		c, err := d.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	connects := func() error {
		other := testHost(t)
		defer other.Close()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		return other.Connect(ctx, peer.AddrInfo{ID: h.ID(), Addrs: []ma.Multiaddr{at}})
	}
	if connects() == nil {
		t.Fatal("the strangers do not use up what there is for them")
	}
	reserveIP(h, ma.StringCast("/ip4/127.0.0.1/tcp/1"))
	for range limits.Masters {
		if err := connects(); err != nil {
			t.Fatal("a master is kept out:", err)
		}
	}
}

func TestLimitsWithin(t *testing.T) {
	for n := range 2000 {
		l := forMasters.Within(n)
		if l.Inbound+l.Masters > max(n, 1) || l.PerAddress > l.Inbound || l.Greeting > l.Inbound {
			t.Errorf("of %d: %+v", n, l)
		}
	}
	if l := forMasters.Within(1 << 20); l != forMasters {
		t.Errorf("enough makes of %+v %+v", forMasters, l)
	}
}
