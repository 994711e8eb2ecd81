//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"
)

// acknowledged is what the masters have said yes to.
type acknowledged struct {
	mu      sync.Mutex
	seq     map[string]uint64 // the newest account of a node
	drained map[string]bool   // the last word about a node
	unsure  map[string]bool   // a word whose answer was lost may stand or not
	writes  int
}

func newAcknowledged() *acknowledged {
	return &acknowledged{seq: map[string]uint64{}, drained: map[string]bool{}, unsure: map[string]bool{}}
}

// writing has writers register and drain through a master until stop.
func writing(m *master) (known *acknowledged, stop func()) {
	known = newAcknowledged()
	quit := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() { known.write(quit, tcpEndpoint(m.rpc), fmt.Sprintf("w%d", w), 0) })
	}
	return known, func() { close(quit); writers.Wait() }
}

// write says one thing after the other until quit, with a pause after each, and notes
// what was said yes to. A call that fails is no news: its master was just killed.
func (k *acknowledged) write(quit chan struct{}, api *endpoint, prefix string, pause time.Duration) {
	for i := uint64(1); ; i++ {
		select {
		case <-quit:
			return
		case <-time.After(pause):
		}
		id := fmt.Sprintf("%s-%d", prefix, i%5)
		err := api.call("register_node", obj{"node_id": id, "boot": 1, "seq": i, "hostname": fmt.Sprint("host-", i)}, nil)
		if err != nil {
			time.Sleep(5 * time.Millisecond) // until it is back
			continue
		}
		k.mu.Lock()
		k.seq[id] = i
		k.writes++
		k.mu.Unlock()

		method, drained := "drain_node", i%2 == 0
		if !drained {
			method = "undrain_node"
		}
		err = api.call(method, obj{"node_id": id}, nil)
		k.mu.Lock()
		if k.unsure[id] = err != nil; err == nil {
			k.drained[id] = drained
			k.writes++
		}
		k.mu.Unlock()
	}
}

// count returns how many writes were acknowledged.
func (k *acknowledged) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.writes
}

// more waits until some more writes were acknowledged.
func (k *acknowledged) more(t *testing.T, n int) {
	t.Helper()
	was := k.count()
	eventually(t, 20*time.Second, func() error {
		if now := k.count(); now < was+n {
			return fmt.Errorf("%d more writes were acknowledged, want %d", now-was, n)
		}
		return nil
	})
}

// accounts returns the newest account of each node that was acknowledged by now.
func (k *acknowledged) accounts() map[string]uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return maps.Clone(k.seq)
}

// standsAt checks that everything that was acknowledged is there. Nobody writes any more.
func (k *acknowledged) standsAt(m *master) {
	m.t.Helper()
	if err := m.has(k.seq); err != nil {
		m.t.Error(err)
	}
	nodes := m.mustNodes()
	for id, drained := range k.drained {
		if n := nodes[id]; n.Drained != drained && !k.unsure[id] {
			m.t.Errorf("%s has %s with drained %v, and %v was acknowledged last", m.name, id, n.Drained, drained)
		}
	}
}

// has returns an error unless a master has these accounts, or newer ones.
func (m *master) has(accounts map[string]uint64) error {
	nodes, err := m.nodes()
	if err != nil {
		return err
	}
	for id, seq := range accounts {
		if n := nodes[id]; n.Seq < seq {
			return fmt.Errorf("%s has %s at seq %d, and %d was acknowledged", m.name, id, n.Seq, seq)
		}
	}
	return nil
}
