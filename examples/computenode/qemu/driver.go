package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
)

// Program is the program that runs a machine.
const Program = "qemu-system-x86_64"

// maxSocketPath is the longest path that a unix socket can have on Linux, in
// bytes.
const maxSocketPath = 107

// Config says how a driver works. Images and Dir must be given.
type Config struct {
	// Images is the directory of images, see the package's documentation.
	Images string
	// Dir is a directory for the files of the machines, one driver's alone. It is
	// made if it is not there. Sockets lie in it, so its path must be short.
	Dir string
	// Grace is how long a machine may take to shut down before it is ended; zero:
	// 5 s. A guest that ignores the power button makes each stop last that long.
	Grace time.Duration
	// MaxCPU is the most cores of one machine; zero: those of the host.
	MaxCPU uint64
	// MaxMemory is the most bytes that all machines which run have together; zero:
	// three quarters of the host's. QEMU takes some 100 MiB more for each.
	MaxMemory uint64
	// Log gets what no caller is told; nil: nothing is logged.
	Log *slog.Logger
}

// Driver runs machines as QEMU processes. It implements compute.Driver.
type Driver struct {
	cfg     Config
	program string
	lock    *os.File // of Config.Dir
	log     *slog.Logger

	mu       sync.Mutex // guards what follows
	machines map[string]*machine
	closed   bool
}

var _ compute.Driver = (*Driver)(nil)

// New returns a driver, with the machines that run in its directory since a
// crash.
func New(ctx context.Context, cfg Config) (*Driver, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	program, err := exec.LookPath(Program)
	if err != nil {
		return nil, fmt.Errorf("%w; install QEMU (on Debian: qemu-system-x86)", err)
	}
	lock, err := lockFile(filepath.Join(cfg.Dir, "lock"))
	if errors.Is(err, errLocked) {
		return nil, fmt.Errorf("another process runs its machines in %s; give another directory", cfg.Dir)
	} else if err != nil {
		return nil, err
	}
	d := &Driver{cfg: cfg, program: program, lock: lock, log: cfg.Log, machines: map[string]*machine{}}
	if err := d.findAll(ctx); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return d, nil
}

// complete checks the configuration and fills in what is left out.
func (c *Config) complete() (err error) {
	if info, err := os.Stat(c.Images); err != nil || !info.IsDir() {
		return fmt.Errorf("images: %q is not a directory that can be read", c.Images)
	}
	if c.Dir == "" {
		return errors.New("dir: is missing; give a directory for the files of the machines")
	}
	for _, path := range []*string{&c.Images, &c.Dir} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if longest := filepath.Join(c.Dir, "vm-0123456789abcdef", serialSocket); len(longest) > maxSocketPath {
		return fmt.Errorf("dir: the path has %d bytes, sockets in it allow %d", len(c.Dir), len(c.Dir)-(len(longest)-maxSocketPath))
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("dir: %w", err)
	}
	if c.Grace == 0 {
		c.Grace = 5 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c.completeLimits()
}

// findAll takes over what runs. A process that cannot be reached stays what it
// is; the call for its machine will say so.
func (d *Driver) findAll(ctx context.Context) error {
	entries, err := os.ReadDir(d.cfg.Dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.IsDir() || !validSID.MatchString(entry.Name()) {
			continue
		}
		m, err := d.machine(entry.Name())
		if err != nil {
			return err
		}
		if p, err := m.find(ctx); err != nil {
			d.log.Error("process of a machine cannot be taken over", "sid", m.sid, "err", err)
		} else if p != nil {
			d.log.Info("machine runs since before", "sid", m.sid, "pid", p.child.Pid)
		}
	}
	return nil
}

// validSID is what a machine's directory may be called.
var validSID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)

