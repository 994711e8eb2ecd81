package host

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const gib = 1 << 30

// fake is a machine whose figures a test sets.
type fake struct {
	err    error // what everything fails with
	times  cpuTimes
	memory [2]uint64
	fss    []filesystem
	addrs  []netip.Addr
	now    time.Time
}

func (f *fake) source() source {
	return source{
		hostname:    func() (string, error) { return "worker", f.err },
		uptime:      func(context.Context) (uint64, error) { return 77, f.err },
		cores:       func(context.Context) (int, error) { return 8, f.err },
		times:       func(context.Context) (cpuTimes, error) { return f.times, f.err },
		load:        func(context.Context) (float64, error) { return 9.5, f.err },
		memory:      func(context.Context) (uint64, uint64, error) { return f.memory[0], f.memory[1], f.err },
		filesystems: func(context.Context) ([]filesystem, error) { return f.fss, f.err },
		addresses:   func() ([]netip.Addr, error) { return f.addrs, f.err },
		now:         func() time.Time { return f.now },
	}
}

func TestSampleThisMachine(t *testing.T) {
	s := New()
	for range 2 {
		f, err := s.Sample(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if f.Hostname == "" || f.UptimeS == 0 {
			t.Errorf("hostname %q, uptime %d", f.Hostname, f.UptimeS)
		}
		if f.Total.CRU < 1 || f.Total.MRU < 64<<20 || f.Total.SRU+f.Total.HRU == 0 {
			t.Errorf("total %+v", f.Total)
		}
		if most := readLimits("/"); most.memory > 0 && f.Total.MRU > most.memory || most.cores > 0 && f.Total.CRU > most.cores {
			t.Errorf("total %+v beyond %+v", f.Total, most)
		}
		if f.Usage.CRU < 0 || f.Usage.CRU > f.Total.CRU || math.IsNaN(f.Usage.CRU) || f.Usage.MRU == 0 {
			t.Errorf("usage %+v of %+v", f.Usage, f.Total)
		}
		if runtime.GOOS == "linux" {
			cpuinfo, err := os.ReadFile("/proc/cpuinfo")
			if n := strings.Count(string(cpuinfo), "processor\t:"); err == nil && n > 0 && f.Total.CRU > float64(n) {
				t.Errorf("%v cores, /proc/cpuinfo has %d", f.Total.CRU, n)
			}
		}
	}
}

func TestSampleKeepsWhatFails(t *testing.T) {
	m := &fake{
		times: cpuTimes{10, 100}, memory: [2]uint64{16 * gib, 4 * gib},
		fss: []filesystem{{100, 40, false}, {1000, 500, true}, {100, 1, false}},
	}
	s := &Sampler{src: m.source()}
	first, err := s.Sample(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := Figures{
		Hostname: "worker", UptimeS: 77,
		Total: record.Capacity{CRU: 8, MRU: 16 * gib, SRU: 200, HRU: 1000},
		Usage: record.Usage{CRU: 8, MRU: 4 * gib, SRU: 41, HRU: 500}, // load 9.5 on 8 cores
	}
	if first != want {
		t.Errorf("got %+v\nwant %+v", first, want)
	}

	m.err = errors.New("no such luck")
	again, err := s.Sample(t.Context())
	if again != first {
		t.Errorf("after failures %+v\nbefore %+v", again, first)
	}
	for _, what := range []string{"hostname", "uptime", "cores", "CPU usage", "memory", "disks", "addresses"} {
		if err == nil || !strings.Contains(err.Error(), "read "+what) {
			t.Errorf("error %v does not name %s", err, what)
		}
	}

	m.err, m.times = nil, cpuTimes{35, 200} // a quarter of the time busy
	if f, _ := s.Sample(t.Context()); f.Usage.CRU != 2 {
		t.Errorf("%v cores busy, want 2", f.Usage.CRU)
	}
	m.times = cpuTimes{1, 2} // the counters went back: a guest was restored
	if f, _ := s.Sample(t.Context()); f.Usage.CRU != 8 {
		t.Errorf("%v cores busy, want the load average", f.Usage.CRU)
	}
}

// In a container the limit is the total.
func TestLimitsAreTheTotal(t *testing.T) {
	src := (&fake{memory: [2]uint64{16 * gib, 12 * gib}}).source()
	src.limits = func() limits { return limits{cores: 1.5, memory: 4 * gib} }
	f, err := (&Sampler{src: src}).Sample(t.Context())
	if err != nil || f.Total.CRU != 1.5 || f.Total.MRU != 4*gib || f.Usage.CRU != 1.5 || f.Usage.MRU != 4*gib {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestTotalsAreSteady(t *testing.T) {
	m := &fake{fss: []filesystem{{total: 10_000}}}
	s := &Sampler{src: m.source()}
	for _, c := range []struct{ total, used, want uint64 }{
		{10_000, 1, 10_000}, {10_100, 1, 10_000}, {9_900, 9_900, 9_900 + 100},
		{10_101, 1, 10_101}, {0, 0, 0}, {50, 1, 50},
	} {
		m.fss = []filesystem{{total: c.total, used: c.used}}
		f, _ := s.Sample(t.Context())
		if f.Total.SRU != c.want || f.Usage.SRU > f.Total.SRU {
			t.Errorf("size %d: total %d used %d, want total %d", c.total, f.Total.SRU, f.Usage.SRU, c.want)
		}
	}
}

func TestMyceliumIP(t *testing.T) {
	ip := netip.MustParseAddr
	m := &fake{now: time.Unix(1e9, 0), addrs: []netip.Addr{
		ip("127.0.0.1"), ip("fe80::1"), ip("2001:db8::1"), ip("3ff::1"), ip("600::1"),
	}}
	s := &Sampler{src: m.source()}
	check := func(want string) {
		t.Helper()
		if f, _ := s.Sample(t.Context()); f.MyceliumIP != want {
			t.Errorf("address %q, want %q", f.MyceliumIP, want)
		}
	}
	check("")
	m.addrs = append(m.addrs, ip("5ff::7"))
	check("5ff::7")
	m.addrs = []netip.Addr{ip("400::1"), ip("5ff::7")}
	check("5ff::7") // still there
	m.addrs = nil
	m.now = m.now.Add(myceliumGrace)
	check("5ff::7") // mycelium restarts
	m.now = m.now.Add(time.Second)
	check("")
	m.addrs = []netip.Addr{ip("400::1")}
	check("400::1")
}

func TestSlices(t *testing.T) {
	for memory, want := range map[uint64]uint64{
		0: 0, gib - 1: 0, gib: 0, 5*gib - 1: 0, 5 * gib: 1, 8 * gib: 1, 9 * gib: 2, 64 * gib: 15,
	} {
		if got := SlicesTotal(memory); got != want {
			t.Errorf("%d bytes: %d slices, want %d", memory, got, want)
		}
	}
	for _, c := range []struct {
		memory []uint64
		total  uint64
		want   uint64
	}{
		{nil, 4, 0},
		{[]uint64{4 * gib}, 4, 1},
		{[]uint64{1, 0}, 4, 2},
		{[]uint64{4*gib + 1, 8 * gib}, 9, 4},
		{[]uint64{4*gib + 1, 8 * gib}, 3, 3},
		{[]uint64{math.MaxUint64, math.MaxUint64}, 5, 5},
		{[]uint64{1}, 0, 0},
	} {
		var vms []record.VM
		for _, m := range c.memory {
			vms = append(vms, record.VM{Memory: m})
		}
		if got := SlicesUsed(vms, c.total); got != c.want {
			t.Errorf("VMs of %v bytes take %d slices, want %d", c.memory, got, c.want)
		}
	}
}

func TestRotational(t *testing.T) {
	sys := t.TempDir()
	for path, word := range map[string]string{
		"devices/pci/sda/queue/rotational":      "1\n",
		"devices/pci/nvme0/queue/rotational":    "0\n",
		"devices/virtual/dm-0/queue/rotational": "1\n",
		"devices/pci/sda/sda1/partition":        "1\n",
		"devices/pci/nvme0/nvme0p1/partition":   "1\n",
	} {
		path = filepath.Join(sys, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(word), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	class := filepath.Join(sys, "class/block")
	if err := os.MkdirAll(class, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"sda": "pci/sda", "sda1": "pci/sda/sda1", "nvme0p1": "pci/nvme0/nvme0p1", "dm-0": "virtual/dm-0",
	} {
		if err := os.Symlink(filepath.Join(sys, "devices", target), filepath.Join(class, name)); err != nil {
			t.Fatal(err)
		}
	}
	for device, want := range map[string]bool{
		"/dev/sda": true, "/dev/sda1": true, "/dev/nvme0p1": false, "/dev/dm-0": true, "/dev/none": false,
	} {
		if got := rotational(sys, device); got != want {
			t.Errorf("%s: rotational %v, want %v", device, got, want)
		}
	}
}
