//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// Two masters are cut off from each other; nodes are registered, changed,
// drained, labelled and removed on both sides. When they meet again, both have
// the same: for each node the newest account by (boot, seq), however often the
// other side has written, and the word of the operators of both sides.
func TestPartitionAndMerge(t *testing.T) {
	g := newGrid(t)
	w := newNetwork(t, 2, "")
	one, two := w.hosts[0], w.hosts[1]
	fast := []string{"--heartbeat-interval", "1s", "--offline-after", "4s"}
	a := g.startMaster("a", masterOptions{in: one, peers: []string{two.ip}, args: fast})
	b := g.startMaster("b", masterOptions{in: two, peers: []string{one.ip}, args: fast})
	eventually(t, 15*time.Second, func() error { return meshed(a, b) })

	g.startAgent("live-a", agentOptions{in: one, compute: true}, a, b)
	g.startAgent("live-b", agentOptions{in: two, compute: true}, b, a)
	for _, id := range []string{"chatty-a", "chatty-b", "boots", "drained-a", "drained-b", "undrained", "contested", "labelled", "gone-a", "gone-b", "back-a", "back-b"} {
		a.register(id, 10, 1, obj{"labels": obj{"from": "before"}})
	}
	b.must(t, "drain_node", obj{"node_id": "undrained"}, nil)
	eventually(t, 10*time.Second, func() error {
		if n := b.mustNodes(); len(n) != 14 {
			return errNotYet("b lists %d nodes", len(n))
		}
		return errors.Join(equalRecords(a, b), onlineAt(a, "live-a", "live-b"), onlineAt(b, "live-a", "live-b"))
	})

	two.unplug()
	eventually(t, 30*time.Second, func() error {
		for _, m := range []*master{a, b} {
			var list masterList
			m.must(t, "masters", nil, &list)
			for _, other := range list.Masters {
				if other.Status == "alive" {
					return errNotYet("%s has not noticed that it is cut off from %s", m.name, other.Name)
				}
			}
		}
		return nil
	})

	// Side a writes often what is old, side b once what is new; and the other
	// way round.
	for seq := uint64(2); seq <= 60; seq++ {
		a.register("chatty-a", 10, seq, obj{"labels": obj{"from": fmt.Sprint("a ", seq)}})
		b.register("chatty-b", 10, seq, obj{"labels": obj{"from": fmt.Sprint("b ", seq)}})
		a.register("boots", 10, seq, obj{"labels": obj{"from": "a"}})
	}
	b.register("chatty-a", 10, 100, obj{"labels": obj{"from": "b, newest"}})
	a.register("chatty-b", 10, 100, obj{"labels": obj{"from": "a, newest"}})
	b.register("boots", 11, 1, obj{"labels": obj{"from": "b, booted"}})

	a.register("new-a", 10, 1, nil)
	b.register("new-b", 10, 1, nil)
	a.must(t, "drain_node", obj{"node_id": "drained-a"}, nil)
	b.must(t, "drain_node", obj{"node_id": "drained-b"}, nil)
	a.must(t, "undrain_node", obj{"node_id": "undrained"}, nil)
	a.must(t, "label_node", obj{"node_id": "labelled", "labels": obj{"left": "a"}}, nil)
	b.must(t, "label_node", obj{"node_id": "labelled", "labels": obj{"right": "b"}}, nil)
	// Of two words about the same, the later one stands.
	a.must(t, "label_node", obj{"node_id": "contested", "labels": obj{"who": "a"}}, nil)
	time.Sleep(20 * time.Millisecond)
	b.must(t, "label_node", obj{"node_id": "contested", "labels": obj{"who": "b"}}, nil)
	// A removal stands over what the removed boot says, not over a new boot.
	a.must(t, "remove_node", obj{"node_id": "gone-a"}, nil)
	b.register("gone-a", 10, 50, obj{"labels": obj{"from": "b"}})
	b.must(t, "remove_node", obj{"node_id": "gone-b"}, nil)
	a.register("gone-b", 10, 50, obj{"labels": obj{"from": "a"}})
	a.must(t, "remove_node", obj{"node_id": "back-a"}, nil)
	b.register("back-a", 11, 1, obj{"labels": obj{"from": "b, booted"}})
	b.must(t, "remove_node", obj{"node_id": "back-b"}, nil)
	a.register("back-b", 11, 1, obj{"labels": obj{"from": "a, booted"}})

	// Each side goes on by itself: a VM is deployed on each.
	var va, vb vm
	a.must(t, "deploy_vm", obj{"node_id": "live-a", "name": "on-a"}, &va)
	b.must(t, "deploy_vm", obj{"node_id": "live-b", "name": "on-b"}, &vb)
	eventually(t, 10*time.Second, func() error {
		return errors.Join(onlineAt(a, "live-a"), onlineAt(b, "live-b"), hasVM(a, va), hasVM(b, vb))
	})
	if _, there := a.mustNodes()["new-b"]; there {
		t.Fatal("a knows what b was told while they were cut off; this is no partition")
	}

	two.plug()
	healed := time.Now()
	eventually(t, 30*time.Second, func() error {
		return errors.Join(equalRecords(a, b), meshed(a, b), onlineAt(a, "live-a", "live-b"), onlineAt(b, "live-a", "live-b"),
			hasVM(a, vb), hasVM(b, va))
	})
	t.Logf("the masters have the same %v after they could talk again", time.Since(healed).Round(10*time.Millisecond))

	for _, m := range []*master{a, b} {
		nodes := m.mustNodes()
		if err := sameIDs(m.name, nodes, []string{
			"live-a", "live-b", "chatty-a", "chatty-b", "boots", "drained-a", "drained-b", "undrained",
			"contested", "labelled", "back-a", "back-b", "new-a", "new-b",
		}); err != nil {
			t.Error(err)
		}
		for id, want := range map[string]string{
			"chatty-a": "b, newest", "chatty-b": "a, newest", "boots": "b, booted",
			"back-a": "b, booted", "back-b": "a, booted", "labelled": "before",
		} {
			if got := nodes[id].Labels["from"]; got != want {
				t.Errorf("%s has of %s the account %q, want %q", m.name, id, got, want)
			}
		}
		for id, want := range map[string]bool{"drained-a": true, "drained-b": true, "undrained": false, "boots": false} {
			if nodes[id].Drained != want {
				t.Errorf("%s: %s drained is %v", m.name, id, !want)
			}
		}
		if l := nodes["labelled"].Labels; l["left"] != "a" || l["right"] != "b" {
			t.Errorf("%s: a label of one side is lost: %v", m.name, l)
		}
		if l := nodes["contested"].Labels["who"]; l != "b" {
			t.Errorf("%s: the later word was b's, and %q stands", m.name, l)
		}
	}

	// What the removed boot says now changes nothing any more.
	if err := a.call("register_node", obj{"node_id": "gone-b", "boot": 10, "seq": 60}, nil); err == nil {
		if _, there := a.mustNodes()["gone-b"]; there {
			t.Error("an account of a removed boot has brought the node back")
		}
	}
}

