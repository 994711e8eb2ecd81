//go:build e2e

package e2e

import (
	"errors"
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"
)

var jointRounds = flag.Int("joint.rounds", 20, "how often fresh grids are started")

// A grid begins with masters that are all new, have one list of peers and are started at
// once, while nodes register from the first moment. All are healthy within five seconds,
// each time, and hold all that any of them was told. So are they when all are killed and
// started again at once.
func TestJointStart(t *testing.T) {
	for _, n := range []int{3, 5} {
		t.Run(fmt.Sprintf("masters=%d", n), func(t *testing.T) {
			var slowest time.Duration
			for round := range *jointRounds {
				t.Run(fmt.Sprintf("round=%d", round), func(t *testing.T) {
					slowest = max(slowest, jointStart(t, n, round%5 == 4))
				})
			}
			t.Logf("%d fresh grids of %d masters, healthy at the latest after %s", *jointRounds, n, slowest.Round(time.Millisecond))
		})
	}
}

func jointStart(t *testing.T, n int, again bool) time.Duration {
	g := newGrid(t)
	var masters []*master
	var peers []string
	for range n {
		p := newPorts(t)
		masters = append(masters, g.newMaster(fmt.Sprintf("m%d", len(masters)), masterOptions{ports: p}))
		peers = append(peers, p.mesh)
	}
	began := time.Now()
	for _, m := range masters {
		m.options.peers = peers
		m.run()
	}
	stop := registering(t, masters)
	took := allHealthy(t, masters, began)
	acked := stop()
	if again {
		for _, m := range masters {
			m.kill()
		}
		began = time.Now()
		for _, m := range masters {
			m.run()
		}
		took = max(took, allHealthy(t, masters, began))
	}
	eventually(t, 10*time.Second, func() error {
		for _, m := range masters {
			nodes, err := m.nodes()
			if err != nil {
				return err
			}
			for id := range acked {
				if _, has := nodes[id]; !has {
					return fmt.Errorf("%s lacks %s, of %d that were acknowledged", m.name, id, len(acked))
				}
			}
		}
		return nil
	})
	for _, m := range masters {
		m.kill()
	}
	return took
}

// allHealthy waits until all masters are healthy, and returns how long that took.
func allHealthy(t *testing.T, masters []*master, began time.Time) time.Duration {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		var errs []error
		for _, m := range masters {
			m.mustRun()
			if err := m.healthy(); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
			}
		}
		return errors.Join(errs...)
	})
	took := time.Since(began)
	if took > 5*time.Second {
		t.Errorf("healthy after %s", took)
	}
	return took
}

// registering has nodes register at each master, one after the other, until the function
// that it returns is called, which returns the nodes that were acknowledged.
func registering(t *testing.T, masters []*master) (stop func() map[string]bool) {
	var mu sync.Mutex
	acked, done := map[string]bool{}, make(chan struct{})
	var all sync.WaitGroup
	for i, m := range masters {
		all.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-done:
					return
				case <-time.After(10 * time.Millisecond):
				}
				id := fmt.Sprintf("n%d-%d", i, k%100)
				if m.call("register_node", obj{"node_id": id, "boot": 1, "seq": k + 1}, nil) == nil {
					mu.Lock()
					acked[id] = true
					mu.Unlock()
				}
			}
		})
	}
	return func() map[string]bool {
		close(done)
		all.Wait()
		if len(acked) == 0 {
			t.Error("no node could register")
		}
		return acked
	}
}
