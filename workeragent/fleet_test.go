//go:build e2e

package workeragent

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// Agents and master share the machine. Two processors that do nothing else bear 10,000
// agents; by default there are fewer, for tests often run beside something.
var fleetSize = flag.Int("fleet", 3000, "how many agents TestFleet has")

// realMaster is an explorer in a process of its own.
type realMaster struct {
	t    *testing.T
	argv []string
	addr string
	cmd  *exec.Cmd
	log  string
}

func newRealMaster(t *testing.T) *realMaster {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "explorer")
	if out, err := exec.Command("go", "build", "-o", bin, "../cmd/explorer").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	m := &realMaster{t: t, addr: addr, log: filepath.Join(dir, "log"), argv: []string{bin, "serve",
		"--data-dir", filepath.Join(dir, "data"), "--rpc-addr", addr, "--rpc-socket", "", "--ui-addr", ""}}
	m.start()
	t.Cleanup(func() {
		m.kill()
		if text, err := os.ReadFile(m.log); err == nil && t.Failed() {
			t.Logf("log of the master:\n%s", text)
		}
	})
	return m
}

// start starts the process and waits until it is healthy.
func (m *realMaster) start() {
	m.t.Helper()
	out, err := os.OpenFile(m.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	defer out.Close()
	m.cmd = exec.Command(m.argv[0], m.argv[1:]...)
	m.cmd.Stdout, m.cmd.Stderr = out, out
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		resp, err := http.Get("http://" + m.addr + "/health")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Since(began) > time.Minute {
			m.t.Fatal("the master does not become healthy:", err)
		}
	}
}

func (m *realMaster) kill() {
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
}

// connections is how many connections the process has accepted, as its metrics say.
func (m *realMaster) connections() (n float64) {
	m.t.Helper()
	resp, err := http.Get("http://" + m.addr + "/metrics")
	if err != nil {
		m.t.Fatal(err)
	}
	defer resp.Body.Close()
	for in := bufio.NewScanner(resp.Body); in.Scan(); {
		if rest, ok := strings.CutPrefix(in.Text(), `hero_explorer_connections_total{listener="rpc-addr"} `); ok {
			n, _ = strconv.ParseFloat(rest, 64)
		}
	}
	return n
}

// nodes counts the nodes by status.
func (m *realMaster) nodes() (online, suspect, offline int) {
	m.t.Helper()
	ep, _ := client.Parse(m.addr, 0)
	c := client.Dial(ep, client.Options{})
	defer c.Close()
	var s struct {
		Nodes struct{ Online, Suspect, Offline int }
	}
	for began := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		err := c.Call(m.t.Context(), "stats", nil, &s)
		if err == nil {
			break
		}
		if time.Since(began) > 30*time.Second {
			m.t.Fatal(err)
		}
	}
	return s.Nodes.Online, s.Nodes.Suspect, s.Nodes.Offline
}

// watched is a caller that notes what fails while the master is there.
type watched struct {
	caller
	fleet *returning
}

type returning struct {
	up     atomic.Bool
	failed atomic.Int64
	last   atomic.Pointer[error]
	beats  atomic.Int64

	mu    sync.Mutex
	calls []time.Time // when they began
}

// take returns when calls have begun since it was last called.
func (f *returning) take() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func (w watched) Call(ctx context.Context, method string, params, result any) error {
	was := w.fleet.up.Load()
	w.fleet.mu.Lock()
	w.fleet.calls = append(w.fleet.calls, time.Now())
	w.fleet.mu.Unlock()
	err := w.caller.Call(ctx, method, params, result)
	if method == methodBeat && err == nil {
		w.fleet.beats.Add(1)
	}
	var answered *jsonrpc.Error
	if err != nil && was && w.fleet.up.Load() && ctx.Err() != context.Canceled && !errors.As(err, &answered) {
		w.fleet.failed.Add(1)
		w.fleet.last.Store(&err)
	}
	return err
}

// TestFleet: a master that ten thousand agents beat to is killed and comes back. They
// come back too, over an interval and not at once; no call to it fails once it is there,
// and no node ever counts as offline.
func TestFleet(t *testing.T) {
	m := newRealMaster(t)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	f := new(returning)
	f.up.Store(true)
	const interval = 10 * time.Second
	log := slog.New(slog.DiscardHandler)
	ep, err := client.Parse(m.addr, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range *fleetSize {
		_, key, _ := ed25519.GenerateKey(nil)
		n := newNode(fmt.Sprint("node-", i), key, 1, record.Profile{Hostname: fmt.Sprint("host-", i)})
		n.open()
		l := newLink(n, newMembership("", fakeEdge{}, log), m.addr, watched{client.Dial(ep, options(nil)), f}, interval, log)
		l.first = rand.N(interval)
		all.Go(func() { l.run(ctx) })
	}
	await := func(what string, within time.Duration, ok func() bool) {
		t.Helper()
		for began := time.Now(); !ok(); time.Sleep(100 * time.Millisecond) {
			if time.Since(began) > within {
				online, suspect, offline := m.nodes()
				t.Fatalf("%s: not within %v; %d online, %d suspect, %d offline", what, within, online, suspect, offline)
			}
		}
	}
	allOnline := func() bool {
		online, _, offline := m.nodes()
		if offline > 0 {
			t.Fatalf("%d nodes are offline", offline)
		}
		return online == *fleetSize
	}
	await("all nodes are online", 2*time.Minute, allOnline)
	time.Sleep(interval)
	if n := f.failed.Load(); n > 0 {
		t.Errorf("%d calls failed before anything happened, the last one: %v", n, *f.last.Load())
	}

	f.take()
	f.up.Store(false)
	m.kill()
	time.Sleep(2 * time.Second)
	began := time.Now()
	m.start()
	f.up.Store(true)
	t.Logf("the master is back after %v", time.Since(began).Round(time.Millisecond))

	// A window that the scheduler cannot blur: twice the beats of a second, and some.
	const window = time.Second
	usual := float64(*fleetSize) * window.Seconds() / interval.Seconds()
	type sample struct {
		at time.Time
		n  float64
	}
	var samples []sample
	most := 0.0
	await("all agents are back", 2*interval, func() bool {
		now := sample{time.Now(), m.connections()}
		samples = append(samples, now)
		for len(samples) > 1 && now.at.Sub(samples[0].at) > window {
			samples = samples[1:]
		}
		most = max(most, now.n-samples[0].n)
		return allOnline() && now.n >= float64(*fleetSize)
	})
	t.Logf("all were back after %v; at most %.0f connections in a second, the usual beats are %.0f",
		time.Since(began).Round(time.Millisecond), most, usual)
	if most > 4*usual {
		t.Errorf("%.0f connections in a second, want at most 4 times the usual %.0f beats", most, usual)
	}
	calls := busiest(f.take(), window)
	t.Logf("at most %d calls were begun in a second, from the kill until all were back", calls)
	if float64(calls) > 4*usual {
		t.Errorf("%d calls in a second, want at most 4 times the usual %.0f", calls, usual)
	}
	time.Sleep(interval)
	if n := f.failed.Load(); n > 0 {
		t.Errorf("%d calls failed after the master was back, the last one: %v", n, *f.last.Load())
	}
	allOnline()
	t.Logf("%d heartbeats", f.beats.Load())
}
