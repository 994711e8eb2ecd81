//go:build soak

package soak

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const (
	beatEvery = 10 // seconds
	day       = 24 * 60 * 60
)

// grid is the nodes of a simulated grid, and what happens to them in a day:
// every node changes its profile once, 1% are removed and replaced by new ones,
// 0.5% fall silent for up to three days, and of those half have booted anew when
// they come back.
type grid struct {
	store *crdtstore.Store
	rnd   *rand.Rand
	nodes []node
	made  int // nodes that there ever were
	beats int
	// todo is what happens at each second of this day.
	todo map[int][]func(context.Context) error
}

// node is a node of the grid; first what every heartbeat needs.
type node struct {
	id     string
	boot   uint64
	seq    uint64
	usage  record.Usage
	booted time.Time
	silent time.Time // until when it says nothing
	rest   *account
}

// account is what a node says of itself now and then.
type account struct {
	report crdtstore.Report
	key    ed25519.PrivateKey
}

// newGrid makes nodes and registers them.
func newGrid(ctx context.Context, store *crdtstore.Store, seed uint64, n int) (*grid, error) {
	g := &grid{store: store, rnd: rand.New(rand.NewPCG(seed, 0)), nodes: make([]node, n)}
	for i := range g.nodes {
		g.nodes[i] = g.node()
	}
	errs := make([]error, 100)
	var all sync.WaitGroup
	for w := range errs {
		all.Go(func() {
			for i := w; i < n && errs[w] == nil; i += len(errs) {
				errs[w] = g.account(ctx, &g.nodes[i])
			}
		})
	}
	all.Wait()
	return g, errors.Join(errs...)
}

// node makes a node as they are.
func (g *grid) node() node {
	g.made++
	report, key := crdtstoretest.RealisticReport(g.rnd, g.made)
	report.Boot = uint64(time.Now().UnixMilli())
	return node{id: report.NodeID, boot: report.Boot, booted: time.Now(), rest: &account{report, key}}
}

// account sends a signed report of a node as it is now.
func (g *grid) account(ctx context.Context, n *node) error {
	n.seq++
	r := &n.rest.report
	r.Boot, r.Seq, r.Usage = n.boot, n.seq, n.usage
	r.Sign(n.rest.key)
	got, err := g.store.Report(ctx, *r)
	if err == nil && !got.Accepted {
		err = fmt.Errorf("the report of %s was not accepted: %+v", n.id, got)
	}
	return err
}

// change is what a node's profile and VMs go through once a day.
func (g *grid) change(n *node) {
	r := &n.rest.report
	switch g.rnd.IntN(4) {
	case 0:
		r.Version = fmt.Sprintf("1.%d.%d", g.rnd.IntN(3), g.rnd.IntN(10))
	case 1:
		r.Labels = map[string]string{"farm": r.Labels["farm"], "rack": fmt.Sprintf("r%02d", g.rnd.IntN(12))}
	default:
		// The list is the store's too by now, and is not written to.
		vms := append([]crdtstore.VM{}, r.VMs...)
		switch i := g.rnd.IntN(len(vms)); {
		case g.rnd.IntN(2) == 0:
			vms[i] = crdtstoretest.RealisticVM(g.rnd) // one is deleted, another deployed
		case vms[i].State == "running":
			vms[i].State = "stopped"
		default:
			vms[i].State = "running"
		}
		r.VMs = vms
	}
}

// plan decides what happens in the day that begins.
func (g *grid) plan() {
	g.todo = map[int][]func(context.Context) error{}
	at := func(f func(context.Context) error) {
		second := g.rnd.IntN(day)
		g.todo[second] = append(g.todo[second], f)
	}
	for i := range g.nodes {
		at(func(ctx context.Context) error {
			n := &g.nodes[i]
			if time.Now().Before(n.silent) {
				return nil
			}
			g.change(n)
			return g.account(ctx, n)
		})
	}
	for range max(1, len(g.nodes)/100) {
		at(func(ctx context.Context) error {
			i := g.rnd.IntN(len(g.nodes))
			if _, err := g.store.Remove(ctx, g.nodes[i].id, "soak", "replaced"); err != nil {
				return err
			}
			g.nodes[i] = g.node()
			return g.account(ctx, &g.nodes[i])
		})
	}
	for range max(1, len(g.nodes)/200) {
		at(func(context.Context) error {
			n := &g.nodes[g.rnd.IntN(len(g.nodes))]
			n.silent = time.Now().Add(time.Duration(1+g.rnd.IntN(3*day)) * time.Second)
			if g.rnd.IntN(2) == 0 {
				n.booted = n.silent
			}
			return nil
		})
	}
}

// second lets one second of the day pass: a tenth of the nodes beat.
func (g *grid) second(ctx context.Context, second int) error {
	now := time.Now()
	phase := second % beatEvery
	from, to := phase*len(g.nodes)/beatEvery, (phase+1)*len(g.nodes)/beatEvery
	for i := from; i < to; i++ {
		n := &g.nodes[i]
		if now.Before(n.silent) {
			continue
		}
		if boot := uint64(n.booted.UnixMilli()); boot > n.boot {
			n.boot, n.seq = boot, 0
			if err := g.account(ctx, n); err != nil {
				return err
			}
		}
		n.seq++
		uptime := uint64(now.Sub(n.booted) / time.Second)
		n.usage.CRU = float64(second % 32)
		got, err := g.store.Beat(crdtstore.Beat{NodeID: n.id, Boot: n.boot, Seq: n.seq, Usage: &n.usage, UptimeS: &uptime})
		if err != nil {
			return fmt.Errorf("a beat of %s: %w", n.id, err)
		}
		if !got.Accepted || got.Register {
			return fmt.Errorf("a beat of %s: %+v", n.id, got)
		}
		g.beats++
	}
	for _, f := range g.todo[second] {
		if err := f(ctx); err != nil {
			return err
		}
	}
	return nil
}
