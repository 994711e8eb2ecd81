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

const (
	// bootTimeout is how long QEMU may take until it answers, on a host with much
	// else to do.
	bootTimeout = 30 * time.Second
	// takeOverTimeout is the same for one that has run for a while.
	takeOverTimeout = 5 * time.Second
)

// machine is a VM as this package knows it. Lock order: op, then Driver.mu, then
// mu.
type machine struct {
	sid, dir string
	log      *slog.Logger
	reserved atomic.Uint64 // bytes of memory while it runs
	gone     chan struct{} // closed when it is deleted

	op sync.Mutex // held while it is started or ended

	mu   sync.Mutex // guards last
	last *process   // nil: none yet
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

// process returns the process that is known to run, or nil.
func (m *machine) process() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil || isClosed(m.last.ended) {
		return nil
	}
	return m.last
}

// find returns the process that runs, taking it over if it was started before
// this service, or nil. One that does not answer is ended: nobody could ever control
// it. Called with op locked.
func (m *machine) find(ctx context.Context) (*process, error) {
	if p := m.process(); p != nil {
		return p, nil
	}
	ctx, cancel := context.WithTimeout(ctx, takeOverTimeout)
	defer cancel()
	child, err := m.holder()
	if err != nil || child == nil {
		return nil, err
	}
	p, err := m.attach(ctx, child)
	if err != nil && isClosed(p.ended) {
		m.log.Warn("process of a machine did not answer and was ended", "sid", m.sid, "err", err)
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("a process that has %s cannot be reached: %w", m.path(lockName), err)
	}
	return p, nil
}

// holder returns the process that has the lock, or nil. While it is held, its id is not
// given to another.
func (m *machine) holder() (child *os.Process, err error) {
	for {
		lock, err := lockFile(m.path(lockName))
		if err == nil {
			return nil, lock.Close()
		} else if !errors.Is(err, errLocked) {
			return nil, err
		}
		if child != nil {
			return child, nil // the lock was still taken when it was held
		}
		text, err := os.ReadFile(m.path(pidFile))
		if err != nil {
			return nil, err
		}
		pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
		if err != nil || pid <= 1 {
			return nil, fmt.Errorf("%s holds %q", m.path(pidFile), text)
		}
		if child, err = os.FindProcess(pid); err != nil {
			return nil, err
		}
	}
}

// attach connects to the process that has the lock, makes it the machine's, and serves
// its serial line until it ends. It ends one that does not answer.
func (m *machine) attach(ctx context.Context, child *os.Process) (*process, error) {
	ended := make(chan struct{})
	p := &process{child: child, ended: ended}
	go func() {
		defer close(ended)
		m.waitForLock()
		_, _ = child.Wait() // it fails for one that another service has started
	}()
	err := p.connectTo(ctx, m)
	var size struct {
		Base uint64 `json:"base-memory"`
	}
	if err == nil {
		err = p.monitor.execute(ctx, "query-memory-size-summary", &size)
	}
	if err != nil {
		return p, errors.Join(err, p.pull())
	}
	m.reserved.Store(size.Base)
	m.mu.Lock()
	m.last = p
	m.mu.Unlock()
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
	return p, nil
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

// boot starts QEMU. Called with op locked, when no process runs.
func (m *machine) boot(ctx context.Context, program string, vm compute.VM, img image) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	child, err := m.spawn(ctx, program, vm, img)
	if err != nil {
		return fmt.Errorf("machine %s: %w", m.sid, err)
	}
	_, err = m.attach(ctx, child)
	if text, _ := os.ReadFile(m.path(qemuLog)); err != nil && len(bytes.TrimSpace(text)) > 0 {
		return fmt.Errorf("QEMU: %s (%w)", bytes.TrimSpace(text[:min(len(text), 1000)]), err)
	}
	return err
}

// spawn starts a process that has the lock and the sockets of the machine.
func (m *machine) spawn(ctx context.Context, program string, vm compute.VM, img image) (child *os.Process, err error) {
	if img.disk != "" {
		if err := m.makeOverlay(ctx, img); err != nil {
			return nil, err
		}
	}
	var inherited []*os.File
	defer func() { // the child has them; connections to it break when it ends
		for _, f := range inherited {
			f.Close()
		}
	}()
	inherit := func(f *os.File, err error) error {
		if err == nil {
			inherited = append(inherited, f)
		}
		return err
	}
	if err := inherit(lockFile(m.path(lockName))); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(m.path(pidFile)); err != nil {
		return nil, err
	}
	// QEMU is given sockets that listen, so there is no moment in which it runs and
	// cannot be reached.
	for _, name := range []string{monitorSocket, serialSocket} {
		if err := inherit(listenFile(m.path(name))); err != nil {
			return nil, err
		}
	}
	said, err := os.Create(m.path(qemuLog))
	if err != nil {
		return nil, err
	}
	defer said.Close()
	cmd := exec.Command(program, arguments(vm, img)...)
	cmd.Dir, cmd.Env = m.dir, []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.ExtraFiles = inherited
	// A group of its own, so that Ctrl-C leaves its end to this process.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd.Process, nil
}

// listenFile returns a unix socket that listens, for a child.
func listenFile(path string) (*os.File, error) {
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
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

// end ends the process, if one runs: it is asked to, and then forced to when
// stopTimeout ends.
func (m *machine) end(stopTimeout context.Context) error {
	m.op.Lock()
	defer m.op.Unlock()
	p, err := m.find(context.WithoutCancel(stopTimeout))
	if err == nil && p != nil {
		err = p.end(stopTimeout)
	}
	if err == nil {
		m.reserved.Store(0)
	}
	return err
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

var errLocked = errors.New("another process has the lock")

// lockFile opens a file and locks it against other processes, and other calls.
// The lock lasts until every process that has inherited the file has closed it.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errLocked
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
