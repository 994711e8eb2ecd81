package watch

import "forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"

// VMs returns the VMs that are new or changed, and those that are gone
// with the state "deleted".
func VMs(before, after []record.VM) []record.VM {
	old := make(map[string]record.VM, len(before))
	for _, v := range before {
		old[v.SID] = v
	}
	var out []record.VM
	for _, v := range after {
		was, had := old[v.SID]
		delete(old, v.SID)
		was.AsOf = v.AsOf
		if !had || was != v {
			out = append(out, v)
		}
	}
	for _, v := range before {
		if _, gone := old[v.SID]; gone {
			v.State = record.VMDeleted
			out = append(out, v)
		}
	}
	return out
}
