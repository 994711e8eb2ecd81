package crdtstoretest_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
)

// Masters whose limits differ agree about every node, though the agents beat less often
// than the strict one wishes: a healthy node is online at both, a dead one offline at both.
func TestLimitsOfMastersDiffer(t *testing.T) {
	for _, homes := range [][]int{{1}, {0, 1}} {
		t.Run(fmt.Sprintf("agents beat to %v", homes), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { limitsDiffer(t, homes) })
		})
	}
}

func limitsDiffer(t *testing.T, homes []int) {
	limits := []time.Duration{3 * time.Second, 30 * time.Second}
	c := crdtstoretest.StartSimulated(t, 2, 1, func(i int, cfg *crdtstore.Config) {
		cfg.OfflineAfter = limits[i]
		cfg.Settings = map[string]string{"heartbeat-interval": (limits[i] / 3).String(), "aliases": "none"}
	})
	const nodes = 5
	for node := range nodes {
		if _, err := c.Store(1).Report(t.Context(), crdtstore.Report{NodeID: fmt.Sprint("n", node), Boot: 1, Seq: 1}); err != nil {
			t.Fatal(err)
		}
	}
	c.WaitEqual()
	wrong := map[string]int{}
	alive, seq := nodes, uint64(1)
	pass := func(seconds int, look bool) {
		for second := range seconds {
			if node := second % 10 / 2; second%2 == 0 && node < alive { // each every 10 s
				for _, home := range homes {
					seq++
					_, _ = c.Store(home).Beat(crdtstore.Beat{NodeID: fmt.Sprint("n", node), Boot: 1, Seq: seq})
				}
			}
			time.Sleep(time.Second)
			for i := range limits {
				if look && c.Store(i).Stats().Preservation != nil {
					wrong[fmt.Sprintf("master %d doubts that nodes are alive", i)]++
				}
				for _, m := range c.Store(i).Masters() {
					if look && m.PartiallyConnected && len(homes) == 2 {
						wrong[fmt.Sprintf("master %d says that %s %s", i, m.Name, m.Reason)]++
					}
				}
				for node := range nodes {
					if n, err := c.Store(i).Node(fmt.Sprint("n", node)); look && (err != nil || n.Status != crdtstore.Online) {
						wrong[fmt.Sprintf("%s is %s at master %d", n.NodeID, n.Status, i)]++
					}
				}
			}
		}
	}
	pass(20, false)
	pass(180, true)
	for what, times := range wrong {
		t.Errorf("%d times: %s", times, what)
	}

	want := [][]string{
		{"offline-after: 30s there, 3s here", "heartbeat-interval: 10s there, 1s here"},
		{"offline-after: 3s there, 30s here", "heartbeat-interval: 1s there, 10s here"},
	}
	for i := range limits {
		all := c.Store(i).Masters()
		if got := all[1].SettingsDiffer; !slices.Equal(got, want[i]) || len(all[0].SettingsDiffer) > 0 {
			t.Errorf("master %d says that %q differ, want %q", i, got, want[i])
		}
		page, err := c.Store(i).Events(crdtstore.EventQuery{Q: crdtstore.EventSettings})
		if err != nil || len(page.Events) != 1 {
			t.Errorf("master %d tells %d times of settings, %v", i, len(page.Events), err)
		}
	}

	alive = nodes - 1 // the last one dies
	pass(40, false)
	for i := range limits {
		if n, err := c.Store(i).Node(fmt.Sprint("n", nodes-1)); err != nil || n.Status != crdtstore.Offline {
			t.Errorf("the dead node is %s at master %d, %v", n.Status, i, err)
		}
	}
}
