package workeragent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/tunnel"
)

// fakeEdges are the edges of some masters.
type fakeEdges struct {
	mu       sync.Mutex
	masters  []knownMaster
	down     map[string]bool // nobody answers, which takes a while to find out
	refuses  map[string]bool
	open     map[string]*fakeTunnel
	attempts map[string][]time.Time
}

type fakeTunnel struct {
	done chan struct{}
	once sync.Once
	seam func(where string)
	slow time.Duration // that closing takes
}

func (f *fakeTunnel) Done() <-chan struct{} { return f.done }
func (f *fakeTunnel) Err() error            { return errors.New("lost") }
func (f *fakeTunnel) Close() {
	f.seam("close of a tunnel")
	time.Sleep(f.slow)
	f.once.Do(func() { close(f.done) })
}

func newFakeEdges(n int) *fakeEdges {
	f := &fakeEdges{down: map[string]bool{}, refuses: map[string]bool{}, open: map[string]*fakeTunnel{}, attempts: map[string][]time.Time{}}
	for i := range n {
		id := fmt.Sprint("m", i)
		f.masters = append(f.masters, knownMaster{ID: id, EdgeAddrs: []string{id}, Well: true})
	}
	return f
}

// tunnelsOf makes the tunnels of a node to these edges.
func (f *fakeEdges) tunnelsOf(node string) *tunnels {
	log := new(logBuffer)
	t := newTunnels(node, func() uint64 { return 1 }, nil, slog.New(slog.NewTextHandler(log, nil)))
	seam := func(where string) { wantFree(&t.mu, "tunnels", where) }
	log.seam = seam
	t.at = func([]string) (*tunnel.Master, error) { return new(tunnel.Master), nil }
	t.list = func() []knownMaster {
		f.mu.Lock()
		defer f.mu.Unlock()
		return slices.Clone(f.masters)
	}
	t.open = func(ctx context.Context, _ *tunnel.Master, id string) (opened, error) {
		seam("opening a tunnel")
		f.mu.Lock()
		f.attempts[id] = append(f.attempts[id], time.Now())
		down, refuses := f.down[id], f.refuses[id]
		f.mu.Unlock()
		switch {
		case down:
			<-ctx.Done()
			return nil, ctx.Err()
		case refuses:
			return nil, &tunnel.RefusedError{Reason: "no"}
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.open[id] = &fakeTunnel{done: make(chan struct{}), seam: seam}
		return f.open[id], nil
	}
	return t
}

// stop has a master stop, which breaks its tunnel.
func (f *fakeEdges) stop(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down[id] = true
	if f.open[id] != nil {
		f.open[id].Close()
	}
	for i := range f.masters {
		f.masters[i].Well = f.masters[i].Well && f.masters[i].ID != id
	}
}

// keepUp runs tunnels until stop is called.
func keepUp(ctx context.Context, tuns *tunnels) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tuns.run(ctx, nil)
	}()
	return func() {
		cancel()
		<-ended
	}
}

func TestTwoTunnels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEdges(4)
		tuns := f.tunnelsOf("n")
		stop := keepUp(t.Context(), tuns)
		defer stop()
		synctest.Wait()
		first := tuns.status()
		if len(first) != 2 {
			t.Fatalf("tunnels to %v", first)
		}
		for _, id := range first { // one after the other goes
			f.stop(id)
			synctest.Wait()
			if got := tuns.status(); len(got) < 1 {
				t.Fatal("no tunnel is left")
			}
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if got := tuns.status(); len(got) != 2 || slices.Contains(got, id) {
				t.Errorf("3 s after %s went: tunnels to %v", id, got)
			}
		}
		for _, id := range tuns.status() {
			f.stop(id)
		}
		time.Sleep(time.Minute)
		if got := tuns.status(); len(got) != 0 {
			t.Errorf("all masters are gone: tunnels to %v", got)
		}
		f.mu.Lock()
		clear(f.down)
		f.mu.Unlock()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := tuns.status(); len(got) != 2 {
			t.Errorf("the masters are back: tunnels to %v", got)
		}
	})
}

