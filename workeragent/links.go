package workeragent

import (
	"context"
	"maps"
	"path/filepath"
	"slices"
	"time"
)

// maxFirst bounds the time over which first calls are spread; the interval does
// that too. It is what a person who has started an agent waits at most until the
// node is listed.
const maxFirst = 5 * time.Second

// connectExplorers makes the membership and the links to the configured addresses.
// It reports whether any of them is on another machine.
func (a *Agent) connectExplorers(r *running) (elsewhere bool, err error) {
	d := newMembership(filepath.Join(a.cfg.DataDir, mastersFile), a.log)
	d.tunnels, d.tunnel = a.deps.tunnel != nil, a.deps.framed
	d.link = func(m *member) *link {
		route := &route{master: m.id, reach: func() []string { return d.reach(m.id) },
			open: func(addr string) (*target, error) { return a.learned(d, addr) }}
		l := newLink(r.node, d, d.addresses(m)[0], route, a.cfg.HeartbeatInterval, a.log)
		l.route, l.slot.master = route, m.id
		return l
	}
	for _, addr := range a.cfg.Explorers {
		p, err := parseEndpoint(addr)
		if err != nil {
			return false, err
		}
		if slices.Contains(d.endpoints, p) {
			continue
		}
		d.endpoints = append(d.endpoints, p)
		elsewhere = elsewhere || !p.local
		c, err := a.call(d, addr)
		if err != nil {
			return false, configErrorf("explorers", "%q: %v", addr, err)
		}
		l := newLink(r.node, d, p.String(), c, a.cfg.HeartbeatInterval, a.log)
		l.local, l.first = p.local, a.firstCall(p.local)
		if l.slot.master = p.master; p.master != "" {
			d.known[p.master] = &member{id: p.master, fixed: true}
		}
		d.links = append(d.links, l)
	}
	d.load(!elsewhere)
	for _, l := range d.links {
		if l.slot.master == "" {
			l.slot.master = d.leads[l.state.get().Address]
		}
	}
	d.first = func() time.Duration { return a.firstCall(false) }
	r.dir = d
	return elsewhere, nil
}

// call returns a caller for an address. It does no I/O.
func (a *Agent) call(d *membership, addr string) (caller, error) {
	p, err := parseEndpoint(addr)
	if err != nil {
		return nil, err
	}
	if p.edge != "" && p.master == "" {
		return &pinned{addr: p.edge, dir: d, identify: a.deps.identify, open: a.deps.tunnel}, nil
	}
	if p.edge != "" {
		return a.deps.tunnel([]string{p.edge})
	}
	return a.deps.dial(p.ep, a.options(a.cfg.Token)), nil
}

// firstCall is how long a link waits before its first call. Machines that get
// their power back together, and agents that are upgraded together, come evenly
// over some seconds. A master on this machine has no crowd before it.
func (a *Agent) firstCall(local bool) time.Duration {
	if local {
		return 0
	}
	return a.deps.spread(min(a.cfg.HeartbeatInterval, maxFirst))
}

// run keeps the links to what is known until ctx ends: it starts those that are
// there, makes those to learned masters, and forgets masters that are gone.
func (d *membership) run(ctx context.Context, start func(*link)) {
	d.mu.Lock()
	for _, l := range d.links {
		start(l)
	}
	d.mu.Unlock()
	// Agents learn of a master when they beat to another, and so one after the
	// other. What they remember, they remember together.
	for first := d.first; ctx.Err() == nil; first = func() time.Duration { return 0 } {
		d.review(start, first)
		pause(ctx, sweepEvery, d.work)
	}
}

// review is one look of run. first says how long a new link waits.
func (d *membership) review(start func(*link), first func() time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for _, id := range slices.Sorted(maps.Keys(d.known)) {
		m := d.known[id]
		if d.expired(m, now) {
			if m.proven {
				d.log.Info("forgot a master that is gone", "master", m.id, "name", m.name)
			}
			d.drop(m)
			d.news()
			continue
		}
		if d.wanting(m) {
			l := d.link(m)
			l.first = first()
			d.links = append(d.links, l)
			start(l)
		}
	}
}

// wanting reports whether a master should get a link: it has none, no configured
// address leads to it, and none may yet turn out to.
func (d *membership) wanting(m *member) bool {
	if m.left || len(d.addresses(m)) == 0 {
		return false
	}
	for _, l := range d.links {
		if l.route != nil {
			if l.slot.master == m.id {
				return false
			}
		} else if !l.slot.settled() || l.slot.master == m.id && l.slot.holds() {
			return false
		}
	}
	return true
}

// expired reports whether a master can be forgotten. While no other master answers,
// the fault may be on this side, and nothing is forgotten.
func (d *membership) expired(m *member, now time.Time) bool {
	last, others := m.named, false
	for _, l := range d.links {
		switch {
		case l.slot.master != m.id:
			others = others || l.slot.well()
		case l.slot.good.After(last):
			last = l.slot.good
		}
	}
	return !m.fixed && others && now.Sub(last) >= forgetAfter
}
