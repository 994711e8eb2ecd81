package crdtstore

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/stats"
)

// The totals agree with each other, and with the nodes that are listed, whatever their
// status.
func TestTotalsAgree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(3, 3))
		s := inMemory(t)
		s.setOfflineAfter(30 * time.Second)
		check := func() (got Stats) {
			t.Helper()
			now := time.Now()
			got = s.count(now)
			var all stats.StatusTotals
			byStatus := map[Status]stats.StatusTotals{}
			page, err := s.Nodes(NodeQuery{Limit: 1000})
			if err != nil {
				t.Fatal(err)
			}
			add := func(to stats.StatusTotals, n Node) stats.StatusTotals {
				return stats.StatusTotals{Nodes: to.Nodes + 1, Capacity: sum(to.Capacity, n.Total), Slices: to.Slices + n.SlicesTotal}
			}
			for _, n := range page.Nodes {
				all, byStatus[n.Status] = add(all, n), add(byStatus[n.Status], n)
			}
			if published := (stats.StatusTotals{Nodes: got.Nodes.Total, Capacity: got.Total, Slices: got.Slices.Total}); published != all {
				t.Errorf("the totals are %+v, the nodes add up to %+v", published, all)
			}
			for status, n := range map[Status]int{Online: got.Nodes.Online, Suspect: got.Nodes.Suspect, Offline: got.Nodes.Offline} {
				if published, ok := got.ByStatus[status]; published != byStatus[status] || published.Nodes != n || !ok {
					t.Errorf("%s are %+v and %d nodes, the nodes add up to %+v", status, published, n, byStatus[status])
				}
			}
			if got.Slices.Free > got.ByStatus[Online].Slices || got.Free.MRU > got.ByStatus[Online].MRU {
				t.Errorf("more is free than the online nodes have: %+v of %+v", got.Free, got.ByStatus[Online])
			}
			return got
		}
		check()
		for i := range 40 {
			s.tells(t, randomReport(rnd, fmt.Sprint("n", i)))
			if i%9 == 0 {
				s.goes(fmt.Sprint("n", i))
			}
			time.Sleep(time.Second)
		}
		if got := check(); got.Nodes.Online == 0 || got.Nodes.Offline == 0 || got.Total.CRU == 0 {
			t.Fatalf("%+v tells nothing", got)
		}
		time.Sleep(time.Hour)
		if got := check(); got.ByStatus[Offline].Capacity != got.Total || got.Total.MRU == 0 || got.ByStatus[Offline].Slices != got.Slices.Total || got.Slices.Total == 0 {
			t.Errorf("a grid that is offline has %+v, of which offline %+v", got.Total, got.ByStatus[Offline])
		}
	})
}
