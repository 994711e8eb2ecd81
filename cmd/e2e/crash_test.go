//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"
)

// Master a is killed with SIGKILL. Master b answers every call meanwhile, all
// agents keep beating, those too that were told of a only, and a has everything
// again when it is back on its data.
func TestKilledMaster(t *testing.T) {
	g := newGrid(t)
	a, b := g.twoMasters("--heartbeat-interval", "1s", "--offline-after", "4s")
	all := []string{"node-a1", "node-a2", "node-ab", "node-b1", "node-b2"}
	g.startAgent("node-a1", agentOptions{compute: true}, a)
	g.startAgent("node-a2", agentOptions{}, a)
	g.startAgent("node-b1", agentOptions{}, b)
	g.startAgent("node-b2", agentOptions{}, b)
	both := g.startAgent("node-ab", agentOptions{compute: true}, a, b)
	eventually(t, 10*time.Second, func() error { return errors.Join(a.online(all...), b.online(all...)) })
	a.must(t, "drain_node", obj{"node_id": "node-a2"}, nil)
	eventually(t, 5*time.Second, func() error { return equalRecords(a, b) })

	client := startLoop(b, all)
	time.Sleep(500 * time.Millisecond)
	a.kill()
	killed := time.Now()

	// For longer than it takes to be offline, all stay online without a gap: the
	// agents that were told of a only have found b.
	for time.Since(killed) < 8*time.Second {
		nodes, err := b.nodes()
		if err != nil {
			t.Fatal(err)
		}
		if err := sameIDs("b", nodes, all); err != nil {
			t.Fatal(err)
		}
		for _, id := range all {
			if nodes[id].Status != "online" {
				t.Fatalf("%v after the kill %s is %s", time.Since(killed), id, nodes[id].Status)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	var v vm
	b.must(t, "deploy_vm", obj{"node_id": "node-ab", "name": "meanwhile"}, &v)
	b.must(t, "label_node", obj{"node_id": "node-b1", "labels": obj{"meanwhile": "yes"}}, nil)
	eventually(t, 10*time.Second, func() error {
		vms, err := b.vms()
		if err == nil && vms[v.SID].State != "running" {
			err = errNotYet("b does not list the VM that was deployed meanwhile")
		}
		return err
	})
	both.mustRun()

	a.launch()
	if err := sameIDs("a", a.mustNodes(), all); err != nil {
		t.Errorf("right after the start: %v", err)
	}
	eventually(t, 15*time.Second, func() error { return errors.Join(a.online(all...), b.online(all...), equalRecords(a, b)) })
	if n := a.mustNodes()["node-a2"]; !n.Drained {
		t.Error("a has forgotten that node-a2 was drained")
	}
	if n := a.mustNodes()["node-b1"]; n.Labels["meanwhile"] != "yes" {
		t.Error("a has not learnt of the label that was set meanwhile")
	}
	calls, failures := client.stop()
	t.Logf("%d calls to b", calls)
	for _, f := range failures {
		t.Error(f)
	}
	if calls < 100 {
		t.Errorf("the client got through %d calls only", calls)
	}
}

// loop is a client that calls a master all the time.
type loop struct {
	quit     chan struct{}
	done     sync.WaitGroup
	calls    int
	failures []string
}

func startLoop(m *master, ids []string) *loop {
	l := &loop{quit: make(chan struct{})}
	began := time.Now()
	api := tcpEndpoint(m.rpc)
	l.done.Go(func() {
		for seq := uint64(1); ; seq++ {
			for _, c := range []struct {
				method string
				params obj
			}{
				{"list_nodes", obj{}},
				{"get_node", obj{"node_id": ids[seq%uint64(len(ids))]}},
				{"list_vms", obj{}},
				{"stats", obj{}},
				{"masters", obj{}},
				{"node_heartbeat", obj{"node_id": ids[0], "boot": 1, "seq": seq}},
			} {
				select {
				case <-l.quit:
					return
				case <-time.After(5 * time.Millisecond):
				}
				l.calls++
				if err := api.call(c.method, c.params, nil); err != nil && len(l.failures) < 10 {
					l.failures = append(l.failures, fmt.Sprintf("%s after %v: %v", c.method, time.Since(began).Round(time.Millisecond), err))
				}
			}
		}
	})
	return l
}

func (l *loop) stop() (calls int, failures []string) {
	close(l.quit)
	l.done.Wait()
	return l.calls, l.failures
}
