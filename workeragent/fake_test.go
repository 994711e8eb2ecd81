package workeragent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent/internal/host"
)

const gib = 1 << 30

var someFigures = host.Figures{
	Hostname: "worker", UptimeS: 1000,
	Total: record.Capacity{CRU: 4, MRU: 16 * gib, SRU: 100 * gib},
	Usage: record.Usage{CRU: 1, MRU: 2 * gib, SRU: 10 * gib},
}

// call is one call that a fake service got, by the bubble's clock.
type call struct {
	at     time.Time
	took   time.Duration
	method string // without prefix
	report record.Report
	beat   beat
}

// fakeService stands in for an explorer or a compute service. What it answers
// may be changed while it is used.
type fakeService struct {
	t     *testing.T
	mu    sync.Mutex
	calls []call
	on    func(c call) (any, error)
	hang  bool // answer only when the caller gives up
	delay time.Duration
}

// explorerThat makes a fake explorer. on may be nil: everything is accepted.
func explorerThat(t *testing.T, on func(c call) (any, error)) *fakeService {
	if on == nil {
		on = func(call) (any, error) { return answer{Accepted: true, IntervalS: 10}, nil }
	}
	return &fakeService{t: t, on: on}
}

func (f *fakeService) Call(ctx context.Context, method string, params, result any) error {
	c := call{at: time.Now(), method: strings.TrimPrefix(method, "ExplorerService.")}
	text, err := json.Marshal(params)
	if err != nil {
		f.t.Error(err)
	}
	switch c.method {
	case "register_node":
		err = json.Unmarshal(text, &c.report)
	case "node_heartbeat":
		err = json.Unmarshal(text, &c.beat)
	}
	if err != nil {
		f.t.Error(err)
	}
	f.mu.Lock()
	on, hang := f.on, f.hang
	f.mu.Unlock()

	var out any
	pause(ctx, f.delay)
	if hang {
		<-ctx.Done()
	}
	if err = ctx.Err(); err != nil {
		err = fmt.Errorf("call: %w", err)
	} else if out, err = on(c); err == nil {
		text, _ = json.Marshal(out)
		err = json.Unmarshal(text, result)
	}
	c.took = time.Since(c.at)
	f.mu.Lock()
	f.calls = append(f.calls, c)
	f.mu.Unlock()
	return err
}

func (f *fakeService) Close() {}

func (f *fakeService) set(on func(c call) (any, error)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.on = on
}

// take returns the calls since it was last called.
func (f *fakeService) take() []call {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.calls
	f.calls = nil
	return out
}

func methods(calls []call) (out []string) {
	for _, c := range calls {
		out = append(out, c.method)
	}
	return out
}

func wantMethods(t *testing.T, calls []call, want ...string) {
	t.Helper()
	if got := methods(calls); !reflect.DeepEqual(got, want) {
		t.Fatalf("calls %v, want %v", got, want)
	}
}

