package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

// grid is the programs that run.
type grid struct {
	bin, dir string
	port     int
	out      io.Writer
	masters  []*master
	api      *client.Client // of all masters

	mu       sync.Mutex
	stopping bool
	running  []*program
	ended    chan *program // that nobody told to
	due      chan *program // for another start
}

// program is one process, which may be started again.
type program struct {
	name string
	argv []string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

func (p *program) pid() int { return p.cmd.Process.Pid }

// master is an explorer and where it listens.
type master struct {
	*program
	name          string
	rpc, ui, mesh string
}

func newGrid(bin, dir string, port int, out io.Writer) *grid {
	return &grid{
		bin: bin, dir: dir, port: port, out: out,
		ended: make(chan *program, 256), due: make(chan *program, 256),
	}
}

// start starts everything and waits until all nodes are online.
func (g *grid) start(ctx context.Context, nodes int) error {
	var peers, apis []string
	for i, name := range []string{"amber", "birch", "cedar"} {
		at := func(n int) string { return fmt.Sprintf("127.0.0.1:%d", g.port+10*(i+1)+n) }
		m := &master{name: name, ui: at(1), rpc: at(2), mesh: at(4)}
		g.masters = append(g.masters, m)
		peers, apis = append(peers, m.mesh), append(apis, m.rpc)
	}
	for _, m := range g.masters {
		m.program = g.add("master-"+m.name, "explorer", "serve", "--name", m.name,
			"--data-dir", filepath.Join(g.dir, m.name), "--rpc-socket", filepath.Join(g.dir, m.name+".sock"),
			"--rpc-addr", m.rpc, "--ui-addr", m.ui, "--mesh-addr", m.mesh, "--edge-addr", "off",
			// All masters get the same list.
			"--peer-masters", strings.Join(peers, ","),
			"--heartbeat-interval", "2s", "--offline-after", "8s")
		if err := g.launch(m.program); err != nil {
			return err
		}
	}
	var err error
	if g.api, err = client.New(apis, client.Options{}); err != nil {
		return err
	}
	if err := g.until(ctx, "the masters to see each other", g.meshed); err != nil {
		return err
	}
	for i := range nodes {
		if err := g.addNode(i); err != nil {
			return err
		}
	}
	if err := g.until(ctx, "all nodes to be online", func(ctx context.Context) error {
		var page struct {
			Total int `json:"total"`
		}
		err := g.api.Call(ctx, "list_nodes", map[string]any{"status": "online"}, &page)
		if err == nil && page.Total != nodes {
			err = fmt.Errorf("%d of %d nodes are online", page.Total, nodes)
		}
		return err
	}); err != nil {
		return err
	}
	return g.deploy(ctx, nodes)
}

// meshed returns an error unless every master sees the others alive.
func (g *grid) meshed(ctx context.Context) error {
	for _, m := range g.masters {
		one, err := client.New([]string{m.rpc}, client.Options{Timeout: 2 * time.Second})
		if err != nil {
			return err
		}
		var list struct {
			Masters []struct {
				Status string `json:"status"`
			} `json:"masters"`
		}
		err = one.Call(ctx, "masters", nil, &list)
		one.Close()
		if err != nil {
			return err
		}
		alive := 0
		for _, other := range list.Masters {
			if other.Status == "alive" {
				alive++
			}
		}
		if alive != len(g.masters)-1 {
			return fmt.Errorf("%s sees %d other masters", m.name, alive)
		}
	}
	return nil
}

// addNode starts the compute service and the agent of a node, which reports to
// two of the masters.
func (g *grid) addNode(i int) error {
	id := nodeID(i)
	socket := filepath.Join(g.dir, id+".sock")
	first, second := g.masters[i%len(g.masters)], g.masters[(i+1)%len(g.masters)]
	return errors.Join(
		g.launch(g.add(id+"-compute", "computenode", "--socket", socket, "--state", filepath.Join(g.dir, id+".json"))),
		g.launch(g.add(id+"-agent", "workeragent", "run", "--node-id", id,
			"--data-dir", filepath.Join(g.dir, id), "--compute", "unix://"+socket,
			"--labels", "rack="+string(rune('a'+i%4))+",demo=yes",
			"--explorers", first.rpc+","+second.rpc)))
}

func nodeID(i int) string { return fmt.Sprintf("node-%02d", i+1) }

// deploy deploys one to three VMs on each node, through whichever master.
func (g *grid) deploy(ctx context.Context, nodes int) error {
	kinds := []string{"web", "db", "cache"}
	for i := range nodes {
		for k := range i%3 + 1 {
			if err := g.api.Call(ctx, "deploy_vm", map[string]any{
				"node_id": nodeID(i), "name": fmt.Sprintf("%s-%02d", kinds[k], i+1),
				"cpu": k + 1, "memory": (k + 1) << 30, "secret": "demo",
			}, nil); err != nil {
				return fmt.Errorf("deploying a VM on %s: %w", nodeID(i), err)
			}
		}
	}
	return nil
}

// explain says what there is to see and to try.
func (g *grid) explain() {
	for _, m := range g.masters {
		fmt.Fprintf(g.out, "  %s   page http://%s   API http://%s/rpc   pid %d\n", m.name, m.ui, m.rpc, m.pid())
	}
	a, b := g.masters[0], g.masters[1]
	fmt.Fprintf(g.out, `
Each page shows all nodes and VMs. Try:
  kill -9 %d
      %s is gone; the pages of the others go on, and no node is lost. It comes
      back after %v and has everything again.
  bin/explorer nodes drain node-01 --addr %s
      A word to %s; every page shows it at once.
  kill -9 $(pgrep -f '^%s/workeragent .*node-02 ')
      A node falls silent, and is offline on all masters.

Ctrl-C ends the demo, and so does make demo-stop in another terminal.
`, a.pid(), a.name, restartAfter, b.rpc, b.name, g.bin)
}

// until waits for up to a minute until check returns nil, as long as no program
// has ended.
func (g *grid) until(ctx context.Context, what string, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case p := <-g.ended:
			return fmt.Errorf("%s has failed; the end of its log:\n%s", p.name, g.logEnd(p))
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w", what, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// add makes a program that is not started yet.
func (g *grid) add(name, file string, args ...string) *program {
	p := &program{name: name, argv: append([]string{filepath.Join(g.bin, file)}, args...)}
	g.mu.Lock()
	g.running = append(g.running, p)
	g.mu.Unlock()
	return p
}

// launch starts a program.
func (g *grid) launch(p *program) error {
	log, err := os.OpenFile(g.logPath(p), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = g.dir, log, log
	cmd.SysProcAttr = endWithParent()
	// Settings that are meant for programs outside of the demo.
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "EXPLORER_") && !strings.HasPrefix(v, "PEER_MASTERS=") && !strings.HasPrefix(v, "NODE_ID=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	g.mu.Lock()
	p.cmd, p.done = cmd, done
	g.mu.Unlock()
	go func() {
		_ = cmd.Wait() // how it ended stands in its log
		close(done)
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.stopping {
			g.ended <- p
		}
	}()
	return nil
}

// stop ends all programs, and kills those that take longer than 10 seconds.
func (g *grid) stop() {
	g.mu.Lock()
	g.stopping = true
	all := g.running
	g.mu.Unlock()
	for _, p := range all {
		if p.cmd != nil {
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	late := time.After(11 * time.Second)
	for _, p := range all {
		if p.cmd == nil {
			continue
		}
		select {
		case <-p.done:
		case <-late:
			late = time.After(0)
			_ = p.cmd.Process.Kill()
			<-p.done
		}
	}
	if g.api != nil {
		g.api.Close()
	}
}

func (g *grid) logPath(p *program) string { return filepath.Join(g.dir, p.name+".log") }

func (g *grid) logEnd(p *program) string {
	b, err := os.ReadFile(g.logPath(p))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "    " + strings.Join(lines[max(0, len(lines)-20):], "\n    ")
}
