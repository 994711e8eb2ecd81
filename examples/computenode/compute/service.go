package compute

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// MaxVMs is how many VMs one service takes: as many as one node may report.
const MaxVMs = 1000

// Config says how a service works. The zero Config is a service in memory.
type Config struct {
	// Driver runs the machines; nil: NewMemoryDriver(). The service owns it from
	// when New succeeds.
	Driver Driver
	// StatePath is the file that keeps the VMs over a restart; empty: none does.
	// The directory must exist. One service at a time may use a file.
	StatePath string
	// Log gets what no caller is told; nil: nothing is logged.
	Log *slog.Logger
}

// Service keeps the VMs of one node.
type Service struct {
	driver  Driver
	file    *stateFile // nil: nothing is kept
	log     *slog.Logger
	calls   callCounts
	streams streams

	mu  sync.RWMutex // guards vms and the fields of its entries; never held while the driver works
	vms map[string]*entry
}

// entry is a VM and what serialises the calls for it. Lock order: op, then
// Service.mu.
type entry struct {
	op   sync.Mutex
	vm   VM // State is what was asked for: Running or Stopped
	lock lock
}

// New returns a service with the VMs of the state file, if there is one. Those
// that ran are started again; one that cannot be started is logged and shows as
// stopped.
func New(cfg Config) (*Service, error) {
	s := &Service{driver: cfg.Driver, log: cfg.Log, vms: map[string]*entry{}}
	if s.driver == nil {
		s.driver = NewMemoryDriver()
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var saved []savedVM
	if cfg.StatePath != "" {
		s.file = &stateFile{path: cfg.StatePath}
		var err error
		if saved, err = s.file.load(); err != nil {
			return nil, fmt.Errorf("read the state file: %w", err)
		}
	}
	ctx := context.Background()
	sids := make([]string, 0, len(saved))
	for _, v := range saved {
		sids = append(sids, v.SID)
	}
	if err := s.driver.Keep(ctx, sids); err != nil {
		return nil, fmt.Errorf("end machines that nobody knows: %w", err)
	}
	for _, v := range saved {
		e := &entry{vm: v.VM, lock: v.Lock}
		s.vms[v.SID] = e
		if err := s.resume(ctx, e); err != nil {
			s.log.Error("VM could not be brought back to its state", "sid", v.SID, "name", v.Name, "state", v.State, "err", err)
			e.vm.State = Stopped
		}
	}
	return s, nil
}

// resume makes the machine what the state file says of it. It may run although
// it should not, after a crash between the one and the other.
func (s *Service) resume(ctx context.Context, e *entry) (err error) {
	if e.vm.State != Running {
		return s.driver.Stop(ctx, e.vm.SID)
	}
	e.vm.IP, err = s.driver.Start(ctx, e.vm)
	return err
}

// Close ends the streams and all machines, the more abruptly the sooner ctx
// ends. Those that ran are started again by the next service on the state file.
// The service must get no more calls.
func (s *Service) Close(ctx context.Context) error {
	s.EndStreams()
	err := s.driver.Close(ctx)
	s.streams.wait(ctx)
	return err
}

// Deployment is what deploy_vm asks for.
type Deployment struct {
	Name     string
	Image    string
	CPU      uint64 // virtual cores
	Memory   uint64 // bytes
	SliceSID string // kept as it is
	Secret   string // empty protects nothing
}

// Deploy makes a VM and starts it.
func (s *Service) Deploy(ctx context.Context, d Deployment) (VM, error) {
	e := &entry{vm: VM{
		Summary:  Summary{SID: newSID(), Name: d.Name, State: Starting, CPU: d.CPU, Memory: d.Memory},
		Image:    d.Image,
		SliceSID: d.SliceSID, CreatedAt: time.Now().UTC().Truncate(time.Second),
	}}
	sid := e.vm.SID
	e.lock = newLock(sid, d.Secret)
	e.op.Lock()
	defer e.op.Unlock()

	s.mu.Lock()
	if len(s.vms) >= MaxVMs {
		s.mu.Unlock()
		return VM{}, NoRoom(fmt.Sprintf("the node has its most of %d VMs", MaxVMs))
	}
	s.vms[sid] = e
	s.mu.Unlock()

	ip, err := s.driver.Start(ctx, e.vm)
	if err != nil {
		err = errDriver(sid, errors.Join(err, s.driver.Delete(context.WithoutCancel(ctx), sid)))
		s.mu.Lock()
		delete(s.vms, sid)
		s.mu.Unlock()
		return VM{}, err
	}
	return s.set(e, Running, ip)
}

// Start boots a VM. One that runs already is left as it is.
func (s *Service) Start(ctx context.Context, sid, secret string) (VM, error) {
	e, vm, err := s.lockVM(sid, secret)
	if err != nil {
		return VM{}, err
	}
	defer e.op.Unlock()
	ip, err := s.driver.Start(ctx, vm)
	if err != nil {
		return VM{}, errDriver(sid, err)
	}
	return s.set(e, Running, ip)
}

// Stop shuts a VM down. One that does not run is left as it is.
func (s *Service) Stop(ctx context.Context, sid, secret string) (VM, error) {
	e, vm, err := s.lockVM(sid, secret)
	if err != nil {
		return VM{}, err
	}
	defer e.op.Unlock()
	if err := s.driver.Stop(ctx, sid); err != nil {
		return VM{}, errDriver(sid, err)
	}
	return s.set(e, Stopped, vm.IP)
}

// Restart shuts a VM down if it runs, and boots it.
func (s *Service) Restart(ctx context.Context, sid, secret string) (VM, error) {
	e, vm, err := s.lockVM(sid, secret)
	if err != nil {
		return VM{}, err
	}
	defer e.op.Unlock()
	if err := s.driver.Stop(ctx, sid); err != nil {
		return VM{}, errDriver(sid, err)
	}
	ip, err := s.driver.Start(ctx, vm)
	if err != nil {
		_, saveErr := s.set(e, Stopped, vm.IP)
		return VM{}, errDriver(sid, errors.Join(err, saveErr))
	}
	return s.set(e, Running, ip)
}

// Delete stops a VM and drops all that belongs to it. The answer is the VM as it
// was, with State Deleted.
func (s *Service) Delete(ctx context.Context, sid, secret string) (VM, error) {
	e, vm, err := s.lockVM(sid, secret)
	if err != nil {
		return VM{}, err
	}
	defer e.op.Unlock()
	if err := s.driver.Delete(ctx, sid); err != nil {
		return VM{}, errDriver(sid, err)
	}
	s.mu.Lock()
	delete(s.vms, sid)
	s.mu.Unlock()
	vm.State = Deleted
	return vm, s.save(sid)
}

// Get returns a VM.
func (s *Service) Get(sid, secret string) (VM, error) {
	_, vm, err := s.find(sid, secret)
	return vm, err
}

// List returns the VMs in the order of their sids: all of them where secret is
// empty, else those that it opens.
func (s *Service) List(secret string) []Summary {
	s.mu.RLock()
	out := make([]Summary, 0, len(s.vms))
	for sid, e := range s.vms {
		if secret == "" || e.lock.opens(sid, secret) {
			out = append(out, e.vm.Summary)
		}
	}
	s.mu.RUnlock()
	for i := range out {
		out[i].State = s.stateNow(out[i])
	}
	slices.SortFunc(out, func(a, b Summary) int { return strings.Compare(a.SID, b.SID) })
	return out
}

// Stats measures a VM.
func (s *Service) Stats(ctx context.Context, sid, secret string) (VM, Stats, error) {
	e, vm, err := s.lockVM(sid, secret)
	if err != nil {
		return VM{}, Stats{}, err
	}
	defer e.op.Unlock()
	st, err := s.driver.Stats(ctx, sid)
	if err != nil {
		return VM{}, Stats{}, errDriver(sid, err)
	}
	return vm, st, nil
}

// Logs returns the last lines of a VM's log, oldest first.
func (s *Service) Logs(ctx context.Context, sid, secret string, lines int) ([]string, error) {
	e, _, err := s.lockVM(sid, secret)
	if err != nil {
		return nil, err
	}
	defer e.op.Unlock()
	log, err := s.driver.Logs(ctx, sid, lines)
	if err != nil {
		return nil, errDriver(sid, err)
	}
	return log, nil
}

// Exec runs a command inside a VM, never on the host.
func (s *Service) Exec(ctx context.Context, sid, secret string, command []string) (ExecResult, error) {
	e, vm, err := s.lockVM(sid, secret)
	if err != nil {
		return ExecResult{}, err
	}
	defer e.op.Unlock()
	if vm.State != Running {
		return ExecResult{}, errNotRunning(vm)
	}
	res, err := s.driver.Exec(ctx, sid, command)
	if err != nil {
		return ExecResult{}, errDriver(sid, err)
	}
	return res, nil
}

// find returns the VM that the secret opens.
func (s *Service) find(sid, secret string) (*entry, VM, error) {
	s.mu.RLock()
	e, ok := s.vms[sid]
	var vm VM
	ok = ok && e.lock.opens(sid, secret)
	if ok {
		vm = e.vm
	}
	s.mu.RUnlock()
	if !ok {
		return nil, VM{}, errNotFound(sid)
	}
	vm.State = s.stateNow(vm.Summary)
	return e, vm, nil
}

// lockVM returns the VM with its op locked, once the calls before it are
// through.
func (s *Service) lockVM(sid, secret string) (*entry, VM, error) {
	e, _, err := s.find(sid, secret)
	if err != nil {
		return nil, VM{}, err
	}
	e.op.Lock()
	_, vm, err := s.find(sid, secret) // it may be another, or gone, by now
	if err != nil {
		e.op.Unlock()
		return nil, VM{}, err
	}
	return e, vm, nil
}

// stateNow is the state that a VM is in: one that should run may have ended.
func (s *Service) stateNow(vm Summary) State {
	if vm.State == Running && !s.driver.Running(vm.SID) {
		return Stopped
	}
	return vm.State
}

// set records what a call did and saves it. Called with e.op locked.
func (s *Service) set(e *entry, state State, ip string) (VM, error) {
	s.mu.Lock()
	e.vm.State, e.vm.IP = state, ip
	vm := e.vm
	s.mu.Unlock()
	return vm, s.save(vm.SID)
}

func (s *Service) save(sid string) error {
	if s.file == nil {
		return nil
	}
	if err := s.file.save(s.snapshot); err != nil {
		s.log.Error("state file could not be written", "path", s.file.path, "err", err)
		return errNotSaved(sid, err)
	}
	return nil
}

// snapshot returns the VMs as the state file keeps them. One that is just being
// deployed is left out: nobody has been told that it exists.
func (s *Service) snapshot() []savedVM {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]savedVM, 0, len(s.vms))
	for _, e := range s.vms {
		if e.vm.State != Starting {
			out = append(out, savedVM{VM: e.vm, Lock: e.lock})
		}
	}
	slices.SortFunc(out, func(a, b savedVM) int { return strings.Compare(a.SID, b.SID) })
	return out
}
