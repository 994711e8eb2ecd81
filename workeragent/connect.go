package workeragent

import (
	"path/filepath"
	"slices"
	"time"
)

// maxFirst bounds the time over which first calls are spread; the interval does
// that too. It is what a person who has started an agent waits at most until the
// node is listed.
const maxFirst = 5 * time.Second

// connect prepares the connections to the compute service and to the masters; it makes none.
func (a *Agent) connect(r *running) error {
	if a.cfg.Compute != "" {
		ep, err := parseAddress("compute", a.cfg.Compute, DefaultComputePort)
		if err != nil {
			return err
		}
		r.watcher = newWatcher(r.node, ep.URL, a.deps.dial(ep, options(nil)), a.cfg.ComputePoll, a.cfg.ComputeGrace, a.log)
		r.watcher.carriedOut = r.carriedOut
	}
	elsewhere, err := a.connectExplorers(r)
	if err != nil {
		return err
	}
	if addr := a.cfg.AdvertiseCompute; a.cfg.direct && elsewhere {
		if ep, err := parseAddress("advertise-compute", addr, DefaultComputePort); err == nil && local(ep) {
			a.log.Warn("explorers on other machines cannot pass VM calls on to this node",
				"compute", ep.URL, "hint", "give --advertise-compute an address that they can reach, such as tcp://<this machine>:9003")
		}
	}
	return nil
}

// connectExplorers makes the membership and the links to the configured addresses.
// It reports whether any of them is on another machine.
func (a *Agent) connectExplorers(r *running) (elsewhere bool, err error) {
	edges := a.deps.edges
	if edges == nil {
		edges = r.tunnels
	}
	d := newMembership(filepath.Join(a.cfg.DataDir, mastersFile), edges, a.log)
	dial := &dialer{dial: a.deps.dial, edges: edges, dir: d, token: func() string { return *a.token.Load() }}
	d.first = func() time.Duration { return a.firstCall(false) }
	d.link = func(m *member) *link {
		route := &route{master: m.id, reach: func() []string { return d.reach(m.id) }, open: dial.learned}
		l := newLink(r.node, d, d.addresses(m)[0], route, a.cfg.HeartbeatInterval, a.log)
		l.route, l.status.Learned, l.status.Master = route, true, m.id
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
		c, err := dial.configured(p)
		if err != nil {
			return false, configErrorf("explorers", "%q: %v", addr, err)
		}
		l := newLink(r.node, d, p.String(), c, a.cfg.HeartbeatInterval, a.log)
		l.local, l.first, l.status.Master = p.local, a.firstCall(p.local), p.master
		if p.master != "" {
			d.known[p.master] = &member{id: p.master}
		}
		d.endpoints, d.links = append(d.endpoints, p), append(d.links, l)
		elsewhere = elsewhere || !p.local
	}
	d.load(!elsewhere)
	r.dir = d
	return elsewhere, nil
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
