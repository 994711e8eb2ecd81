package crdtstore

import (
	"slices"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
)

func TestLagIsTheTimeSinceTheDigestsWereEqual(t *testing.T) {
	now := time.Now()
	one := membership.Member{Info: membership.Info{ID: "m1", Name: "one", MeshAddrs: []string{"/ip4/10.0.0.1/tcp/9004"}}, Status: membership.Alive, Run: membership.Run{Skew: 90 * time.Second}}
	same := replica.Agreement{InSync: true, Equal: now}
	if m := showMaster(now.Add(time.Second), one, same); !m.InSync || m.LagS != 0 || m.ClockSkewS != 90 || m.Reason != "" {
		t.Errorf("%+v", m)
	} else if want := []string{"/ip4/10.0.0.1/tcp/9004/p2p/m1"}; !slices.Equal(m.MeshAddrs, want) || m.RPCURLs == nil || m.UIURLs == nil || m.EdgeAddrs == nil {
		t.Errorf("its addresses are %+v", m)
	}
	if m := showMaster(now.Add(3*time.Second), one, replica.Agreement{Equal: now, Differs: 7}); m.InSync || m.LagS != 3 || m.Differs != 7 {
		t.Errorf("%+v", m)
	}
	if m := showMaster(now, one, replica.Agreement{}); m.InSync || m.LagS != 0 {
		t.Errorf("never heard in this run: %+v", m)
	}
	one.Status = membership.Down
	if m := showMaster(now, one, same); m.InSync || m.Reason != "" {
		t.Errorf("in sync with one that is down: %+v", m)
	}
	one.Status, one.HeardBy = membership.Suspect, []string{"m2"}
	if m := showMaster(now, one, same); m.Reason == "" {
		t.Errorf("heard by others only: %+v", m)
	}
}