// machine returns the machine of that id, with a directory.
func (d *Driver) machine(sid string) (*machine, error) {
	if !validSID.MatchString(sid) {
		return nil, fmt.Errorf("sid %q cannot name a directory", sid)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.machines[sid]
	if m == nil {
		m = &machine{sid: sid, dir: filepath.Join(d.cfg.Dir, sid), log: d.log, gone: make(chan struct{})}
		if err := os.MkdirAll(m.dir, 0o700); err != nil {
			return nil, err
		}
		d.machines[sid] = m
	}
	return m, nil
}

// Keep ends the machines that are not among those named. Their files are left:
// if the wrong state file was given, their disks are still wanted.
func (d *Driver) Keep(_ context.Context, sids []string) error {
	var unknown []*machine
	d.mu.Lock()
	for sid, m := range d.machines {
		if !slices.Contains(sids, sid) {
			unknown = append(unknown, m)
			delete(d.machines, sid)
		}
	}
	d.mu.Unlock()
	for _, m := range unknown {
		d.log.Warn("nobody knows the machine of these files; it is ended, remove them if nobody misses them", "dir", m.dir)
	}
	return endAll(noStopTimeout(), unknown)
}

// Close ends all machines: it asks them to shut down, and ends those that have
// not when Config.Grace is over or ctx ends.
func (d *Driver) Close(ctx context.Context) error {
	d.mu.Lock()
	closed := d.closed
	d.closed = true
	machines := slices.Collect(maps.Values(d.machines))
	d.mu.Unlock()
	if closed {
		return nil
	}
	stopTimeout, cancel := context.WithTimeout(ctx, d.cfg.Grace)
	defer cancel()
	return errors.Join(endAll(stopTimeout, machines), d.lock.Close())
}

func endAll(stopTimeout context.Context, machines []*machine) error {
	errs := make([]error, len(machines))
	var wg sync.WaitGroup
	for i, m := range machines {
		wg.Go(func() { errs[i] = m.end(stopTimeout) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Start boots a machine, or lets one go on that is paused. There is no network,
// so the address is empty.
func (d *Driver) Start(ctx context.Context, vm compute.VM) (ip string, err error) {
	m, err := d.machine(vm.SID)
	if err != nil {
		return "", err
	}
	m.op.Lock()
	defer m.op.Unlock()
	if p, err := m.find(ctx); err != nil {
		return "", err
	} else if p != nil {
		return "", p.goOn(ctx)
	}
	img, err := imageOf(d.cfg.Images, vm.Image)
	if err != nil {
		return "", err
	}
	if err := d.reserve(m, vm); err != nil {
		return "", err
	}
	err = m.boot(ctx, d.program, vm, img)
	if err != nil {
		m.reserved.Store(0)
	}
	return "", err
}

// Stop presses the power button, and pulls the plug after Config.Grace. It goes
// on when ctx ends, for a machine that is half stopped is no use.
func (d *Driver) Stop(ctx context.Context, sid string) error {
	m, err := d.machine(sid)
	if err != nil {
		return err
	}
	stopTimeout, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.cfg.Grace)
	defer cancel()
	return m.end(stopTimeout)
}

// Delete ends a machine at once and removes its files.
func (d *Driver) Delete(_ context.Context, sid string) error {
	m, err := d.machine(sid)
	if err != nil {
		return err
	}
	if err := m.end(noStopTimeout()); err != nil {
		return err
	}
	d.mu.Lock()
	delete(d.machines, sid)
	d.mu.Unlock()
	close(m.gone)
	return os.RemoveAll(m.dir)
}

// noStopTimeout is a stop timeout that has ended.
func noStopTimeout() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

// process returns the process of a machine, or nil.
func (d *Driver) process(sid string) *process {
	d.mu.Lock()
	m := d.machines[sid]
	d.mu.Unlock()
	if m == nil {
		return nil
	}
	return m.process()
}

// Running reports whether the machine's process lives and is not paused.
func (d *Driver) Running(sid string) bool {
	p := d.process(sid)
	return p != nil && !p.paused.Load()
}

// Stats measures the machine's process: the processor since the last measurement,
// or since its start.
func (d *Driver) Stats(ctx context.Context, sid string) (compute.Stats, error) {
	p := d.process(sid)
	if p == nil {
		return compute.Stats{}, nil
	}
	st, err := p.measure(ctx)
	if isClosed(p.ended) {
		return compute.Stats{}, nil
	}
	return st, err
}

// Exec is not offered.
func (d *Driver) Exec(_ context.Context, sid string, _ []string) (compute.ExecResult, error) {
	return compute.ExecResult{}, compute.NotOffered(sid, "no agent in the guest could run a command",
		"type it on the console: GET /vms/{sid}/console")
}

// Console attaches to the first serial line.
func (d *Driver) Console(_ context.Context, sid string) (io.ReadWriteCloser, error) {
	p := d.process(sid)
	if p == nil {
		return nil, fmt.Errorf("machine %s does not run", sid)
	}
	return &console{Tap: p.line.Tap(), process: p}, nil
}
