//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// gridStats is what stats says of silence and of masters that are apart.
type gridStats struct {
	Nodes        struct{ Online, Suspect, Offline int }
	Preservation *struct{ Late, Of int }
	Convergence  struct {
		Splits []struct {
			Name        string
			Unreachable bool
		}
	}
}

// happened returns an error unless a master's log has something of the kind, with a text
// in it.
func (m *master) happened(what, text string) error {
	var page struct {
		Events []struct{ Type, Text, By string }
	}
	if err := m.call("events", obj{"limit": 1000}, &page); err != nil {
		return err
	}
	for _, e := range page.Events {
		if e.Type == what && strings.Contains(e.Text+" "+e.By, text) {
			return nil
		}
	}
	return errNotYet("%s has no %q with %q in its log", m.name, what, text)
}

// Who is alive is judged together, and doubted where much is silent at once: heartbeats
// are lost on the way to one master, then the network of the nodes is gone, then a master
// is cut off.
func TestSilence(t *testing.T) {
	g := newGrid(t)
	w := newNetwork(t, 4, "")
	fast := []string{"--heartbeat-interval", "1s", "--offline-after", "4s"}
	var masters []*master
	for i, name := range []string{"a", "b", "c"} {
		var peers []string
		for j := range 3 {
			if j != i {
				peers = append(peers, w.hosts[j].ip)
			}
		}
		masters = append(masters, g.startMaster(name, masterOptions{in: w.hosts[i], peers: peers, args: fast}))
	}
	eventually(t, 15*time.Second, func() error { return meshed(masters...) })
	home := w.hosts[3]
	var ids []string
	for i := range 6 {
		ids = append(ids, fmt.Sprint("node-", i))
		g.startAgent(ids[i], agentOptions{in: home}, masters...)
	}
	stats := func(m *master) (s gridStats) {
		t.Helper()
		m.must(t, "stats", nil, &s)
		return s
	}
	all := func(check func(m *master, s gridStats) error) func() error {
		return func() error {
			for _, m := range masters {
				if err := check(m, stats(m)); err != nil {
					return err
				}
			}
			return nil
		}
	}
	online := all(func(m *master, s gridStats) error {
		if s.Nodes.Online != len(ids) {
			return errNotYet("%s says %+v", m.name, s.Nodes)
		}
		return nil
	})
	eventually(t, 20*time.Second, online)

	// One master hears no node. The others do, so all are online, and it is named.
	home.net.ip("-n", home.name, "route", "add", "blackhole", w.hosts[0].ip)
	eventually(t, 20*time.Second, func() error {
		if err := online(); err != nil {
			t.Fatalf("with two masters that hear the nodes: %v", err)
		}
		for _, m := range masters {
			var list struct {
				Masters []struct {
					Name               string
					PartiallyConnected bool `json:"partially_connected"`
				}
			}
			m.must(t, "masters", nil, &list)
			for _, other := range list.Masters {
				if other.PartiallyConnected != (other.Name == "a") {
					return errNotYet("%s says of %s: partially connected: %v", m.name, other.Name, other.PartiallyConnected)
				}
			}
		}
		return nil
	})
	home.net.ip("-n", home.name, "route", "del", "blackhole", w.hosts[0].ip)

	// All nodes are silent at once: they are suspect, on every master, for as long as
	// nobody says otherwise.
	home.unplug()
	suspect := all(func(m *master, s gridStats) error {
		if s.Nodes.Suspect != len(ids) || s.Preservation == nil {
			return errNotYet("%s says %+v, preservation %+v", m.name, s.Nodes, s.Preservation)
		}
		return nil
	})
	eventually(t, 10*time.Second, suspect)
	for until := time.Now().Add(6 * time.Second); time.Now().Before(until); time.Sleep(200 * time.Millisecond) {
		if err := suspect(); err != nil {
			t.Fatalf("while they are silent: %v", err)
		}
	}
	masters[1].must(t, "end_preservation", nil, nil)
	eventually(t, 3*time.Second, all(func(m *master, s gridStats) error {
		if s.Nodes.Offline != len(ids) {
			return errNotYet("%s says %+v", m.name, s.Nodes)
		}
		return m.happened("preservation_ended", "an operator says so")
	}))
	home.plug()
	began := time.Now()
	eventually(t, 15*time.Second, online)
	t.Logf("the nodes were online again after %v", time.Since(began).Round(time.Millisecond))

	// A master is cut off from the others, which say so, and say when it is over.
	w.hosts[2].unplug()
	eventually(t, 20*time.Second, func() error {
		for _, m := range masters[:2] {
			splits := stats(m).Convergence.Splits
			if len(splits) != 1 || splits[0].Name != "c" || !splits[0].Unreachable {
				return errNotYet("%s sees %+v apart", m.name, splits)
			}
		}
		return nil
	})
	masters[0].must(t, "drain_node", obj{"node_id": ids[0]}, nil)
	masters[2].must(t, "label_node", obj{"node_id": ids[1], "labels": obj{"said": "on c"}}, nil)
	w.hosts[2].plug()
	eventually(t, 20*time.Second, func() error {
		if err := equalRecords(masters...); err != nil {
			return err
		}
		for _, m := range masters {
			if splits := stats(m).Convergence.Splits; len(splits) > 0 {
				return errNotYet("%s still sees %+v apart", m.name, splits)
			}
			// What an operator said on one side is told on the other.
			if err := m.happened("drained", ids[0]); err != nil {
				return err
			}
			if err := m.happened("labelled", ids[1]); err != nil {
				return err
			}
		}
		return masters[0].happened("merged", "c and this master hold the same again")
	})
}

