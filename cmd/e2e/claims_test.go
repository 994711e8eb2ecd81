//go:build e2e

package e2e

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// A fleet that was installed from one image has one node id and a key for each machine. All
// register at once, at two masters, with the largest reports that are taken. Each master
// takes one of them; both serve and write on, also after a restart, and the id can be
// removed and taken anew.
func TestOneIDManyKeys(t *testing.T) {
	const machines = 64
	g := newGrid(t)
	a, b := newPorts(t), newPorts(t)
	peers := []string{a.mesh, b.mesh}
	masters := []*master{
		g.newMaster("a", masterOptions{ports: a, peers: peers}),
		g.newMaster("b", masterOptions{ports: b, peers: peers}),
	}
	for _, m := range masters {
		m.run()
	}
	allHealthy(t, masters, time.Now())

	register := func(m *master, machine int, boot uint64) error {
		return m.call("register_node", largestReport(t, "same", machine, boot), nil)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	taken := map[string]int{}
	for i := range machines {
		m := masters[i%2]
		all.Go(func() {
			err := register(m, i, 1)
			if code := new(rpcError); errors.As(err, &code) && code.Code == -32006 {
				return
			}
			if err != nil {
				t.Errorf("machine %d at %s: %v", i, m.name, err)
			}
			mu.Lock()
			defer mu.Unlock()
			taken[m.name]++
		})
	}
	all.Wait()
	if taken["a"] > 1 || taken["b"] > 1 || len(taken) == 0 {
		t.Errorf("accepted were %v", taken)
	}

	goesOn := func(when string) {
		t.Helper()
		for i, m := range masters {
			id := fmt.Sprintf("%s-%d", when, i)
			m.must(t, "register_node", obj{"node_id": id, "boot": 1, "seq": 1}, nil)
			eventually(t, 10*time.Second, func() error {
				for _, o := range masters {
					if err := errors.Join(o.healthy(), o.call("get_node", obj{"node_id": id}, nil)); err != nil {
						return fmt.Errorf("%s, %s: %w", when, o.name, err)
					}
				}
				return inSync(masters...)
			})
		}
	}
	goesOn("claimed")
	for _, m := range masters {
		m.kill()
	}
	for _, m := range masters {
		m.run()
	}
	allHealthy(t, masters, time.Now())
	goesOn("restarted")
	masters[0].must(t, "remove_node", obj{"node_id": "same"}, nil)
	goesOn("removed")
	for _, m := range masters {
		var n struct {
			RemovedAt *time.Time `json:"removed_at"`
		}
		if m.must(t, "get_node", obj{"node_id": "same"}, &n); n.RemovedAt == nil {
			t.Errorf("%s does not show it as removed", m.name)
		}
	}
	if err := register(masters[1], machines, 2); err != nil {
		t.Errorf("the id cannot be taken anew: %v", err)
	}
	goesOn("taken")
}

// largestReport is one of as many bytes as are taken, signed by a key of the machine's own.
func largestReport(t *testing.T, id string, machine int, boot uint64) json.RawMessage {
	t.Helper()
	r := record.Report{NodeID: id, Boot: boot, Seq: 1}
	r.Labels = map[string]string{}
	for i := range record.MaxLabels {
		r.Labels[fmt.Sprintf("%0128d", i)] = fmt.Sprintf("%0256d", i)
	}
	for i := range record.MaxVMs {
		r.VMs = append(r.VMs, record.VM{SID: fmt.Sprintf("%0100d", i), Name: fmt.Sprintf("%0150d", i)})
	}
	r.Sign(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(machine)}, ed25519.SeedSize)))
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
