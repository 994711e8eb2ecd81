//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Programs in Go ask the kernel for the time without the help of a library, so nothing
// can be put between them. Those of the tests below are built with a package time whose
// wall clock is off by as many seconds as the file says that E2E_CLOCK names. The
// monotonic clock is right, as after a step of NTP or of a person.
const wallClock = `package time

import (
	"sync/atomic"
	"syscall"
)

var wallAhead atomic.Int64

func init() {
	path, ok := syscall.Getenv("E2E_CLOCK")
	if !ok {
		return
	}
	set := func() {
		fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
		if err != nil {
			return
		}
		defer syscall.Close(fd)
		var b [32]byte
		n, err := syscall.Read(fd, b[:])
		if err != nil || n <= 0 || b[n-1] != '\n' {
			return
		}
		var ahead, sign int64 = 0, 1
		for _, c := range b[:n-1] {
			if c == '-' {
				sign = -1
			} else {
				ahead = 10*ahead + int64(c-'0')
			}
		}
		wallAhead.Store(sign * ahead)
	}
	set()
	go func() {
		for {
			Sleep(50 * Millisecond)
			set()
		}
	}()
}
`

// skewed builds the programs anew, with a wall clock that can be set, and returns the
// directory in which they are.
func skewed(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	std := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	source, err := os.ReadFile(filepath.Join(std, "time.go"))
	if err != nil {
		t.Fatal(err)
	}
	const asks = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {\n"
	if strings.Count(string(source), asks) != 1 {
		skip(t, "the package time of this version of Go is not as expected")
	}
	dir := tempDir(t)
	patched := strings.Replace(string(source), asks, strings.Replace(asks, "\n", "\n\tsec += wallAhead.Load()\n", 1), 1)
	overlay := map[string]map[string]string{"Replace": {}}
	for name, text := range map[string]string{"time.go": patched, "wall_ahead.go": wallClock} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		overlay["Replace"][filepath.Join(std, name)] = path
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, list, 0o600); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := buildInto(dir, "-overlay", path); err != nil {
		t.Fatal(err)
	}
	t.Logf("built in %v", time.Since(began).Round(time.Second))
	return dir
}

// clock is the wall clock of one process.
type clock struct {
	t    *testing.T
	path string
}

func (g *grid) newClock(name string, ahead time.Duration) clock {
	c := clock{g.t, filepath.Join(g.dir, name+".clock")}
	c.set(ahead)
	return c
}

