package watch

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// TestVMs applies the changes that a watcher is told to what it had, and
// compares with what there is.
func TestVMs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	random := func() (vms []record.VM) {
		for i := range 6 {
			if rnd.IntN(2) == 0 {
				vms = append(vms, record.VM{
					SID: fmt.Sprint(i), State: []string{"running", "stopped"}[rnd.IntN(2)],
					CPU: uint64(rnd.IntN(2)), AsOf: fmt.Sprint(rnd.IntN(100)),
				})
			}
		}
		return vms
	}
	visible := func(vms []record.VM) map[string]record.VM {
		out := map[string]record.VM{}
		for _, v := range vms {
			v.AsOf = ""
			out[v.SID] = v
		}
		return out
	}
	for range 3000 {
		before, after := random(), random()
		has, want := visible(before), visible(after)
		for _, v := range VMs(before, after) {
			v.AsOf = ""
			was, had := has[v.SID]
			if v.State == record.VMDeleted {
				if !had {
					t.Fatalf("%+v is gone, and was not there", v)
				}
				delete(has, v.SID)
				continue
			}
			if had && was == v {
				t.Fatalf("%+v has not changed", v)
			}
			has[v.SID] = v
		}
		if fmt.Sprint(has) != fmt.Sprint(want) {
			t.Fatalf("from %+v to %+v a watcher has %v", before, after, has)
		}
	}
}
