package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
)

// The files in a machine's directory.
const (
	lockName      = "lock" // held by the QEMU process
	pidFile       = "pid"
	monitorSocket = "qmp.sock"
	serialSocket  = "serial.sock"
	serialLog     = "serial.log" // what the machine wrote
	qemuLog       = "qemu.log"   // what QEMU said when it was started last
	overlay       = "disk.qcow2"
)

// bootTimeout is how long QEMU may take until it answers, on a host with much
// else to do.
const bootTimeout = 30 * time.Second

// takeOverTimeout is the same for one that has run for a while.
const takeOverTimeout = 5 * time.Second

// machine is a VM as this package knows it. Lock order: op, then Driver.mu, then
// mu.
type machine struct {
	sid, dir string
	log      *slog.Logger
	reserved atomic.Uint64 // bytes of memory while it runs
	gone     chan struct{} // closed when it is deleted

	op sync.Mutex // held while it is started or ended

	mu   sync.Mutex
	last *process // nil: none yet
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// process returns the process that is known to run, or nil.
func (m *machine) process() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil || m.last.hasEnded() {
		return nil
	}
	return m.last
}

// set makes p the machine's process, until it ends.
func (m *machine) set(p *process) {
	m.mu.Lock()
	m.last = p
	m.mu.Unlock()
}

// find returns the process that runs, taking it over if it was started before
// this service, or nil. Called with op locked.
func (m *machine) find(ctx context.Context) (*process, error) {
	if p := m.process(); p != nil {
		return p, nil
	}
	lock, err := lockFile(m.path(lockName))
	if err == nil {
		return nil, lock.Close()
	}
	if !errors.Is(err, errLocked) {
		return nil, err
	}
	return m.takeOver(ctx)
}

// takeOver connects to a process that was started by another service. One that
// does not answer is ended: nobody could ever control it.
func (m *machine) takeOver(ctx context.Context) (*process, error) {
	ctx, cancel := context.WithTimeout(ctx, takeOverTimeout)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		m.waitForLock()
		close(ended)
	}()
	p := &process{ended: ended, kill: m.killByPID}
	err := p.connectTo(ctx, m)
	if err == nil {
		p.pid, err = m.readPID()
	}
	var size struct {
		Base uint64 `json:"base-memory"`
	}
	if err == nil {
		err = p.monitor.execute(ctx, "query-memory-size-summary", &size)
	}
	if err == nil {
		m.reserved.Store(size.Base)
		m.run(p)
		return p, nil
	}
	if killed := p.pull(); killed != nil {
		return nil, errors.Join(fmt.Errorf("a process that has %s cannot be reached: %w", m.path(lockName), err), killed)
	}
	m.log.Warn("process of a machine did not answer and was ended", "sid", m.sid, "err", err)
	return nil, nil
}

// waitForLock returns when no process of the machine lives.
func (m *machine) waitForLock() {
	f, err := os.OpenFile(m.path(lockName), os.O_RDWR, 0)
	if err != nil {
		return // deleted, so it is over
	}
	defer f.Close()
	for errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_EX), syscall.EINTR) {
	}
}

func (m *machine) readPID() (int, error) {
	text, err := os.ReadFile(m.path(pidFile))
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil || pid <= 1 {
		return 0, fmt.Errorf("%s holds %q", m.path(pidFile), text)
	}
	return pid, nil
}

// killByPID kills a process that is no child of this one.
func (m *machine) killByPID() error {
	pid, err := m.readPID()
	if err != nil {
		return err
	}
	// Once p is held its id is not given to another, and if the lock is still taken
	// then, p is the machine's.
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer func() { _ = p.Release() }()
	if lock, err := lockFile(m.path(lockName)); err == nil {
		return lock.Close()
	}
	return p.Kill()
}

// boot starts QEMU. Called with op locked, when no process runs.
func (m *machine) boot(ctx context.Context, program string, vm compute.VM, img image) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	lock, err := lockFile(m.path(lockName))
	if err != nil {
		return fmt.Errorf("machine %s: %w", m.sid, err)
	}
	defer lock.Close() // the child has it by then
	for _, stale := range []string{pidFile, monitorSocket, serialSocket} {
		if err := os.RemoveAll(m.path(stale)); err != nil {
			return err
		}
	}
	if img.disk != "" {
		if err := m.makeOverlay(ctx, img); err != nil {
			return err
		}
	}
	// QEMU is given sockets that listen, so there is no moment in which it runs and
	// cannot be reached.
	inherited := []*os.File{lock}
	for _, name := range []string{monitorSocket, serialSocket} {
		f, err := listenFile(m.path(name))
		if err != nil {
			return err
		}
		defer f.Close()
		inherited = append(inherited, f)
	}
	said, err := os.Create(m.path(qemuLog))
	if err != nil {
		return err
	}
	defer said.Close()

	cmd := exec.Command(program, arguments(vm, img)...)
	cmd.Dir, cmd.Env = m.dir, []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.ExtraFiles = inherited
	// A group of its own, so that Ctrl-C leaves its end to this process.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(ended)
	}()
	for _, f := range inherited { // so that connections break when QEMU ends
		f.Close()
	}
	p := &process{pid: cmd.Process.Pid, ended: ended, kill: cmd.Process.Kill}
	if err := p.connectTo(ctx, m); err != nil {
		err = errors.Join(err, p.pull())
		if text, _ := os.ReadFile(m.path(qemuLog)); len(bytes.TrimSpace(text)) > 0 {
			return fmt.Errorf("QEMU: %s (%w)", bytes.TrimSpace(text[:min(len(text), 1000)]), err)
		}
		return err
	}
	m.run(p)
	return nil
}

// listenFile returns a unix socket that listens, for a child.
func listenFile(path string) (*os.File, error) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	return l.File()
}

// run makes p the machine's process and serves its serial line until it ends.
func (m *machine) run(p *process) {
	m.set(p)
	go func() {
		p.pump(m.path(serialLog))
		<-p.ended
		p.monitor.conn.Close()
		m.op.Lock() // so that the next one's reservation is not dropped
		defer m.op.Unlock()
		if m.process() == nil {
			m.reserved.Store(0)
		}
	}()
}

// end ends the process, if one runs: it is asked to, and then forced to when
// patience ends.
func (m *machine) end(stopTimeout context.Context) error {
	m.op.Lock()
	defer m.op.Unlock()
	p, err := m.find(context.WithoutCancel(stopTimeout))
	if err != nil || p == nil {
		return err
	}
	if err := p.end(stopTimeout); err != nil {
		return err
	}
	m.reserved.Store(0)
	return nil
}

// makeOverlay makes the layer that the machine writes to, if it is not there.
func (m *machine) makeOverlay(ctx context.Context, img image) error {
	if isFile(m.path(overlay)) {
		return nil
	}
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		return fmt.Errorf("disk images need qemu-img (on Debian: qemu-utils): %w", err)
	}
	half := m.path(overlay + ".new")
	out, err := exec.CommandContext(ctx, tool, "create", "-q", "-f", "qcow2", "-b", img.disk, "-F", img.format, half).CombinedOutput()
	if err != nil {
		return fmt.Errorf("qemu-img: %s (%w)", bytes.TrimSpace(out), err)
	}
	return os.Rename(half, m.path(overlay))
}