// set sets how far the clock is ahead.
func (c clock) set(ahead time.Duration) {
	c.t.Helper()
	if err := os.WriteFile(c.path, fmt.Appendf(nil, "%d\n", int64(ahead.Seconds())), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c clock) env() []string { return []string{"E2E_CLOCK=" + c.path} }

// The clocks of masters and nodes are hours apart, and step, to a month back and ahead.
// Nodes that are heard are online and those that are not are offline in time, the last
// word stands whoever took it, and each master says how wrong the others' clocks are.
func TestClocksApart(t *testing.T) {
	g := newGrid(t)
	g.bin = skewed(t)
	ports := []*ports{newPorts(t), newPorts(t), newPorts(t)}
	ahead := []time.Duration{-5 * time.Hour, 3 * time.Hour, 0}
	var masters []*master
	var clocks []clock
	for i, name := range []string{"a", "b", "c"} {
		var peers []string
		for j := range ports {
			if j != i {
				peers = append(peers, ports[j].mesh)
			}
		}
		clocks = append(clocks, g.newClock(name, ahead[i]))
		masters = append(masters, g.startMaster(name, masterOptions{
			ports: ports[i], peers: peers, env: clocks[i].env(),
			args: []string{"--heartbeat-interval", "1s", "--offline-after", "4s"},
		}))
	}
	eventually(t, 20*time.Second, func() error { return meshed(masters...) })
	ids := []string{"node-0", "node-1", "node-2"}
	var agents []*agent
	var homes []clock
	for i, off := range []time.Duration{9 * time.Hour, -48 * time.Hour, 0} {
		homes = append(homes, g.newClock(ids[i], off))
		agents = append(agents, g.startAgent(ids[i], agentOptions{env: homes[i].env()}, masters...))
	}
	everywhere := func(check func(m *master) error) func() error {
		return func() error {
			for _, m := range masters {
				if err := check(m); err != nil {
					return err
				}
			}
			return nil
		}
	}
	online := everywhere(func(m *master) error { return onlineAt(m, ids...) })
	eventually(t, 20*time.Second, online)

	skews := everywhere(func(m *master) error {
		var list struct {
			Masters []struct {
				Name       string
				ClockSkewS float64 `json:"clock_skew_s"`
			}
		}
		m.must(t, "masters", nil, &list)
		off := map[string]time.Duration{}
		for i, o := range masters {
			off[o.name] = ahead[i]
		}
		for _, o := range list.Masters {
			want := (off[o.Name] - off[m.name]).Seconds()
			if o.ClockSkewS < want-1.5 || o.ClockSkewS > want+1.5 {
				return errNotYet("%s says that the clock of %s is %v s ahead, it is %v s", m.name, o.Name, o.ClockSkewS, want)
			}
		}
		return nil
	})
	eventually(t, 10*time.Second, skews)
	eventually(t, 10*time.Second, everywhere(func(m *master) error { return m.happened("clock", "") }))

	// words has operators speak through one master after the other. The last one stands,
	// as each knew what it was to replace.
	words := func() {
		t.Helper()
		for i, speaker := range []int{1, 0, 2, 0, 1, 2} {
			method, drained := "drain_node", i%2 == 0
			if !drained {
				method = "undrain_node"
			}
			masters[speaker].must(t, method, obj{"node_id": ids[0]}, nil)
			eventually(t, 5*time.Second, everywhere(func(m *master) error {
				if n := m.mustNodes()[ids[0]]; n.Drained != drained {
					return errNotYet("%s has drained %v, after %s by %s", m.name, n.Drained, method, masters[speaker].name)
				}
				return nil
			}))
		}
	}
	words()

	seed := rand.Uint64()
	t.Logf("seed of the steps: %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 12 {
		step := time.Duration(random.Int64N(int64(12*time.Hour))) - 6*time.Hour
		i := random.IntN(6)
		switch {
		case i < 3:
			ahead[i] = step.Truncate(time.Second)
			clocks[i].set(step)
		default:
			homes[i-3].set(step)
		}
		for range 4 {
			time.Sleep(200 * time.Millisecond)
			if err := online(); err != nil {
				t.Fatalf("after a step of %v: %v", step, err)
			}
		}
	}
	words()
	eventually(t, 15*time.Second, skews)

	// A node dies while the clocks step.
	agents[2].kill()
	died := time.Now()
	ahead[0], ahead[1] = -30*24*time.Hour, 30*24*time.Hour
	clocks[0].set(ahead[0])
	clocks[1].set(ahead[1])
	eventually(t, 10*time.Second, everywhere(func(m *master) error {
		if s := m.mustNodes()[ids[2]].Status; s != "offline" {
			return errNotYet("%s says that the dead node is %s", m.name, s)
		}
		return onlineAt(m, ids[:2]...)
	}))
	t.Logf("the dead node is offline on all after %v", time.Since(died).Round(10*time.Millisecond))

	// Master and agent start with a clock that is a month, and a year, behind what they
	// have written.
	masters[1].stop()
	ahead[1] = -365 * 24 * time.Hour
	clocks[1].set(ahead[1])
	masters[1].launch()
	agents[1].stop()
	homes[1].set(-365 * 24 * time.Hour)
	agents[1] = g.startAgent(ids[1], agentOptions{env: homes[1].env(), args: []string{"--labels", "since=the-restart"}}, masters...)
	eventually(t, 20*time.Second, everywhere(func(m *master) error {
		n := m.mustNodes()[ids[1]]
		if n.Status != "online" || n.Labels["since"] != "the-restart" {
			return errNotYet("%s has of the restarted node %s, %v", m.name, n.Status, n.Labels)
		}
		return onlineAt(m, ids[0])
	}))
	words()
	eventually(t, 15*time.Second, skews)
	eventually(t, 10*time.Second, func() error { return equalRecords(masters...) })
}
