package p2p

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/core/transport"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/libp2p/go-libp2p/x/rate"
	ma "github.com/multiformats/go-multiaddr"

	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/descriptors"
)

// dialTimeout bounds one attempt to reach a master. Attempts are repeated about
// every second, so a long one would only delay the next.
const dialTimeout = 3 * time.Second

type hostOptions struct {
	gater     connmgr.ConnectionGater
	transport Transport
	limits    Limits
}

// Limits bound what strangers can take of a host before they are turned away. What
// those who are let in may use is bounded by the protocols.
type Limits struct {
	Inbound    int     // connections that others have opened
	Masters    int     // and besides these, from addresses that reserve was given
	Greeting   int     // of these, such as are being set up
	PerAddress int     // from one address (IPv6: /56)
	Rate       float64 // new ones a second from one address
	Burst      int     // new ones at once from one address
}

// forMasters: masters behind one address are few, start together, and look for each
// other every second. The defaults of libp2p, 8 connections from one address and a new
// one every five seconds, are for strangers on the internet.
var forMasters = Limits{Inbound: 384, Masters: 128, Greeting: 128, PerAddress: 64, Rate: 10, Burst: 100}

// Within returns limits that take no more than a number of descriptors: a quarter of them
// is for masters, where the limits have such a part. Of the rest one address gets at most
// three quarters, and connections that are being set up at most half.
func (l Limits) Within(descriptors int) Limits {
	l.Masters = min(l.Masters, descriptors/4)
	l.Inbound = max(1, min(l.Inbound, descriptors-l.Masters))
	l.Greeting = max(1, min(l.Greeting, l.Inbound/2))
	l.PerAddress = max(1, min(l.PerAddress, l.Inbound*3/4))
	return l
}

// Transport makes the transport of a host. What connects through it has to come
// under the limits and be let in by the gater, which may be nil.
type Transport func(key crypto.PrivKey, limits network.ResourceManager, gater connmgr.ConnectionGater) (transport.Transport, error)

// HostOption changes the host that NewHost makes.
type HostOption func(*hostOptions)

// WithGater has a gater decide whom the host talks to, before the mesh does.
func WithGater(g connmgr.ConnectionGater) HostOption {
	return func(o *hostOptions) { o.gater = g }
}

// WithTransport has the host use another transport than TCP with Noise and Yamux.
func WithTransport(t Transport) HostOption {
	return func(o *hostOptions) { o.transport = t }
}

// WithLimits has the host bear more than a few masters.
func WithLimits(l Limits) HostOption {
	return func(o *hostOptions) { o.limits = l }
}

// NewHost assembles a host from parts: libp2p.New would link every transport
// that there is, which doubles the size of the program.
func NewHost(key crypto.PrivKey, listen []ma.Multiaddr, opts ...HostOption) (host.Host, error) {
	o := hostOptions{transport: overTCP, limits: forMasters.Within(descriptors.Of(descriptors.Limit()).Mesh)}
	for _, opt := range opts {
		opt(&o)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, err
	}
	ps, err := pstoremem.NewPeerstore()
	if err != nil {
		return nil, err
	}
	if err := errors.Join(ps.AddPrivKey(id, key), ps.AddPubKey(id, key.GetPublic())); err != nil {
		return nil, err
	}
	limits, err := rcmgr.NewResourceManager(
		rcmgr.NewFixedLimiter(o.limits.concrete()),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: o.limits.PerAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: o.limits.PerAddress}}),
		rcmgr.WithConnRateLimiters(o.limits.rate()))
	if err != nil {
		return nil, err
	}
	bus := eventbus.NewBus()
	net, err := swarm.NewSwarm(id, ps, bus, swarm.WithResourceManager(limits),
		swarm.WithDialTimeout(dialTimeout), swarm.WithDialTimeoutLocal(dialTimeout),
		swarm.WithConnectionGater(o.gater))
	if err != nil {
		return nil, err
	}
	t, err := o.transport(key, limits, o.gater)
	if err != nil {
		return nil, errors.Join(err, net.Close())
	}
	if err := net.AddTransport(t); err != nil {
		return nil, errors.Join(err, net.Close())
	}
	h, err := basichost.NewHost(net, &basichost.HostOpts{
		EventBus: bus, EnablePing: true, UserAgent: "hero_explorer", DisableSignedPeerRecord: true,
	})
	if err != nil {
		return nil, errors.Join(err, net.Close())
	}
	h.Start()
	if err := listenOn(net, listen); err != nil {
		return nil, errors.Join(listenError(err), h.Close())
	}
	return h, nil
}

