//go:build e2e

package e2e

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	// reunion is how long two masters that can exchange packets may take until they see
	// each other alive.
	reunion = 10 * time.Second
	// oneHop is how long a record may be under way then.
	oneHop = 500 * time.Millisecond
)

// reunited waits until masters see each other alive and records of each are soon on all
// others, and then writes 50 records at each. It tells how long the slowest took.
func reunited(t *testing.T, masters ...*master) {
	t.Helper()
	began := time.Now()
	eventually(t, reunion, func() error {
		if err := meshed(masters...); err != nil {
			return err
		}
		for _, from := range masters {
			if took, err := from.writes(masters, "first", oneHop); err != nil {
				return fmt.Errorf("%w after %v", err, took)
			}
		}
		return nil
	})
	t.Logf("all see all alive, and records travel in one hop, after %v", time.Since(began).Round(time.Millisecond))
	for _, from := range masters {
		slowest := time.Duration(0)
		for i := range 50 {
			took, err := from.writes(masters, fmt.Sprint(i), 2*reunion)
			if err != nil {
				t.Fatal(err)
			}
			slowest = max(slowest, took)
			time.Sleep(50 * time.Millisecond)
		}
		t.Logf("the slowest of 50 records of %s was everywhere after %v", from.name, slowest.Round(time.Millisecond))
		if slowest > oneHop {
			t.Errorf("the slowest of 50 records of %s took %v, want at most %v", from.name, slowest, oneHop)
		}
	}
}

// writes registers a node at a master and returns how long it took until it was listed by
// all others, or an error when it takes too long.
func (m *master) writes(all []*master, name string, within time.Duration) (time.Duration, error) {
	id, boot := "probe-"+m.name+"-"+name, uint64(time.Now().UnixNano())
	m.register(id, boot, 1, nil)
	wrote := time.Now()
	for _, to := range all {
		for to != m {
			var n struct {
				Boot uint64 `json:"boot"`
			}
			if err := to.call("get_node", obj{"node_id": id}, &n); err == nil && n.Boot == boot {
				break
			}
			if time.Since(wrote) > within {
				return time.Since(wrote), fmt.Errorf("record %s of %s is not on %s", name, m.name, to.name)
			}
			time.Sleep(time.Millisecond)
		}
	}
	return time.Since(wrote), nil
}

// A master is started on another host with its data directory, after the first host was
// cut off: its connections are open for ever as far as the others can know.
func TestHostMoves(t *testing.T) {
	g := newGrid(t)
	w := newNetwork(t, 4, "")
	secret := g.secretFile()
	peers := []string{w.hosts[0].ip, w.hosts[2].ip}
	a := g.startMaster("a", masterOptions{in: w.hosts[0], peers: peers, args: secret})
	b := g.startMaster("b", masterOptions{in: w.hosts[1], peers: peers, args: secret})
	c := g.startMaster("c", masterOptions{in: w.hosts[2], peers: peers, args: secret})
	eventually(t, 15*time.Second, func() error { return meshed(a, b, c) })

	w.hosts[1].unplug()
	b.kill()
	b.options.in = w.hosts[3]
	b.launch()
	reunited(t, a, b, c)

	// The host of a running master gets another address, and loses the old one.
	w.hosts[3].readdress("10.99.0.77")
	reunited(t, a, b, c)
}

