package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	psutil "github.com/shirou/gopsutil/v4/process"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/serial"
)

const (
	// quitTimeout is how long QEMU may take to end when told to.
	quitTimeout = 2 * time.Second
	// killTimeout is how long the kernel may take to end it.
	killTimeout = 5 * time.Second
	// typeTimeout is how long a guest may leave what is typed unread.
	typeTimeout = 10 * time.Second
)

// process is one run of QEMU. Its goroutines end with it.
type process struct {
	child   *os.Process // of this service, or of one before
	monitor *monitor
	ended   <-chan struct{} // closed when there is no process any more
	paused  atomic.Bool     // by itself, when the host's disk is full

	line   serial.Line // what the machine writes
	typing sync.Mutex  // held while something is written to serial
	serial net.Conn

	measuring sync.Mutex      // guards meter
	meter     *psutil.Process // nil: not measured yet
}

// arguments of QEMU. Its directory is the machine's, so that no path needs the
// escapes of its options. The files inherited are lock, monitor and serial, from
// number 3 on.
func arguments(vm compute.VM, img image) []string {
	args := []string{
		"-name", vm.SID,
		"-no-user-config", "-nodefaults", "-display", "none", "-nic", "none",
		// By default the cache of translated code takes up to 1 GiB.
		"-accel", "tcg,tb-size=64",
		"-m", strconv.FormatUint(vm.Memory>>20, 10) + "M",
		"-smp", strconv.FormatUint(vm.CPU, 10),
		"-pidfile", pidFile,
		"-chardev", "socket,id=monitor,fd=4,server=on,wait=off",
		"-mon", "chardev=monitor,mode=control",
		"-chardev", "socket,id=serial,fd=5,server=on,wait=off,logfile=" + serialLog + ",logappend=on",
		"-serial", "chardev:serial",
		"-device", "virtio-rng-pci",
	}
	if img.disk != "" {
		// Without graphics the firmware and the boot loader use the serial line.
		return append(args, "-machine", "pc,graphics=off",
			"-drive", "file="+overlay+",format=qcow2,if=virtio")
	}
	args = append(args, "-machine", "pc", "-kernel", img.kernel, "-append", img.cmdline)
	if img.initrd != "" {
		args = append(args, "-initrd", img.initrd)
	}
	return args
}

// connectTo connects to the sockets of the machine, and waits until QEMU answers.
func (p *process) connectTo(ctx context.Context, m *machine) error {
	var dial net.Dialer
	conn, err := dial.DialContext(ctx, "unix", m.path(monitorSocket))
	if err != nil {
		return err
	}
	p.monitor, err = openMonitor(ctx, conn, func(event string) {
		switch event {
		case "STOP":
			p.paused.Store(true)
		case "RESUME":
			p.paused.Store(false)
		}
	})
	if err != nil {
		return err
	}
	status, err := p.status(ctx)
	if err == nil {
		if !status.Running { // else an event may have said so since
			p.paused.Store(true)
		}
		p.serial, err = dial.DialContext(ctx, "unix", m.path(serialSocket))
	}
	if err != nil {
		conn.Close()
	}
	return err
}

// runState is what QEMU says of the machine.
type runState struct {
	Running bool   `json:"running"`
	Status  string `json:"status"` // why not, if not
}

func (p *process) status(ctx context.Context) (s runState, err error) {
	err = p.monitor.execute(ctx, "query-status", &s)
	return s, err
}

// goOn makes a machine run that is paused.
func (p *process) goOn(ctx context.Context) error {
	status, err := p.status(ctx)
	if err != nil || status.Running {
		return err
	}
	if err := p.monitor.execute(ctx, "cont", nil); err != nil {
		return fmt.Errorf("the machine is paused (%s) and does not go on: %w", status.Status, err)
	}
	return nil
}

func (p *process) endsWithin(d time.Duration) bool {
	select {
	case <-p.ended:
		return true
	case <-time.After(d):
		return isClosed(p.ended)
	}
}

// end asks the guest to shut down and waits until stopTimeout ends, then ends QEMU.
func (p *process) end(stopTimeout context.Context) error {
	if stopTimeout.Err() == nil && !p.paused.Load() && p.monitor.execute(stopTimeout, "system_powerdown", nil) == nil {
		select {
		case <-p.ended:
			return nil
		case <-stopTimeout.Done():
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(stopTimeout), quitTimeout)
	defer cancel()
	// That writes out what it has cached; if it fails, the next step does not.
	if p.monitor.execute(ctx, "quit", nil) == nil && p.endsWithin(quitTimeout) {
		return nil
	}
	return p.pull()
}

// pull ends QEMU without asking it.
func (p *process) pull() error {
	if err := p.child.Kill(); err != nil && !p.endsWithin(quitTimeout) {
		return err
	}
	if !p.endsWithin(killTimeout) {
		return fmt.Errorf("process %d was killed and does not end", p.child.Pid)
	}
	return nil
}

// pump passes on what the machine writes, until it ends. QEMU waits for whoever
// reads from the socket, so nothing here may take long.
func (p *process) pump(log string) {
	defer p.line.Close()
	defer p.serial.Close()
	trimLog(log)
	buf := make([]byte, 16<<10)
	for since := 0; ; {
		n, err := p.serial.Read(buf)
		_, _ = p.line.Write(buf[:n]) // does not fail
		if since += n; since >= trimEvery {
			trimLog(log)
			since = 0
		}
		if err != nil {
			return
		}
	}
}

// measure measures the process: the processor since the last time, or since its start.
func (p *process) measure(ctx context.Context) (st compute.Stats, err error) {
	p.measuring.Lock()
	defer p.measuring.Unlock()
	first := p.meter == nil
	if first {
		if p.meter, err = psutil.NewProcessWithContext(ctx, int32(p.child.Pid)); err != nil {
			return st, err
		}
	}
	cpu, err := p.meter.PercentWithContext(ctx, 0)
	if first && err == nil {
		cpu, err = p.meter.CPUPercentWithContext(ctx)
	}
	if err != nil {
		return st, err
	}
	memory, err := p.meter.MemoryInfoWithContext(ctx)
	if err != nil {
		return st, err
	}
	began, err := p.meter.CreateTimeWithContext(ctx) // ms since 1970
	return compute.Stats{
		CPUPercent: max(0, cpu),
		MemoryUsed: memory.RSS,
		UptimeS:    uint64(max(0, time.Since(time.UnixMilli(began)).Seconds())),
	}, err
}

// console is one of the consoles of a process.
type console struct {
	*serial.Tap
	process *process
}

var errNotRead = errors.New("the guest does not read what is typed")

// Write types. It waits for the guest to read, for some time.
func (c *console) Write(keys []byte) (int, error) {
	p := c.process
	p.typing.Lock()
	defer p.typing.Unlock()
	if err := p.serial.SetWriteDeadline(time.Now().Add(typeTimeout)); err != nil {
		return 0, err
	}
	n, err := p.serial.Write(keys)
	if timeout := (net.Error)(nil); errors.As(err, &timeout) && timeout.Timeout() {
		return n, errNotRead
	}
	return n, err
}
