package compute

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/serial"
)

// memoryLogLines bounds the log of one played machine.
const memoryLogLines = 200

// memoryDriver plays machines: it keeps books on which run, and answers a
// handful of commands by itself.
type memoryDriver struct {
	mu       sync.Mutex
	machines map[string]*memoryMachine
	nextIP   uint32
	closed   bool
}

type memoryMachine struct {
	vm      VM
	ip      string
	started time.Time    // zero: does not run
	line    *serial.Line // of the console; nil: does not run
	typed   []byte       // on the console, since the last Enter

	log     []string
	dropped int           // lines before log
	more    chan struct{} // closed when there are more lines, or gone is set
	gone    bool          // deleted
}

// NewMemoryDriver returns a driver that plays its machines in memory. Nothing is
// run on the host, whatever Exec is asked for.
func NewMemoryDriver() Driver {
	return &memoryDriver{machines: map[string]*memoryMachine{}}
}

// Keep has nothing to end: played machines do not outlive their service.
func (d *memoryDriver) Keep(context.Context, []string) error { return nil }

func (d *memoryDriver) Close(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, m := range d.machines {
		m.stop()
	}
	return nil
}

func (d *memoryDriver) Start(_ context.Context, vm VM) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return "", errors.New("the service is ending")
	}
	m := d.machines[vm.SID]
	if m == nil {
		m = &memoryMachine{ip: d.freeIP(vm.IP), more: make(chan struct{})}
		d.machines[vm.SID] = m
	}
	m.vm = vm
	if m.started.IsZero() {
		m.started, m.line, m.typed = time.Now(), new(serial.Line), nil
		m.logf("booted %s with %d cores and %d MiB", vm.Image, vm.CPU, vm.Memory>>20)
	}
	return m.ip, nil
}

// freeIP returns the wanted address if no machine has it, else the next free one
// of 10.64.0.0/10.
func (d *memoryDriver) freeIP(want string) string {
	taken := make(map[string]bool, len(d.machines))
	for _, m := range d.machines {
		taken[m.ip] = true
	}
	for want == "" || taken[want] {
		d.nextIP = d.nextIP%(1<<22-2) + 1
		n := d.nextIP
		want = fmt.Sprintf("10.%d.%d.%d", 64+n>>16, n>>8&0xff, n&0xff)
	}
	return want
}

func (d *memoryDriver) Stop(_ context.Context, sid string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if m := d.machines[sid]; m != nil {
		m.stop()
	}
	return nil
}

func (d *memoryDriver) Delete(_ context.Context, sid string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if m := d.machines[sid]; m != nil {
		m.stop()
		m.gone = true
		close(m.more)
		delete(d.machines, sid)
	}
	return nil
}

func (d *memoryDriver) Running(sid string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.machines[sid]
	return m != nil && !m.started.IsZero()
}

func (d *memoryDriver) Stats(_ context.Context, sid string) (Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.machines[sid]
	if m == nil || m.started.IsZero() {
		return Stats{}, nil
	}
	return Stats{
		MemoryUsed: m.vm.Memory / 8,
		UptimeS:    uint64(time.Since(m.started) / time.Second),
	}, nil
}

func (d *memoryDriver) Logs(_ context.Context, sid string, lines int) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.machines[sid]
	if m == nil {
		return []string{}, nil
	}
	return append([]string{}, m.log[max(0, len(m.log)-lines):]...), nil
}

func (d *memoryDriver) Exec(_ context.Context, sid string, command []string) (ExecResult, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.machines[sid]
	if m == nil || m.started.IsZero() {
		return ExecResult{}, fmt.Errorf("machine %s does not run", sid)
	}
	return m.exec(command), nil
}

// What follows is called with the driver's lock held.

func (m *memoryMachine) stop() {
	if m.started.IsZero() {
		return
	}
	m.started = time.Time{}
	m.line.Close()
	m.line = nil
	m.logf("shut down")
}

func (m *memoryMachine) exec(command []string) ExecResult {
	m.logf("exec %q", command[0])
	switch command[0] {
	case "true":
		return ExecResult{}
	case "false":
		return ExecResult{ExitCode: 1}
	case "echo":
		return ExecResult{Stdout: strings.Join(command[1:], " ") + "\n"}
	case "hostname":
		return ExecResult{Stdout: m.vm.Name + "\n"}
	default: // as a shell says it
		return ExecResult{ExitCode: 127, Stderr: command[0] + ": command not found\n"}
	}
}

func (m *memoryMachine) logf(format string, args ...any) {
	if len(m.log) == memoryLogLines {
		m.log = append(m.log[:0], m.log[1:]...)
		m.dropped++
	}
	m.log = append(m.log, time.Now().UTC().Format(time.RFC3339)+" "+fmt.Sprintf(format, args...))
	close(m.more)
	m.more = make(chan struct{})
}
