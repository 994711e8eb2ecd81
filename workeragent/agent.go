package workeragent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/dirlock"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent/internal/host"
)

const (
	// firstLook is how long the first account waits for the machine's figures
	// and for the VMs. What is slower makes a second account.
	firstLook = 3 * time.Second

	// stopWithin bounds Stop. Only a disk that hangs takes longer, and nothing
	// is lost by not waiting for it.
	stopWithin = 1500 * time.Millisecond
)

// Agent reports one machine to its explorers. Its methods may be called
// concurrently.
type Agent struct {
	cfg  Config
	log  *slog.Logger
	deps deps

	mu      sync.Mutex // guards the steps of the life: new, started, stopped
	started bool
	undo    []func() error // what Stop does, last first
	running atomic.Pointer[running]
	token   atomic.Pointer[string] // for masters that ask for one; see Reload
}

// running is what an agent has from Start on.
type running struct {
	keyID     string
	startedAt time.Time
	node      *node
	watcher   *watcher // nil: no compute service
	dir       *membership
	tunnels   *tunnels // nil: calls do not come by the agent
	// carriedOut has a token when an operation was carried out since the VMs were last
	// looked at.
	carriedOut chan struct{}
}

// deps is what tests put their own in place of.
type deps struct {
	dial   func(client.Endpoint, client.Options) caller
	edges  edgeDialer // nil: those of the tunnels
	sample func(context.Context) (host.Figures, error)
	// spread chooses when within a time something first happens. nil: at random.
	spread  func(within time.Duration) time.Duration
	serve   bool // the status socket
	ingress bool // calls for the compute service come by the agent
}

// New makes an agent and checks its configuration; a value that cannot be used
// is a [record.FieldError]. It touches nothing before Start. A nil logger
// discards.
func New(cfg Config, log *slog.Logger) (*Agent, error) {
	return newAgent(cfg, log, deps{
		dial:    func(ep client.Endpoint, o client.Options) caller { return client.Dial(ep, o) },
		sample:  host.New().Sample,
		serve:   true,
		ingress: true,
	})
}

func newAgent(cfg Config, log *slog.Logger, d deps) (*Agent, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	if d.spread == nil {
		d.spread = rand.N[time.Duration]
	}
	a := &Agent{cfg: cfg, log: log, deps: d}
	a.token.Store(&cfg.Token)
	return a, nil
}

// Run runs an agent until ctx ends, which is no error. A nil ctx never ends.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	a, err := New(cfg, log)
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

// Run starts the agent, and stops it when ctx ends, which is no error.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.Start(); err != nil {
		return err
	}
	if ctx == nil {
		ctx = context.Background()
	}
	<-ctx.Done()
	return a.Stop()
}

// Reload takes over from a configuration what can change while the agent runs, which is
// the token. Nothing else in it is looked at. Whether there is a token at all cannot change.
func (a *Agent) Reload(cfg Config) error {
	cfg, err := cfg.resolve()
	if err != nil {
		return err
	}
	if (cfg.Token == "") != (a.cfg.Token == "") {
		return configErrorf("token-file", "that there is a token, or none, can only change with a restart")
	}
	if old := a.token.Swap(&cfg.Token); *old == cfg.Token {
		return nil
	}
	if r := a.running.Load(); r != nil {
		r.dir.tryAgain() // masters that refused the token before
	}
	return nil
}

// KeyFile is where an agent with that data directory keeps its key.
func KeyFile(dataDir string) string { return filepath.Join(dataDir, "key.pem") }