// logBuffer is a log that tests read.
type logBuffer struct {
	seam func(where string) // called with each line; may be nil
	mu   sync.Mutex
	buf  bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	if b.seam != nil {
		b.seam("log: " + string(p))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) lines(substr string) (out []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range strings.Lines(b.buf.String()) {
		if strings.Contains(line, substr) {
			out = append(out, line)
		}
	}
	return out
}

// setup is an agent among fakes.
type setup struct {
	agent   *Agent
	log     *logBuffer
	figures func(context.Context) (host.Figures, error)
	deps    deps // what is set of it
	running atomic.Pointer[Agent]
}

// startAgent starts an agent whose services are fakes, by address.
func startAgent(t *testing.T, cfg Config, services map[string]*fakeService, opts ...func(*setup)) *setup {
	t.Helper()
	s := &setup{log: &logBuffer{}}
	s.figures = func(context.Context) (host.Figures, error) { return someFigures, nil }
	for _, o := range opts {
		o(s)
	}
	s.deps.sample = s.figures
	if s.deps.dial == nil {
		s.deps.dial = func(ep client.Endpoint, _ client.Options) caller {
			for name, f := range services {
				if strings.Contains(ep.URL, name) {
					return f
				}
			}
			t.Errorf("no fake for %s", ep.URL)
			return nil
		}
	}
	dial := s.deps.dial
	s.deps.dial = func(ep client.Endpoint, o client.Options) caller {
		return &seamCaller{caller: dial(ep, o), t: t, seam: func(what string) { s.seam(what + " " + ep.URL) }}
	}
	s.log.seam = func(where string) { s.seam(where) }
	if s.deps.edges == nil {
		s.deps.edges = fakeEdge{}
	}
	if s.deps.spread == nil {
		s.deps.spread = func(time.Duration) time.Duration { return 0 }
	}
	a, err := newAgent(cfg, slog.New(slog.NewTextHandler(s.log, nil)), s.deps)
	if err != nil {
		t.Fatal(err)
	}
	s.running.Store(a)
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	s.agent = a
	t.Cleanup(func() { _ = a.Stop() })
	return s
}

// seam checks that no lock is held where an agent goes to the network, to the disk or to
// the log, any of which may hang.
func (s *setup) seam(where string) {
	a := s.running.Load()
	if a == nil || a.running.Load() == nil {
		return // it starts
	}
	r := a.running.Load()
	locks := map[string]*sync.Mutex{"node": &r.node.mu, "membership": &r.dir.mu}
	if r.watcher != nil {
		locks["watcher"] = &r.watcher.mu
	}
	for name, mu := range locks {
		wantFree(mu, name, where)
	}
}

// wantFree checks that the caller does not hold a lock: it waits for it, which has an end
// where others hold it.
func wantFree(mu *sync.Mutex, name, where string) {
	wait := "the lock of " + name + " is held across I/O, " + where
	seamWaits.Lock()
	seamWaits.seconds[&wait] = 0
	seamWaits.Unlock()
	mu.Lock()
	mu.Unlock() //nolint:staticcheck // it was to be had, that is all
	seamWaits.Lock()
	delete(seamWaits.seconds, &wait)
	seamWaits.Unlock()
}

// seamWaits are for how long each wait of wantFree lasts.
var seamWaits struct {
	sync.Mutex
	seconds map[*string]int
}

// The clock of a bubble stands still while somebody waits for a lock, so that of the
// machine, outside of bubbles, says when a wait has no end.
func init() {
	seamWaits.seconds = map[*string]int{}
	go func() {
		for ; ; time.Sleep(time.Second) {
			seamWaits.Lock()
			for wait := range seamWaits.seconds {
				if seamWaits.seconds[wait]++; seamWaits.seconds[wait] > 30 {
					panic(*wait)
				}
			}
			seamWaits.Unlock()
		}
	}()
}

// fakeEdge is the edges of masters, by what a test gives of it.
type fakeEdge struct {
	open func(addrs []string) (caller, error)
	up   func(id string) caller
	who  func(ctx context.Context, addr string) (string, error)
}

func (f fakeEdge) caller(addrs []string) (caller, error) {
	if f.open == nil {
		return nil, errRefused
	}
	return f.open(addrs)
}

func (f fakeEdge) framed(id string) caller {
	if f.up == nil {
		return nil
	}
	return f.up(id)
}

func (f fakeEdge) identify(ctx context.Context, addr string) (string, error) { return f.who(ctx, addr) }

// seamCaller calls seam before the caller that it wraps goes to the network.
type seamCaller struct {
	caller
	t      *testing.T
	seam   func(what string)
	closed atomic.Bool
}

func (c *seamCaller) Call(ctx context.Context, method string, params, result any) error {
	c.seam("call of " + method)
	if c.closed.Load() {
		c.t.Errorf("call of %s after the connection was closed", method)
	}
	return c.caller.Call(ctx, method, params, result)
}

func (c *seamCaller) Close() {
	c.seam("close")
	c.closed.Store(true)
	c.caller.Close()
}

func testConfig(t *testing.T, explorers ...string) Config {
	cfg := DefaultConfig()
	cfg.Explorers = explorers
	cfg.Compute = ""
	cfg.DataDir = t.TempDir()
	return cfg
}