// onlineAt returns an error unless these nodes, among others, are online.
func onlineAt(m *master, ids ...string) error {
	nodes, err := m.nodes()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if s := nodes[id].Status; s != "online" {
			return errNotYet("%s says that %s is %q", m.name, id, s)
		}
	}
	return nil
}

func hasVM(m *master, v vm) error {
	vms, err := m.vms()
	if _, ok := vms[v.SID]; err == nil && !ok {
		err = errNotYet("%s does not list the VM %s", m.name, v.Name)
	}
	return err
}

// PEER_MASTERS is one name, which stands for the addresses of all three
// masters, the own one among them.
func TestOneNameForAllMasters(t *testing.T) {
	g := newGrid(t)
	w := newNetwork(t, 3, "10.99.0.1 masters.test\n10.99.0.2 masters.test\n10.99.0.3 masters.test\n")
	var masters []*master
	for i, host := range w.hosts {
		masters = append(masters, g.startMaster(string(rune('a'+i)), masterOptions{in: host, peers: []string{"masters.test"}}))
	}
	eventually(t, 20*time.Second, func() error { return meshed(masters...) })
	for i, m := range masters {
		m.register(fmt.Sprint("node-", i), 10, 1, nil)
	}
	eventually(t, 5*time.Second, func() error { return equalRecords(masters...) })
}
