package qemu

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/shirou/gopsutil/v4/mem"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// leastMemory is what a machine needs to get through its firmware, in bytes.
const leastMemory = 16 << 20

func (c *Config) completeLimits() error {
	if c.MaxCPU == 0 {
		c.MaxCPU = uint64(runtime.NumCPU())
	}
	if c.MaxMemory == 0 {
		host, err := mem.VirtualMemory()
		if err != nil {
			return fmt.Errorf("max memory: the host's cannot be read: %w", err)
		}
		c.MaxMemory = host.Total / 4 * 3
	}
	return nil
}

// reserve sees to it that the machine can have what it was promised, for as long
// as it runs.
func (d *Driver) reserve(m *machine, vm compute.VM) error {
	if vm.CPU < 1 || vm.CPU > d.cfg.MaxCPU {
		return jsonrpc.InvalidParams("cpu", fmt.Sprintf("is %d, this node gives a VM 1 to %d", vm.CPU, d.cfg.MaxCPU))
	}
	if vm.Memory < leastMemory || vm.Memory > d.cfg.MaxMemory {
		return jsonrpc.InvalidParams("memory", fmt.Sprintf("is %d MiB, this node gives a VM %d to %d",
			vm.Memory>>20, leastMemory>>20, d.cfg.MaxMemory>>20))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("the service is ending")
	}
	var taken uint64
	for _, other := range d.machines {
		if other != m {
			taken += other.reserved.Load()
		}
	}
	if taken > d.cfg.MaxMemory || vm.Memory > d.cfg.MaxMemory-taken {
		return compute.NoRoom(fmt.Sprintf("the VM needs %d MiB; of %d MiB for VMs, %d are taken by those that run",
			vm.Memory>>20, d.cfg.MaxMemory>>20, taken>>20))
	}
	m.reserved.Store(vm.Memory)
	return nil
}