// listenTries bounds the ports that are tried where any will do.
const listenTries = 8

// listenOn listens on all of the addresses: a swarm is content with any. Where the system
// chooses the port of one family, the other gets the same.
func listenOn(s *swarm.Swarm, addrs []ma.Multiaddr) error {
	for try := 1; ; try++ {
		var bound []ma.Multiaddr
		var err error
		chosen := false
		for _, a := range addrs {
			if ma.Contains(anyPort, a) && len(bound) > 0 {
				a, chosen = samePort(a, s.ListenAddresses()), true
			}
			if err = s.AddListenAddr(a); err != nil {
				break
			}
			bound = append(bound, a)
		}
		if err == nil || !chosen || try == listenTries {
			return err
		}
		s.ListenClose(s.ListenAddresses()...)
	}
}

// anyPort are the addresses of which any port will do.
var anyPort = []ma.Multiaddr{ma.StringCast("/ip4/0.0.0.0/tcp/0"), ma.StringCast("/ip6/::/tcp/0")}

// samePort gives an address the port of the first one that is listened on.
func samePort(a ma.Multiaddr, bound []ma.Multiaddr) ma.Multiaddr {
	for _, b := range bound {
		if port, err := b.ValueForProtocol(ma.P_TCP); err == nil {
			return ma.StringCast("/" + a[0].Protocol().Name + "/" + a[0].Value() + "/tcp/" + port)
		}
	}
	return a
}

// listenError wraps the error of the system where the swarm gives only its text.
func listenError(err error) error {
	if strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) && !errors.Is(err, syscall.EADDRINUSE) {
		return fmt.Errorf("%w: %w", err, syscall.EADDRINUSE)
	}
	return err
}

func overTCP(key crypto.PrivKey, limits network.ResourceManager, gater connmgr.ConnectionGater) (transport.Transport, error) {
	muxers := []upgrader.StreamMuxer{{ID: yamux.ID, Muxer: yamux.DefaultTransport}}
	security, err := noise.New(noise.ID, key, muxers)
	if err != nil {
		return nil, err
	}
	up, err := upgrader.New([]sec.SecureTransport{security}, muxers, nil, limits, gater)
	if err != nil {
		return nil, err
	}
	return tcp.NewTCPTransport(up, limits, nil, tcp.WithConnectionTimeout(dialTimeout))
}

func (l Limits) rate() *rate.Limiter {
	perAddress := rate.Limit{RPS: l.Rate, Burst: l.Burst}
	return &rate.Limiter{SubnetRateLimiter: rate.SubnetLimiter{
		IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: perAddress}},
		IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: perAddress}},
		GracePeriod:      time.Minute,
	}}
}

func (l Limits) concrete() rcmgr.ConcreteLimitConfig {
	conns := func(n int) rcmgr.LimitVal { return rcmgr.LimitVal(n) }
	return rcmgr.PartialLimitConfig{
		System: rcmgr.ResourceLimits{
			Conns: conns(2 * l.Inbound), ConnsInbound: conns(l.Inbound), ConnsOutbound: conns(l.Inbound), FD: rcmgr.Unlimited,
			Streams: rcmgr.Unlimited, StreamsInbound: rcmgr.Unlimited, StreamsOutbound: rcmgr.Unlimited,
			Memory: rcmgr.Unlimited64,
		},
		AllowlistedSystem:    rcmgr.ResourceLimits{ConnsInbound: conns(l.Masters), FD: rcmgr.Unlimited},
		AllowlistedTransient: rcmgr.ResourceLimits{ConnsInbound: conns(l.Masters), FD: rcmgr.Unlimited},
		Transient: rcmgr.ResourceLimits{
			Conns: conns(2 * l.Greeting), ConnsInbound: conns(l.Greeting), ConnsOutbound: conns(l.Greeting), FD: rcmgr.Unlimited,
			Streams: conns(8 * l.Greeting), StreamsInbound: conns(8 * l.Greeting), StreamsOutbound: rcmgr.Unlimited,
			Memory: rcmgr.Unlimited64,
		},
		PeerDefault: rcmgr.ResourceLimits{
			Conns: 16, ConnsInbound: 16, ConnsOutbound: 16, FD: rcmgr.Unlimited,
			Streams: 1024, StreamsInbound: 1024, StreamsOutbound: 1024,
			Memory: rcmgr.Unlimited64,
		},
	}.Build(rcmgr.InfiniteLimits)
}