// Nobody says anything about a grid that is silent: its nodes are suspect until the time
// for that is over, ten times --offline-after, and offline then. One heartbeat brings
// each back at once.
func TestSilenceEndsByTime(t *testing.T) {
	g := newGrid(t)
	a, b := g.twoMasters("--heartbeat-interval", "500ms", "--offline-after", "2s")
	eventually(t, 15*time.Second, func() error { return meshed(a, b) })
	var ids []string
	for i := range 4 {
		ids = append(ids, fmt.Sprint("node-", i))
		a.register(ids[i], 1, 1, nil)
	}
	beat := func(m *master, seq uint64, ids ...string) {
		for _, id := range ids {
			m.must(t, "node_heartbeat", obj{"node_id": id, "boot": 1, "seq": seq}, nil)
		}
	}
	for seq := range uint64(6) {
		beat(a, 2+seq, ids...)
		time.Sleep(500 * time.Millisecond)
	}
	silent := time.Now()
	var suspect time.Duration
	eventually(t, 40*time.Second, func() error {
		for _, m := range []*master{a, b} {
			var s gridStats
			m.must(t, "stats", nil, &s)
			if s.Nodes.Suspect == len(ids) && s.Preservation != nil {
				suspect = time.Since(silent)
			}
			if s.Nodes.Offline > 0 && s.Nodes.Offline < len(ids) {
				return errNotYet("%s says %+v", m.name, s.Nodes)
			}
			if s.Nodes.Offline == 0 {
				return errNotYet("%s says %+v, preservation %+v", m.name, s.Nodes, s.Preservation)
			}
		}
		return nil
	})
	offline := time.Since(silent)
	t.Logf("suspect until %v, offline after %v", suspect.Round(100*time.Millisecond), offline.Round(100*time.Millisecond))
	if suspect < 15*time.Second || offline < 18*time.Second {
		t.Errorf("offline after %v, suspect until %v", offline, suspect)
	}
	for _, m := range []*master{a, b} {
		if err := m.happened("preservation_ended", ""); err != nil {
			t.Error(err)
		}
	}
	beat(b, 100, ids[0])
	eventually(t, 2*time.Second, func() error { return errors.Join(onlineAt(b, ids[0]), onlineAt(a, ids[0])) })
	if s := b.mustNodes()[ids[1]].Status; s != "offline" {
		t.Errorf("one that does not beat is %s", s)
	}
}

// A master is stopped for a while, as when its machine sleeps. The other one shows it as
// silent and goes on; when it wakes it does not take for dead whom it could not hear.
func TestStoppedMaster(t *testing.T) {
	g := newGrid(t)
	fast := []string{"--heartbeat-interval", "1s", "--offline-after", "4s"}
	one, two := newPorts(t), newPorts(t)
	a := g.startMaster("a", masterOptions{ports: one, peers: []string{two.mesh}, args: fast})
	b := g.startMaster("b", masterOptions{ports: two, peers: []string{one.mesh}, args: fast})
	eventually(t, 10*time.Second, func() error { return meshed(a, b) })
	ids := []string{"node-1", "node-2", "node-3"}
	for _, id := range ids {
		g.startAgent(id, agentOptions{}, a, b)
	}
	eventually(t, 15*time.Second, func() error { return errors.Join(a.online(ids...), b.online(ids...)) })

	if err := b.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(16 * time.Second); time.Now().Before(until); time.Sleep(250 * time.Millisecond) {
		if err := a.online(ids...); err != nil {
			t.Fatalf("while the other one is stopped: %v", err)
		}
	}
	var list masterList
	a.must(t, "masters", nil, &list)
	for _, m := range list.Masters {
		if m.Name == "b" && m.Status != "suspect" && m.Status != "down" {
			t.Errorf("a says that b is %s", m.Status)
		}
	}
	a.must(t, "drain_node", obj{"node_id": "node-1"}, nil)

	if err := b.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		for id, n := range b.mustNodes() {
			if n.Status == "offline" {
				t.Fatalf("b wakes and says that %s is offline", id)
			}
		}
	}
	eventually(t, 15*time.Second, func() error {
		return errors.Join(b.online(ids...), meshed(a, b), equalRecords(a, b))
	})
}
