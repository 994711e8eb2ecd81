//go:build e2e

package e2e

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

var (
	kills    = flag.Int("kills", 10, "how often TestNothingAcknowledgedIsLost kills a master")
	killSeed = flag.Uint64("kills.seed", 0, "seed of the moments and victims; 0: any")
)

// acknowledged is what the masters have said yes to.
type acknowledged struct {
	mu      sync.Mutex
	seq     map[string]uint64 // the newest account of a node
	drained map[string]bool   // the last word about a node
	unsure  map[string]bool   // a word whose answer was lost may stand or not
	writes  int
}

// Masters are killed with SIGKILL at random moments while many writers register,
// drain and undrain through both. Whatever was acknowledged is there at the end,
// on both, and the records are equal.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	seed := *killSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-kills=%d -kills.seed=%d", *kills, seed)
	random := rand.New(rand.NewPCG(seed, 0))

	g := newGrid(t)
	a, b := g.twoMasters()
	masters := []*master{a, b}
	eventually(t, 15*time.Second, func() error { return meshed(a, b) })

	known := acknowledged{seq: map[string]uint64{}, drained: map[string]bool{}, unsure: map[string]bool{}}
	quit := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 8 {
		// Each writer has nodes of its own and one master, so that it knows in
		// which order its words were said.
		api := tcpEndpoint(masters[w%2].rpc)
		writers.Go(func() { known.write(quit, api, fmt.Sprintf("w%d", w)) })
	}
	for range *kills {
		time.Sleep(time.Duration(random.IntN(400)) * time.Millisecond)
		victim := masters[random.IntN(2)]
		victim.kill()
		time.Sleep(time.Duration(random.IntN(200)) * time.Millisecond)
		victim.launch()
	}
	close(quit)
	writers.Wait()

	t.Logf("%d writes were acknowledged", known.writes)
	if known.writes < 20**kills {
		t.Errorf("only %d writes were acknowledged over %d kills", known.writes, *kills)
	}
	eventually(t, 30*time.Second, func() error { return equalRecords(a, b) })
	for _, m := range masters {
		nodes := m.mustNodes()
		for id, seq := range known.seq {
			if n := nodes[id]; n.Seq < seq {
				t.Errorf("%s has %s at seq %d, and %d was acknowledged", m.name, id, n.Seq, seq)
			}
		}
		for id, drained := range known.drained {
			if n := nodes[id]; n.Drained != drained && !known.unsure[id] {
				t.Errorf("%s has %s with drained %v, and %v was acknowledged last", m.name, id, n.Drained, drained)
			}
		}
	}
}

// write says one thing after the other until quit, and notes what was said yes
// to. A call that fails is no news: its master was just killed.
func (k *acknowledged) write(quit chan struct{}, api *endpoint, prefix string) {
	for i := uint64(1); ; i++ {
		select {
		case <-quit:
			return
		default:
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
