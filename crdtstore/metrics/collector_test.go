package metrics_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/metrics"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/stats"
)

// A program that embeds a store shows its figures among its own.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := crdtstore.Open(context.Background(), crdtstore.Config{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	registry := prometheus.NewRegistry()
	registry.MustRegister(metrics.NewCollector(store))

	families, err := registry.Gather() // as promhttp does
	if err != nil {
		log.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "hero_explorer_masters" {
			fmt.Println(f.GetName(), f.GetMetric()[0].GetGauge().GetValue())
		}
	}
	// Output: hero_explorer_masters 1
}

// source is a store with something to say about everything.
type source struct{ health error }

func (s source) Health() error { return s.health }

func (source) Stats() crdtstore.Stats {
	return crdtstore.Stats{
		Nodes: stats.NodeCounts{Online: 3, Suspect: 2, Offline: 1, Drained: 4}, Masters: map[string]int{"self": 1, "alive": 2},
		Convergence: stats.Convergence{LagS: 1.5, Gaps: 7, Splits: []stats.Split{{Master: "m3", Name: "gamma", LagS: 60, Nodes: 5}}},
		Joining:     &stats.Joining{Of: 9}, Preservation: &stats.Preservation{},
	}
}

func (source) Masters() []crdtstore.Master {
	return []crdtstore.Master{
		{ID: "m1", Name: "alpha", Status: crdtstore.MasterSelf, Hears: 6},
		{ID: "m2", Name: "b\xffta", Status: crdtstore.MasterAlive, Direct: true, SettingsDiffer: []string{"a", "b"}, Cause: crdtstore.CauseCollision},
		{ID: "m3", Name: "gamma", Status: crdtstore.MasterDown, Hears: 100},
		{Name: "10.0.0.9", Status: crdtstore.MasterNeverMet, Cause: crdtstore.CauseSecret},
	}
}

func (source) EventCounts() []crdtstore.EventCount {
	return []crdtstore.EventCount{{Kind: crdtstore.NodeEvent, Type: "offline", Count: 8}}
}

// gathered returns all values, by name and labels.
func gathered(t *testing.T, s metrics.Source) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry() // which compares with Describe
	registry.MustRegister(metrics.NewCollector(s))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), metrics.Prefix)
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values
}

func TestCollector(t *testing.T) {
	got := gathered(t, source{})
	for name, want := range map[string]float64{
		"nodes online": 3, "nodes suspect": 2, "nodes offline": 1, "nodes_drained": 4,
		"masters self": 1, "masters alive": 2, "in_sync": 0, "lag_seconds": 1.5, "announcement_gaps_total": 7,
		"split_seconds m3 gamma": 60, "split_nodes m3 gamma": 5,
		"master_hears_nodes m1 alpha": 6, "master_direct m2 b\uFFFDta": 1, "master_settings_differ m2 b\uFFFDta": 2,
		"master_identity_collision m2 b\uFFFDta": 1, "master_identity_collision m1 alpha": 0,
		"peer_never_met secret 10.0.0.9": 1, "joining": 1, "joining_nodes": 9, "preserving": 1,
		"events_total node offline": 8, "healthy": 1,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	if _, ok := got["master_hears_nodes m3 gamma"]; ok {
		t.Error("a figure of a master that is down")
	}
	if v := gathered(t, source{errors.New("disk full")})["healthy"]; v != 0 {
		t.Error("healthy while it is not")
	}
}
