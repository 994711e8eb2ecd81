//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

func errNotYet(format string, args ...any) error { return fmt.Errorf(format, args...) }

// twoMasters starts masters a and b, each with the other as its peer.
func (g *grid) twoMasters(args ...string) (a, b *master) {
	g.t.Helper()
	pa, pb := newPorts(g.t), newPorts(g.t)
	a = g.startMaster("alder", masterOptions{ports: pa, peers: []string{pb.mesh}, args: args})
	b = g.startMaster("birch", masterOptions{ports: pb, peers: []string{pa.mesh}, args: args})
	return a, b
}

// Two masters and five agents, two of which know only the one master, two only
// the other: within 5 seconds both masters list all of them online, and the
// same VMs; the page of either shows them.
func TestTwoMastersFiveAgents(t *testing.T) {
	g := newGrid(t)
	a, b := g.twoMasters()
	began := time.Now()
	agents := []*agent{
		g.startAgent("node-a1", agentOptions{compute: true}, a),
		g.startAgent("node-a2", agentOptions{compute: true}, a),
		g.startAgent("node-b1", agentOptions{compute: true}, b),
		g.startAgent("node-b2", agentOptions{compute: true}, b),
		g.startAgent("node-ab", agentOptions{compute: true}, a, b),
	}
	var ids []string
	for _, a := range agents {
		ids = append(ids, a.nodeID)
	}
	t.Logf("agents started after %v", time.Since(began).Round(time.Millisecond))
	last := time.Now()
	eventually(t, 5*time.Second, func() error { return errors.Join(a.online(ids...), b.online(ids...)) })
	t.Logf("both masters list all online %v after the last agent was started", time.Since(last).Round(time.Millisecond))

	want := map[string]vm{}
	for _, ag := range agents {
		for _, name := range []string{"web", "db"} {
			var v vm
			ag.compute.must(t, "deploy_vm", obj{"name": name + "-" + ag.nodeID, "cpu": 2, "memory": 1 << 30, "secret": "hidden-" + ag.nodeID}, &v)
			want[v.SID] = vm{SID: v.SID, Name: v.Name, NodeID: ag.nodeID, State: "running", CPU: 2, Memory: 1 << 30}
		}
	}
	eventually(t, 5*time.Second, func() error {
		for _, m := range []*master{a, b} {
			if have, err := m.vms(); err != nil || !maps.Equal(have, want) {
				return errNotYet("%s lists %v, want %v (%v)", m.name, have, want, err)
			}
		}
		return nil
	})
	t.Logf("both masters list all VMs")
	eventually(t, 5*time.Second, func() error { return equalRecords(a, b) })
	for _, m := range []*master{a, b} {
		for _, method := range []string{"list_nodes", "list_vms"} {
			if r, err := m.raw(method, nil); err != nil || contains(string(r.Result), "hidden-") {
				t.Errorf("%s of %s holds a secret, or fails: %v", method, m.name, err)
			}
		}
	}

	t.Run("Page", func(t *testing.T) {
		browser := newBrowser(t)
		var names []string
		for _, v := range want {
			names = append(names, v.Name)
		}
		slices.Sort(names)
		for _, m := range []*master{a, b} {
			page := browser.open(t, "http://"+m.ui)
			page.shows(t, toOpen, append(names, ids...)...)
			page.shows(t, toOpen, a.name, b.name)
			// Live: a VM that is deployed while one looks.
			var v vm
			agents[0].compute.must(t, "deploy_vm", obj{"name": "late-" + m.name}, &v)
			page.shows(t, 10*time.Second, "late-"+m.name)
			page.quiet(t)
		}
	})
}

// Every master is given the same list, in which it stands itself.
func TestSamePeerListOnAll(t *testing.T) {
	g := newGrid(t)
	all := []*ports{newPorts(t), newPorts(t), newPorts(t)}
	var peers []string
	for _, p := range all {
		peers = append(peers, p.mesh)
	}
	var masters []*master
	for i, p := range all {
		masters = append(masters, g.startMaster(string(rune('a'+i)), masterOptions{ports: p, peers: peers}))
	}
	eventually(t, 15*time.Second, func() error { return meshed(masters...) })
	for i, m := range masters {
		m.register(fmt.Sprintf("node-%d", i), 10, 1, nil)
	}
	eventually(t, 5*time.Second, func() error { return equalRecords(masters...) })
}

// Three masters, each of which is told of one other, become a full mesh: the
// two that were not told of each other do not need the one between them.
func TestMastersLearnOfEachOther(t *testing.T) {
	g := newGrid(t)
	secret := g.secretFile()
	pa, pb, pc := newPorts(t), newPorts(t), newPorts(t)
	a := g.startMaster("a", masterOptions{ports: pa, peers: []string{pb.mesh}, args: secret})
	b := g.startMaster("b", masterOptions{ports: pb, peers: []string{pa.mesh}, args: secret})
	c := g.startMaster("c", masterOptions{ports: pc, peers: []string{pb.mesh}, args: secret})
	eventually(t, 15*time.Second, func() error { return meshed(a, b, c) })

	b.kill()
	a.register("node-1", 10, 1, nil)
	c.register("node-2", 10, 1, nil)
	eventually(t, 5*time.Second, func() error { return equalRecords(a, c) })
	if err := sameIDs("a", a.mustNodes(), []string{"node-1", "node-2"}); err != nil {
		t.Error(err)
	}
}

// A master with another secret, and one with none, do not get in.
func TestStrangerIsNotAdmitted(t *testing.T) {
	g := newGrid(t)
	pa, px := newPorts(t), newPorts(t)
	a := g.startMaster("a", masterOptions{ports: pa, args: g.secretFile()})
	a.register("node-1", 10, 1, nil)
	stranger := g.startMaster("x", masterOptions{ports: px, peers: []string{pa.mesh}})
	stranger.register("node-x", 10, 1, nil)
	time.Sleep(5 * time.Second) // nothing is to happen, so there is nothing to wait for
	if err := sameIDs("a", a.mustNodes(), []string{"node-1"}); err != nil {
		t.Error(err)
	}
	if err := sameIDs("x", stranger.mustNodes(), []string{"node-x"}); err != nil {
		t.Error(err)
	}
}
