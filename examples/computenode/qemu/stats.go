package qemu

import (
	"context"
	"time"

	psutil "github.com/shirou/gopsutil/v4/process"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
)

// sample is the processor time that a process had taken at some moment.
type sample struct {
	at  time.Time
	cpu float64 // seconds
}

// Stats measures the machine's process: the processor since the last measurement,
// or since its start.
func (d *Driver) Stats(ctx context.Context, sid string) (compute.Stats, error) {
	m, err := d.machine(sid)
	if err != nil {
		return compute.Stats{}, err
	}
	p := m.process()
	if p == nil {
		return compute.Stats{}, nil
	}
	st, err := p.stats(ctx)
	if err != nil && p.hasEnded() {
		return compute.Stats{}, nil
	}
	return st, err
}

func (p *process) stats(ctx context.Context) (st compute.Stats, err error) {
	proc, err := psutil.NewProcessWithContext(ctx, int32(p.pid))
	if err != nil {
		return st, err
	}
	began, err := proc.CreateTimeWithContext(ctx) // ms since 1970
	if err != nil {
		return st, err
	}
	memory, err := proc.MemoryInfoWithContext(ctx)
	if err != nil {
		return st, err
	}
	times, err := proc.TimesWithContext(ctx)
	if err != nil {
		return st, err
	}

	now := sample{at: time.Now(), cpu: times.User + times.System}
	start := time.UnixMilli(began)
	p.sampling.Lock()
	before := p.sample
	p.sample = now
	p.sampling.Unlock()
	if before.at.IsZero() {
		before.at = start
	}
	if d := now.at.Sub(before.at).Seconds(); d > 0 {
		st.CPUPercent = max(0, 100*(now.cpu-before.cpu)/d)
	}
	st.MemoryUsed = memory.RSS
	st.UptimeS = uint64(max(0, now.at.Sub(start).Seconds()))
	return st, nil
}
