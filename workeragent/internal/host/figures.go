package host

import "forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"

const (
	// SliceMemory is the memory of one slice, in bytes.
	SliceMemory = 4 << 30
	// ReservedMemory is what is kept for the operating system, in bytes.
	ReservedMemory = 1 << 30
)

// Figures are what was last read of the machine.
type Figures struct {
	Hostname   string
	MyceliumIP string // empty: no interface has one
	UptimeS    uint64 // seconds
	Total      record.Capacity
	Usage      record.Usage // Slices is left to the caller, who knows the VMs
}

// SlicesTotal is how many slices fit on a machine with that much memory (bytes).
func SlicesTotal(memory uint64) uint64 {
	if memory < ReservedMemory {
		return 0
	}
	return (memory - ReservedMemory) / SliceMemory
}

// SlicesUsed is how many of total slices the VMs take. A VM takes whole slices,
// at least one, running or not.
func SlicesUsed(vms []record.VM, total uint64) uint64 {
	var used uint64
	for _, vm := range vms {
		// Not (memory+SliceMemory-1)/SliceMemory: that can overflow.
		n := vm.Memory / SliceMemory
		if vm.Memory%SliceMemory != 0 || n == 0 {
			n++
		}
		if used += n; used >= total {
			return total
		}
	}
	return used
}