// Start takes the data directory and begins to report. It can be called once.
func (a *Agent) Start() (err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.started {
		return errors.New("workeragent: already started")
	}
	a.started = true
	defer func() {
		if err != nil {
			err = fmt.Errorf("start agent: %w", errors.Join(err, a.unwind()))
		}
	}()

	dir := a.cfg.DataDir
	if err := atomicfile.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := dirlock.Take(dir)
	if errors.Is(err, dirlock.ErrInUse) {
		return fmt.Errorf("data directory %s: %w by another agent; stop it, or give this one another --data-dir", dir, err)
	}
	if err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	a.undo = append(a.undo, lock.Close)
	_, err = os.Stat(KeyFile(dir))
	newborn := errors.Is(err, fs.ErrNotExist)
	id, err := identity.Load(KeyFile(dir))
	if err != nil {
		return err
	}
	boot, warning := bootAnyway(dir, time.Now().UnixMilli())
	if warning != nil {
		a.log.Warn("boot number lost", "error", warning)
	}

	r := &running{keyID: id.ID(), startedAt: time.Now(), carriedOut: make(chan struct{}, 1)}
	nodeID := a.cfg.NodeID
	if nodeID == "" {
		nodeID = r.keyID
	}
	r.node = newNode(nodeID, id.PrivateKey(), boot, record.Profile{
		SocketPath: a.cfg.AdvertiseCompute,
		Version:    a.cfg.Version,
		Location:   a.cfg.Location,
		Labels:     a.cfg.Labels,
		MachineID:  identity.Machine(),
	})
	r.node.next = func() uint64 {
		boot, _ := bootAnyway(dir, time.Now().UnixMilli())
		return boot
	}
	r.node.setTrouble(aboutDisk, diskTrouble(dir, probe(dir)))
	if a.deps.ingress {
		if r.node.profile.AgentPath, err = a.openIngress(r, id, newborn); err != nil {
			return err
		}
	}
	if err := a.connect(r); err != nil {
		return err
	}
	a.running.Store(r)
	if a.deps.serve {
		if stop, err := serveStatus(socketFile(dir), a.Status); err != nil {
			a.log.Warn("no status socket; the status command will not work", "error", err)
		} else {
			a.undo = append(a.undo, stop)
		}
	}
	a.launch(r)
	a.log.Info("agent started", "node", nodeID, "boot", boot, "explorers", len(r.dir.endpoints), "data", dir)
	return nil
}

// launch starts the goroutines; Stop ends them.
func (a *Agent) launch(r *running) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	var looks sync.WaitGroup // first looks at the machine and at the VMs

	looks.Add(1)
	all.Go(func() { a.watchMachine(ctx, r.node, sync.OnceFunc(looks.Done)) })
	if r.watcher != nil {
		looks.Add(1)
		all.Go(func() { r.watcher.run(ctx, sync.OnceFunc(looks.Done)) })
	}
	looked := make(chan struct{})
	all.Go(func() {
		looks.Wait()
		close(looked)
	})
	all.Go(func() {
		pause(ctx, firstLook, looked)
		r.node.open()
		r.dir.run(ctx)
	})
	all.Go(func() { r.dir.keep(ctx) })
	all.Go(func() { a.watchDisk(ctx, r.node, func() error { return probe(a.cfg.DataDir) }) })
	if r.tunnels != nil && a.cfg.Compute != "" && r.node.trouble(aboutOperations) == "" {
		r.tunnels.list = r.dir.masters
		all.Go(func() {
			pause(ctx, firstLook, looked) // masters take the tunnel of a node that they know
			r.tunnels.run(ctx, r.dir.changed)
		})
	}

	a.undo = append(a.undo, func() error {
		cancel()
		ended := make(chan struct{})
		go func() { // ends with them, after Stop only where one hangs
			all.Wait()
			close(ended)
		}()
		select {
		case <-ended:
			return nil
		case <-time.After(stopWithin):
			return fmt.Errorf("something still hung after %v and was left behind", stopWithin)
		}
	})
}

// Stop ends the agent, in less than two seconds. It is idempotent.
func (a *Agent) Stop() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.started = true // a stopped agent cannot be started
	if a.undo != nil {
		defer a.log.Info("agent stopped")
	}
	if err := a.unwind(); err != nil {
		return fmt.Errorf("stop agent: %w", err)
	}
	return nil
}

func (a *Agent) unwind() error {
	var errs []error
	for i := len(a.undo) - 1; i >= 0; i-- {
		errs = append(errs, a.undo[i]())
	}
	a.undo = nil
	return errors.Join(errs...)
}

// Status tells how the agent stands. Before Start only the version is known.
func (a *Agent) Status() Status {
	s := Status{Version: a.cfg.Version, Explorers: []ExplorerStatus{}, Compute: ComputeStatus{State: ComputeNone}}
	r := a.running.Load()
	if r == nil {
		return s
	}
	s.NodeID, s.KeyID, s.StartedAt = r.node.id, r.keyID, r.startedAt
	s.Boot, s.Seq = r.node.boot.Load(), r.node.seq.Load()
	if account := r.node.account.Load(); account != nil {
		report := r.node.report(account)
		s.Account = &report
	}
	if r.watcher != nil {
		s.Compute = r.watcher.get()
	}
	s.Explorers = r.dir.status()
	if r.tunnels != nil {
		s.Tunnels = r.tunnels.status()
	}
	return s
}
