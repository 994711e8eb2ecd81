package p2p

import (
	"net"

	"github.com/libp2p/go-libp2p/core/network"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Conn is a stream as a [net.Conn]. Its addresses are those of the connection that
// carries the stream.
func Conn(s network.Stream) net.Conn { return conn{s} }

type conn struct{ network.Stream }

func (c conn) LocalAddr() net.Addr {
	a, err := manet.ToNetAddr(c.Conn().LocalMultiaddr())
	return addrOr(a, err)
}

func (c conn) RemoteAddr() net.Addr {
	a, err := manet.ToNetAddr(c.Conn().RemoteMultiaddr())
	return addrOr(a, err)
}

// addrOr stands in for an address that is of no kind that package net knows.
func addrOr(a net.Addr, err error) net.Addr {
	if err != nil {
		return &net.UnixAddr{Net: "libp2p"}
	}
	return a
}

// Abort breaks a connection off at once, so that the other side sees that it did not
// end.
func Abort(c net.Conn) {
	if s, ok := c.(conn); ok {
		_ = s.Reset() // it is gone either way
		return
	}
	_ = c.Close()
}
