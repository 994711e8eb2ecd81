package workeragent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// dialer makes callers for the addresses of masters; it does no I/O itself.
//
// An address that was learned may by now be that of a stranger, who says over plain
// HTTP what he likes. So such an address is asked who it is without the agent's token,
// and whether it ever gets that is for the operator to say: what is configured tells.
type dialer struct {
	dial  func(client.Endpoint, client.Options) caller
	edges edgeDialer
	dir   *membership
	token func() string // of the agent; empty: it has none
}

// edgeDialer makes callers for the edges of masters: [tunnels], or what tests put in
// its place.
type edgeDialer interface {
	// caller returns a caller for one master at its edge addresses, multiaddrs with its id.
	caller(addrs []string) (caller, error)
	// framed returns a caller for a master over a tunnel that is up; nil: there is none.
	framed(id string) caller
	// identify returns the id of the master at an edge address without one.
	identify(ctx context.Context, addr string) (id string, err error)
}

// options are those of a connection on which one call at a time is made. token returns
// what each call shows; nil: nothing.
func options(token func() string) client.Options {
	return client.Options{
		FreshToken: token,
		MaxAnswer:  8 << 20, // bytes
		MaxConns:   2,
		UserAgent:  "hero_explorer_agent",
	}
}

// configured returns a caller for an address that is configured.
func (d *dialer) configured(p endpoint) (caller, error) {
	if p.edge != "" && p.master == "" {
		return &pinned{dialer: d, addr: p.edge}, nil
	}
	if p.edge != "" {
		return d.edges.caller([]string{p.edge})
	}
	return d.dial(p.ep, options(d.token)), nil
}

// learned returns a target for an address of a master that others told of.
func (d *dialer) learned(addr string) (*target, error) {
	p, err := parseEndpoint(addr)
	if err != nil {
		return nil, err
	}
	t := &target{addr: addr, local: p.local}
	if p.edge != "" {
		t.proven = true // whoever answers over a tunnel has proven who it is
		t.call, err = d.edges.caller([]string{p.edge})
		return t, err
	}
	if d.token() != "" {
		t.entrusted = d.entrusts(p)
		t.withheld = !t.entrusted
	}
	t.call = d.dial(p.ep, options(func() string {
		if t.showing {
			return d.token()
		}
		return ""
	}))
	return t, nil
}

// entrusts reports whether the token may be sent to a learned address: where TLS or this
// machine protects it, to a host that is configured, and wherever the operator sends it
// over a network in plain HTTP anyway.
func (d *dialer) entrusts(p endpoint) bool {
	return p.local || !p.plain() || slices.ContainsFunc(d.dir.endpoints, func(q endpoint) bool {
		return !q.local && (q.plain() || p.host() == q.host())
	})
}

// whoIs asks a target for the id of its master.
func (t *target) whoIs(ctx context.Context) (id string, err error) {
	t.showing = false
	id, err = whoIs(ctx, t.call)
	rpc := (*jsonrpc.Error)(nil)
	switch wanted := errors.As(err, &rpc) && rpc.Code == jsonrpc.CodeUnauthorized; {
	case wanted && t.entrusted: // it tells nobody anything without
		t.showing = true
		return whoIs(ctx, t.call)
	case wanted && t.withheld:
		err = fmt.Errorf("%w; the agent's token is not sent over plain HTTP to an address that it only learned of: "+
			"give the agent this address, or the master an https one with --advertise", err)
	}
	return id, err
}

// whoIs asks a master for its id.
func whoIs(ctx context.Context, c caller) (id string, err error) {
	var who struct {
		Self string `json:"self"`
	}
	if err := c.Call(ctx, methodMasters, struct{}{}, &who); err != nil {
		return "", err
	}
	if !validID(who.Self) {
		return "", errors.New("it does not say which master it is")
	}
	return who.Self, nil
}

// pinned calls the master at an edge address that is configured without an id. Who that
// is the handshake proves; who is met there first is pinned, for the address may go to
// somebody else, who is not to have the node.
type pinned struct {
	dialer *dialer
	addr   string
	call   caller // nil: it is asked again who is there
}

func (p *pinned) Call(ctx context.Context, method string, params, result any) error {
	if p.call == nil {
		id, err := p.dialer.edges.identify(ctx, p.addr)
		if err != nil {
			return fmt.Errorf("asking who is at %s: %w", p.addr, err)
		}
		if was := p.dialer.dir.pin(p.addr, id); was != id {
			return fmt.Errorf("the master at %s was %s and is now %s; if that is right, stop this agent, delete the address from \"pins\" in %s and start it again",
				p.addr, was, clip(id), p.dialer.dir.file.path)
		}
		if p.call, err = p.dialer.edges.caller([]string{p.addr + "/p2p/" + id}); err != nil {
			return err
		}
	}
	err := p.call.Call(ctx, method, params, result)
	if broken(err) {
		p.Close()
	}
	return err
}

func (p *pinned) Close() {
	if p.call != nil {
		p.call.Close()
		p.call = nil
	}
}

// broken reports whether an error is none that the other side has answered.
func broken(err error) bool {
	var rpc *jsonrpc.Error
	return err != nil && !errors.As(err, &rpc)
}