// A copy of a master's data directory is started on another host, stays for a while, and
// goes.
func TestIdentityCopied(t *testing.T) {
	g := newGrid(t)
	w := newNetwork(t, 4, "")
	secret := g.secretFile()
	var peers []string
	for _, h := range w.hosts[:3] {
		peers = append(peers, h.ip)
	}
	var masters []*master
	for i, name := range []string{"a", "b", "c"} {
		masters = append(masters, g.startMaster(name, masterOptions{in: w.hosts[i], peers: peers, args: secret}))
	}
	a, b, c := masters[0], masters[1], masters[2]
	eventually(t, 15*time.Second, func() error { return meshed(a, b, c) })

	b.stop()
	dup := &master{
		name: "copy", grid: g, dir: filepath.Join(g.dir, "copy"), socket: filepath.Join(g.dir, "copy.sock"),
		options: masterOptions{in: w.hosts[3], peers: peers, args: secret},
	}
	if err := os.CopyFS(dup.dir, os.DirFS(b.dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dup.dir, "identity.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.launch()
	eventually(t, 15*time.Second, func() error { return meshed(a, b, c) })

	dup.run()
	began := time.Now()
	collides := func(m *master) error {
		var list masterList
		if err := m.call("masters", nil, &list); err != nil {
			return err
		}
		for _, one := range list.Masters {
			if one.ID == b.id && one.Cause == "identity_collision" && one.Reason != "" {
				return nil
			}
		}
		return fmt.Errorf("%s does not name the collision: %+v", m.name, list.Masters)
	}
	eventually(t, reunion, func() error { return errors.Join(collides(a), collides(b), collides(c), collides(dup)) })
	t.Logf("all name the collision after %v", time.Since(began).Round(time.Millisecond))
	for range 10 {
		if status, body, err := dup.get("/health"); err != nil || status != 503 || !strings.Contains(string(body), "identity") {
			t.Errorf("/health of the copy answers %d %s (%v)", status, body, err)
		}
		if err := dup.call("register_node", obj{"node_id": "lost", "boot": 1, "seq": 1}, nil); err == nil {
			t.Error("the copy acknowledges a write")
		}
		for _, m := range masters {
			if err := errors.Join(m.healthy(), collides(m)); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(500 * time.Millisecond)
	}
	reunited(t, a, b, c)
	dup.kill()
	reunited(t, a, b, c)
	eventually(t, 20*time.Second, func() error {
		if collides(a) == nil || collides(b) == nil || collides(c) == nil {
			return errNotYet("the collision is still named")
		}
		return nil
	})
}

// One direction of the connection between two masters goes dead, or both do, and nobody
// is told.
func TestHalfDeadConnection(t *testing.T) {
	for name, dead := range map[string][2]bool{"to the listener": {true, false}, "to the dialer": {false, true}, "both ways": {true, true}} {
		t.Run(name, func(t *testing.T) {
			g := newGrid(t)
			secret := g.secretFile()
			pa, pb := newPorts(t), newPorts(t)
			p := newProxy(t, pa.mesh)
			a := g.startMaster("a", masterOptions{ports: pa, args: secret})
			b := g.startMaster("b", masterOptions{ports: pb, peers: []string{p.addr}, args: secret})
			eventually(t, 15*time.Second, func() error { return meshed(a, b) })
			p.freeze(dead[0], dead[1])
			reunited(t, a, b)
		})
	}
}

// proxy passes connections on, until they are frozen: then it takes what comes in one
// direction, or both, and passes it nowhere.
type proxy struct {
	addr  string
	mu    sync.Mutex
	pipes []*[2]atomic.Bool // to the target and back
}

func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	p := &proxy{addr: l.Addr().String()}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			t.Cleanup(func() { in.Close(); out.Close() })
			dead := new([2]atomic.Bool)
			p.mu.Lock()
			p.pipes = append(p.pipes, dead)
			p.mu.Unlock()
			go pass(out, in, &dead[0])
			go pass(in, out, &dead[1])
		}
	}()
	return p
}

func pass(to, from net.Conn, dead *atomic.Bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if dead.Load() {
			_, _ = io.Copy(io.Discard, from)
			return // nor does the end get through
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				from.Close()
				return
			}
		}
		if err != nil {
			to.Close()
			return
		}
	}
}

// freeze freezes the connections that there are.
func (p *proxy) freeze(there, back bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, dead := range p.pipes {
		dead[0].Store(there)
		dead[1].Store(back)
	}
}
