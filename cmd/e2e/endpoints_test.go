//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// goesOn is how soon another master has answered in the place of one that is stopped,
// which takes connections and never answers, the start of a process included.
const goesOn = 7 * time.Second

// A first master that is stopped holds up nothing that may be repeated: commands of each
// kind, those that follow, and agents.
func TestStoppedFirstMaster(t *testing.T) {
	g := newGrid(t)
	first := g.startMaster("first", masterOptions{})
	second := g.startMaster("second", masterOptions{peers: []string{first.mesh}})
	agent := g.startAgent("worker", agentOptions{compute: true, args: []string{"--heartbeat-interval", "1s"}}, first, second)
	eventually(t, 20*time.Second, func() error { return second.online("worker") })
	addrs := []string{"EXPLORER_ADDR=" + first.rpc + "," + second.rpc}
	explorer := filepath.Join(g.bin, "explorer")

	watch := g.follow(addrs, "nodes", "watch", "--json")
	defer watch.stop()
	watch.next(10 * time.Second)
	if err := first.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = first.cmd.Process.Signal(syscall.SIGCONT) }()
	stopped := time.Now()

	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"health"}, "ok"},
		{[]string{"nodes"}, "worker"},
		{[]string{"nodes", "get", "worker"}, "worker"},
		{[]string{"masters"}, "second"},
		{[]string{"vms", "list", "--json"}, "vms"},
		{[]string{"events", "--json"}, "events"},
		{[]string{"nodes", "drain", "worker"}, "drained"},
		{[]string{"nodes", "label", "worker", "a=b"}, ""},
		{[]string{"nodes", "undrain", "worker"}, ""},
		{[]string{"vms", "deploy", "--node", "worker", "--name", "one"}, "deploy"},
		{[]string{"backup", filepath.Join(g.dir, "b")}, "1 nodes"},
		{[]string{"restore", filepath.Join(g.dir, "b")}, "1 nodes"},
	} {
		began := time.Now()
		out, code := command(t, g.dir, g.env(addrs...), append([]string{explorer}, c.args...)...)
		if took := time.Since(began); code != 0 || !strings.Contains(out, c.says) || took > goesOn {
			t.Errorf("explorer %v: exit code %d after %v: %s", c.args, code, took, out)
		}
	}
	// Who followed follows the other one; a change there is told.
	second.must(t, "label_node", obj{"node_id": "worker", "labels": obj{"followed": "yes"}}, nil)
	for !strings.Contains(watch.next(10*time.Second), `"followed":"yes"`) {
	}
	events := g.follow(addrs, "events", "--follow", "--json")
	defer events.stop()
	events.next(goesOn)

	// The agent has lost no beat at the second master.
	if err := second.online("worker"); err != nil || time.Since(stopped) < 5*time.Second {
		t.Errorf("%v after: %v", time.Since(stopped), err)
	}
	agent.mustRun()
}

// follower is a command that goes on.
type follower struct {
	t     *testing.T
	args  []string
	stop  func()
	lines chan string
}

func (g *grid) follow(env []string, args ...string) *follower {
	g.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, filepath.Join(g.bin, "explorer"), args...)
	cmd.Dir, cmd.Env, cmd.Stderr = g.dir, g.env(env...), os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		g.t.Fatal(err)
	}
	f := &follower{t: g.t, args: args, lines: make(chan string, 1000)}
	go func() {
		for in := bufio.NewScanner(out); in.Scan(); {
			f.lines <- in.Text()
		}
	}()
	f.stop = func() {
		cancel()
		_ = cmd.Wait() // it is ended by force
	}
	return f
}

func (f *follower) next(within time.Duration) string {
	f.t.Helper()
	select {
	case line := <-f.lines:
		return line
	case <-time.After(within):
		f.t.Fatalf("explorer %v says nothing for %v", f.args, within)
		return ""
	}
}

// An agent reports its node, and what is wrong with it, while its own disk is full and
// while it is read-only, also when it starts so; operations are refused meanwhile.
func TestAgentWithoutDisk(t *testing.T) {
	g := newGrid(t)
	m := g.startMaster("master", masterOptions{})
	dir := g.ownDisk("worker", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs")
	options := agentOptions{compute: true, args: []string{"--heartbeat-interval", "1s"}}
	a := g.startAgent("worker", options, m)
	var boot, before uint64 // of the agent that was seen last, and of the one that was stopped last
	trouble := func(want string) func() error {
		return func() error {
			var n struct {
				Boot    uint64
				Status  string
				Trouble []string
			}
			if err := m.call("get_node", obj{"node_id": "worker"}, &n); err != nil {
				return err
			}
			if boot = n.Boot; boot == before {
				return errNotYet("boot %d, it was started again", boot)
			}
			text := strings.Join(n.Trouble, "; ")
			if n.Status != "online" || want == "" && text != "" || !strings.Contains(text, want) {
				return errNotYet("%s, trouble %q, want %q", n.Status, text, want)
			}
			return nil
		}
	}
	again := func(between func()) {
		t.Helper()
		a.stop()
		before = boot
		between()
		a.process = start(t, "worker", g.dir, a.cmd.Env, a.cmd.Args...)
	}
	eventually(t, 10*time.Second, trouble(""))
	for _, c := range []struct {
		what string
		do   func()
		undo func()
	}{
		{"is full", func() { fill(t, filepath.Join(dir, "filler")) }, func() { _ = os.Remove(filepath.Join(dir, "filler")) }},
		{"is read-only", func() { again(func() { mount(t, "-o", "remount,ro", dir) }) }, func() { mount(t, "-o", "remount,rw", dir) }},
	} {
		c.do()
		eventually(t, 20*time.Second, trouble(c.what))
		if err := m.call("deploy_vm", obj{"node_id": "worker", "name": "v", "cpu_count": 1, "memory_mb": 64, "op_id": c.what}, nil); err == nil {
			t.Errorf("the disk %s: an operation was carried out that cannot be remembered", c.what)
		}
		again(func() {})
		eventually(t, 20*time.Second, trouble(c.what))
		if out, code := command(t, g.dir, g.env("EXPLORER_ADDR="+m.rpc), filepath.Join(g.bin, "explorer"), "nodes", "get", "worker"); code != 0 || !strings.Contains(out, c.what) {
			t.Errorf("nodes get: exit code %d: %s", code, out)
		}
		again(c.undo)
		eventually(t, 30*time.Second, trouble(""))
		name := fmt.Sprint("after it ", c.what)
		eventually(t, 20*time.Second, func() error {
			return m.call("deploy_vm", obj{"node_id": "worker", "name": name, "cpu_count": 1, "memory_mb": 64}, nil)
		})
	}
}
