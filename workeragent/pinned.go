package workeragent

import (
	"context"
	"errors"
	"fmt"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// pinned calls the master at an edge address that is configured without an id. Who that
// is the handshake proves; who is met there first is pinned, for the address may go to
// somebody else, who is not to have the node.
type pinned struct {
	addr     string
	dir      *membership
	identify func(ctx context.Context, addr string) (string, error)
	open     func(addrs []string) (caller, error)
	call     caller // nil: it is asked again who is there
}

func (p *pinned) Call(ctx context.Context, method string, params, result any) error {
	if p.call == nil {
		id, err := p.identify(ctx, p.addr)
		if err != nil {
			return fmt.Errorf("asking who is at %s: %w", p.addr, err)
		}
		if was := p.dir.pin(p.addr, id); was != id {
			return fmt.Errorf("the master at %s was %s and is now %s; if that is right, stop this agent, delete the address from \"pins\" in %s and start it again",
				p.addr, was, clip(id), p.dir.path)
		}
		if p.call, err = p.open([]string{p.addr + "/p2p/" + id}); err != nil {
			return err
		}
	}
	err := p.call.Call(ctx, method, params, result)
	if rpc := (*jsonrpc.Error)(nil); err != nil && !errors.As(err, &rpc) {
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

// pin notes who is met at an address, and returns who was met there first.
func (d *membership) pin(addr, id string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if was := d.pins[addr]; was != "" {
		return was
	}
	d.pins[addr] = id
	signal(d.dirty)
	return id
}
