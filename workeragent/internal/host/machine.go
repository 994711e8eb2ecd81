package host

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/host"
	"github.com/shirou/gopsutil/v4/load"
	"github.com/shirou/gopsutil/v4/mem"
)

// machine is the source that reads this machine.
func machine() source {
	return source{
		hostname:    os.Hostname,
		uptime:      host.UptimeWithContext,
		cores:       cores,
		times:       times,
		load:        loadOfLastMinute,
		memory:      memory,
		filesystems: filesystems,
		addresses:   addresses,
		limits:      func() limits { return readLimits("/") },
		now:         time.Now,
	}
}

func cores(ctx context.Context) (int, error) {
	n, err := cpu.CountsWithContext(ctx, true)
	if err != nil || n < 1 {
		return runtime.NumCPU(), nil
	}
	return min(n, runtime.NumCPU()), nil // of which a cpuset may leave fewer
}

func times(ctx context.Context) (cpuTimes, error) {
	all, err := cpu.TimesWithContext(ctx, false)
	if err != nil {
		return cpuTimes{}, err
	}
	if len(all) == 0 {
		return cpuTimes{}, errors.New("the system tells no CPU times")
	}
	t := all[0]
	// Guest time is part of user time on Linux.
	busy := t.User + t.System + t.Nice + t.Irq + t.Softirq + t.Steal
	return cpuTimes{busy: busy, all: busy + t.Idle + t.Iowait}, nil
}

func loadOfLastMinute(ctx context.Context) (float64, error) {
	avg, err := load.AvgWithContext(ctx)
	if err != nil {
		return 0, err
	}
	return avg.Load1, nil
}

// memory counts as used what a program could not have: caches are free.
func memory(ctx context.Context) (total, used uint64, err error) {
	m, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return 0, 0, err
	}
	return m.Total, m.Total - min(m.Available, m.Total), nil
}

// filesystems lists what local disks hold, each pool once. Where none can be told
// apart, as in a container on an overlay, it is the root file system, taken for SSD.
func filesystems(ctx context.Context) ([]filesystem, error) {
	var out []filesystem
	if text, err := os.ReadFile("/proc/self/mountinfo"); err == nil { // only Linux has one
		out = pools("/sys", readMounts(string(text)), func(point string) (space, error) { return usage(ctx, point) })
	}
	if len(out) > 0 {
		return out, nil
	}
	s, err := usage(ctx, "/")
	if err != nil {
		return nil, err
	}
	return []filesystem{{total: s.total, used: s.used}}, nil
}

// rotational tells whether the block device below a file system is a spinning
// disk, by the kernel's word; where there is none, it is not. A partition has
// no word of its own, the disk above it has.
func rotational(sys, device string) bool {
	dir, err := filepath.EvalSymlinks(filepath.Join(sys, "class/block", filepath.Base(device)))
	if err != nil {
		return false
	}
	for _, dir := range []string{dir, filepath.Dir(dir)} {
		if word, err := os.ReadFile(filepath.Join(dir, "queue/rotational")); err == nil {
			return strings.TrimSpace(string(word)) == "1"
		}
	}
	return false
}

// addresses are those of all interfaces that are up.
func addresses() ([]netip.Addr, error) {
	ifs, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, i := range ifs {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue // the interface went away meanwhile
		}
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if addr, ok := netip.AddrFromSlice(n.IP); ok {
					out = append(out, addr.Unmap())
				}
			}
		}
	}
	return out, nil
}
