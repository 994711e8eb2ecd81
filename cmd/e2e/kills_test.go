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

	known := newAcknowledged()
	quit := make(chan struct{})
	var writers sync.WaitGroup
	for w := range 8 {
		// Each writer has nodes of its own and one master, so that it knows in
		// which order its words were said.
		api := tcpEndpoint(masters[w%2].rpc)
		writers.Go(func() { known.write(quit, api, fmt.Sprintf("w%d", w), 0) })
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

	t.Logf("%d writes were acknowledged", known.count())
	if n := known.count(); n < 20**kills {
		t.Errorf("only %d writes were acknowledged over %d kills", n, *kills)
	}
	eventually(t, 30*time.Second, func() error { return equalRecords(a, b) })
	for _, m := range masters {
		known.standsAt(m)
	}
}
