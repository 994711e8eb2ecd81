package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// myceliumGrace is how long an overlay address is still reported after it has
// vanished: mycelium takes its interface down when it restarts.
const myceliumGrace = 5 * time.Minute

// cpuTimes are seconds since boot, summed over all cores.
type cpuTimes struct{ busy, all float64 }

// filesystem is one mounted local file system.
type filesystem struct {
	total, used uint64 // bytes
	rotational  bool
}

// source is where a Sampler reads from.
type source struct {
	hostname    func() (string, error)
	uptime      func(context.Context) (uint64, error)
	cores       func(context.Context) (int, error)
	times       func(context.Context) (cpuTimes, error)
	load        func(context.Context) (float64, error)
	memory      func(context.Context) (total, used uint64, err error)
	filesystems func(context.Context) ([]filesystem, error)
	addresses   func() ([]netip.Addr, error)
	limits      func() limits // nil: there are none
	now         func() time.Time
}

// Sampler reads the figures again and again. It is used by one goroutine at a
// time.
type Sampler struct {
	src          source
	last         Figures
	times        cpuTimes
	myceliumSeen time.Time
}

// New makes a sampler of this machine.
func New() *Sampler { return &Sampler{src: machine()} }

// Sample reads all figures. What could not be read keeps its last value and is
// named in the error; the figures are good for use either way.
func (s *Sampler) Sample(ctx context.Context) (Figures, error) {
	var errs []error
	failed := func(what string, err error) bool {
		if err != nil {
			errs = append(errs, fmt.Errorf("read %s: %w", what, err))
		}
		return err != nil
	}
	f := &s.last

	if name, err := s.src.hostname(); !failed("hostname", err) {
		f.Hostname = name
	}
	if up, err := s.src.uptime(ctx); !failed("uptime", err) {
		f.UptimeS = up
	}
	var most limits
	if s.src.limits != nil {
		most = s.src.limits()
	}
	if n, err := s.src.cores(ctx); !failed("cores", err) {
		f.Total.CRU = float64(n)
		if most.cores > 0 {
			f.Total.CRU = min(f.Total.CRU, most.cores)
		}
	}
	if used, err := s.busyCores(ctx); !failed("CPU usage", err) {
		f.Usage.CRU = min(used, f.Total.CRU)
	}
	if total, used, err := s.src.memory(ctx); !failed("memory", err) {
		if most.memory > 0 {
			total = min(total, most.memory)
		}
		f.Total.MRU = steady(f.Total.MRU, total)
		f.Usage.MRU = min(used, f.Total.MRU)
	}
	if fss, err := s.src.filesystems(ctx); !failed("disks", err) {
		f.disks(fss)
	}
	if addrs, err := s.src.addresses(); !failed("addresses", err) {
		s.mycelium(addrs)
	}
	return *f, errors.Join(errs...)
}

// busyCores is how many cores were busy since the last sample. The first time
// there is nothing to compare with, and the load average stands in.
func (s *Sampler) busyCores(ctx context.Context) (float64, error) {
	now, err := s.src.times(ctx)
	if err != nil {
		return 0, err
	}
	was := s.times
	s.times = now
	if was.all == 0 || now.all <= was.all {
		return s.src.load(ctx)
	}
	share := (now.busy - was.busy) / (now.all - was.all)
	return max(0, min(share, 1)) * s.last.Total.CRU, nil
}

func (f *Figures) disks(fss []filesystem) {
	var total record.Capacity
	var used record.Usage
	for _, fs := range fss {
		if fs.rotational {
			total.HRU += fs.total
			used.HRU += fs.used
		} else {
			total.SRU += fs.total
			used.SRU += fs.used
		}
	}
	f.Total.SRU = steady(f.Total.SRU, total.SRU)
	f.Total.HRU = steady(f.Total.HRU, total.HRU)
	f.Usage.SRU = min(used.SRU, f.Total.SRU)
	f.Usage.HRU = min(used.HRU, f.Total.HRU)
}

// steady returns was until now differs from it by more than a hundredth.
func steady(was, now uint64) uint64 {
	if max(was, now)-min(was, now) > was/100 {
		return now
	}
	return was
}

// myceliumNet is where mycelium takes its addresses from.
var myceliumNet = netip.MustParsePrefix("400::/7")

// mycelium keeps the address that was reported as long as it is there, so that
// a second one does not make the record flap.
func (s *Sampler) mycelium(addrs []netip.Addr) {
	now, found := s.src.now(), ""
	for _, a := range addrs {
		if !myceliumNet.Contains(a) {
			continue
		}
		if text := a.String(); found == "" || text == s.last.MyceliumIP {
			found = text
		}
	}
	switch {
	case found != "":
		s.last.MyceliumIP, s.myceliumSeen = found, now
	case now.Sub(s.myceliumSeen) > myceliumGrace:
		s.last.MyceliumIP = ""
	}
}
