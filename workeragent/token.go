package workeragent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// An address that was learned may by now be that of a stranger, who says over plain
// HTTP what he likes. So such an address is asked who it is without the agent's token,
// and whether it ever gets that is for the operator to say: what is configured tells.

// learned returns a target for an address of a master that others told of.
func (a *Agent) learned(d *membership, addr string) (*target, error) {
	p, err := parseEndpoint(addr)
	if err != nil {
		return nil, err
	}
	t := &target{addr: addr, local: p.local}
	switch {
	case p.edge != "":
		t.proven = true // whoever answers over a tunnel has proven who it is
		t.call, err = a.call(d, addr)
	case a.cfg.Token == "":
		t.call, err = a.call(d, addr)
	case d.entrusts(p):
		t.bare = a.deps.dial(p.ep, a.options(""))
		t.call, err = a.call(d, addr)
	default:
		t.call, t.withheld = a.deps.dial(p.ep, a.options("")), true
	}
	return t, err
}

// entrusts reports whether the token may be sent to a learned address: where TLS or this
// machine protects it, to a host that is configured, and wherever the operator sends it
// over a network in plain HTTP anyway.
func (d *membership) entrusts(p endpoint) bool {
	if p.local || !p.plain() {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, q := range d.endpoints {
		if !q.local && (q.plain() || p.host() == q.host()) {
			return true
		}
	}
	return false
}

// plain reports whether HTTP is spoken there that everybody on the way can read.
func (p endpoint) plain() bool {
	return p.edge == "" && p.ep.Network != "unix" && !strings.HasPrefix(p.ep.URL, "https://")
}

// host is the host of an endpoint, as it is written.
func (p endpoint) host() string {
	host, _, _ := net.SplitHostPort(p.ep.Address)
	return host
}

// whoIs asks a target for the id of its master.
func (t *target) whoIs(ctx context.Context) (id string, err error) {
	if t.bare == nil {
		if id, err = whoIs(ctx, t.call); t.withheld && wantsToken(err) {
			err = fmt.Errorf("%w; the agent's token is not sent over plain HTTP to an address that it only learned of: "+
				"give the agent this address, or the master an https one with --advertise", err)
		}
		return id, err
	}
	if id, err = whoIs(ctx, t.bare); wantsToken(err) {
		return whoIs(ctx, t.call) // it tells nobody anything without
	}
	t.bare.Close()
	return id, err
}

func wantsToken(err error) bool {
	var rpc *jsonrpc.Error
	return errors.As(err, &rpc) && rpc.Code == jsonrpc.CodeUnauthorized
}