// A master that refuses is not asked without pause, and another one is used.
func TestRefusedTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEdges(1)
		f.refuses["m0"] = true
		tuns := f.tunnelsOf("n")
		stop := keepUp(t.Context(), tuns)
		defer stop()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		f.mu.Lock()
		n := len(f.attempts["m0"])
		f.mu.Unlock()
		if n < 60 || n > 300 {
			t.Errorf("%d attempts in 10 minutes", n)
		}
		f.mu.Lock()
		clear(f.refuses)
		f.mu.Unlock()
		time.Sleep(reopening.most)
		synctest.Wait()
		if got := tuns.status(); len(got) != 1 {
			t.Errorf("tunnels to %v", got)
		}
	})
}

// When a master comes back, its tunnels do too, some minutes later and one by one.
func TestTunnelsComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEdges(3)
		tuns := f.tunnelsOf("n")
		stop := keepUp(t.Context(), tuns)
		defer stop()
		synctest.Wait()
		first := tuns.status()
		f.stop(first[0])
		time.Sleep(time.Minute)
		f.mu.Lock()
		clear(f.down)
		for i := range f.masters {
			f.masters[i].Well = true
		}
		f.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := tuns.status(); slices.Contains(got, first[0]) {
			t.Errorf("it is back at once: %v", got)
		}
		time.Sleep(2 * moveEvery)
		synctest.Wait()
		if got := tuns.status(); !slices.Equal(got, first) {
			t.Errorf("tunnels to %v, at first to %v", got, first)
		}
	})
}

// A tunnel is given up for another one only when that is open: a master may answer whose
// edge cannot be reached.
func TestTunnelsMoveWithoutALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEdges(3)
		tuns := f.tunnelsOf("n")
		stop := keepUp(t.Context(), tuns)
		defer stop()
		synctest.Wait()
		first := tuns.status()
		f.stop(first[0])
		time.Sleep(time.Minute)
		f.mu.Lock()
		for i := range f.masters {
			f.masters[i].Well = true
		}
		before := len(f.attempts[first[0]])
		f.mu.Unlock()
		for range 4 * int(moveEvery/time.Second) {
			time.Sleep(time.Second)
			synctest.Wait()
			if got := tuns.status(); len(got) != 2 {
				t.Fatalf("tunnels to %v", got)
			}
		}
		f.mu.Lock()
		if n := len(f.attempts[first[0]]) - before; n < 3 {
			t.Errorf("%d attempts to move in %v", n, 4*moveEvery)
		}
		var third *fakeTunnel
		for id, tun := range f.open {
			if !slices.Contains(first, id) {
				third = tun
			}
		}
		clear(f.down)
		f.mu.Unlock()
		select {
		case <-third.done:
			t.Error("it was given up for one that never opened")
		default:
		}
		time.Sleep(2 * moveEvery)
		synctest.Wait()
		if got := tuns.status(); !slices.Equal(got, first) {
			t.Errorf("tunnels to %v, at first to %v", got, first)
		}
		<-third.done
	})
}

// Whoever keeps tunnels leaves none behind, and none that still closes.
func TestTunnelsEndWithTheirKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeEdges(3)
		f.down["m0"], f.down["m1"] = true, true // attempts are under way
		stop := keepUp(t.Context(), f.tunnelsOf("n"))
		time.Sleep(time.Minute)
		synctest.Wait()
		f.mu.Lock()
		open := f.open["m2"]
		open.slow = time.Second
		f.mu.Unlock()
		stop()
		select {
		case <-open.done:
		default:
			t.Error("a tunnel is left open")
		}
	})
}

// All masters get their share of the tunnels.
func TestTunnelsAreSpread(t *testing.T) {
	const nodes, masters = 10_000, 5
	count := map[string]int{}
	for i := range nodes {
		tuns := newFakeEdges(masters).tunnelsOf(fmt.Sprint("node-", i))
		tuns.refresh(tuns.list())
		for _, e := range tuns.ranked()[:wantedTunnels] {
			count[e.id]++
		}
	}
	for id, n := range count {
		if want := nodes * wantedTunnels / masters; n < want*9/10 || n > want*11/10 {
			t.Errorf("%s would have %d tunnels, about %d are its share", id, n, want)
		}
	}
}
