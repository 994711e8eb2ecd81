//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

// natGrid is three masters and a node on machines of their own. Nothing listens on the
// node's, so nobody can connect to it.
type natGrid struct {
	*grid
	masters []*master
	home    *netns // of the node
	node    *agent
}

func newNATGrid(t *testing.T) *natGrid {
	g := &natGrid{grid: newGrid(t)}
	w := newNetwork(t, 4, "")
	g.home = w.hosts[3]
	g.home.writeEtc("machine-id", "0123456789abcdef0123456789abcdef\n")
	fast := []string{"--heartbeat-interval", "1s", "--offline-after", "4s"}
	for i, name := range []string{"a", "b", "c"} {
		var peers []string
		for j := range 3 {
			if j != i {
				peers = append(peers, w.hosts[j].ip)
			}
		}
		m := &masterOptions{in: w.hosts[i], peers: peers, args: fast}
		g.masters = append(g.masters, g.startMaster(name, *m))
	}
	eventually(t, 15*time.Second, func() error { return meshed(g.masters...) })
	g.node = g.startAgent("node-1", agentOptions{compute: true, in: g.home}, g.masters...)
	eventually(t, 15*time.Second, func() error { return g.tunnelled(2) })
	return g
}

// tunnelled returns an error unless all masters see the node online, with tunnels to
// so many of them.
func (g *natGrid) tunnelled(n int, masters ...*master) error {
	if len(masters) == 0 {
		masters = g.masters
	}
	for _, m := range masters {
		nodes, err := m.nodes()
		if err != nil {
			return err
		}
		if got := nodes["node-1"]; got.Status != "online" || len(got.Tunnel) != n {
			return errNotYet("%s says that node-1 is %s with tunnels to %v", m.name, got.Status, got.Tunnel)
		}
	}
	return nil
}

// holders splits the masters into those that hold a tunnel of the node and those that do
// not.
func (g *natGrid) holders() (with, without []*master) {
	tunnels := g.masters[0].mustNodes()["node-1"].Tunnel
	for _, m := range g.masters {
		if slices.Contains(tunnels, m.id) {
			with = append(with, m)
		} else {
			without = append(without, m)
		}
	}
	return with, without
}

// A node that only dials out is operated through every master, be it one to which it
// keeps a tunnel or not. When a master is lost, the others go on at once.
func TestNodeThatOnlyDialsOut(t *testing.T) {
	g := newNATGrid(t)
	listening, err := exec.Command("ip", append(g.home.exec()[1:], "ss", "-Hltnu")...).CombinedOutput()
	if err != nil || len(strings.TrimSpace(string(listening))) > 0 {
		t.Fatalf("something listens where the node is (%v):\n%s", err, listening)
	}
	for _, m := range g.masters {
		var v vm
		m.must(t, "deploy_vm", obj{"node_id": "node-1", "name": "by-" + m.name, "op_id": "deploy-" + m.name}, &v)
		var again vm
		for _, other := range g.masters {
			other.must(t, "deploy_vm", obj{"node_id": "node-1", "name": "by-" + m.name, "op_id": "deploy-" + m.name, "op_again": true}, &again)
			if again.SID != v.SID {
				t.Errorf("%s repeats the deployment of %s and gets %s instead of %s", other.name, m.name, again.SID, v.SID)
			}
			other.must(t, "vm_stats", obj{"node_id": "node-1", "sid": v.SID}, nil)
		}
		g.streams(m, v.SID)
		m.must(t, "delete_vm", obj{"node_id": "node-1", "sid": v.SID, "op_id": "delete-" + m.name}, nil)
	}
	var calls map[string]struct{ OK, Error int }
	if err := g.node.compute.call("calls", obj{}, &calls); err != nil {
		t.Fatal(err)
	}
	if calls["deploy_vm"].OK != 3 || calls["delete_vm"].OK != 3 {
		t.Errorf("the node has run %+v, want 3 deployments and 3 deletions", calls)
	}

	// One master that holds a tunnel is gone without a word.
	with, without := g.holders()
	with[0].options.in.unplug()
	for i, m := range []*master{with[1], without[0]} {
		began := time.Now()
		m.must(t, "deploy_vm", obj{"node_id": "node-1", "name": "after", "op_id": fmt.Sprint("after-", i)}, nil)
		t.Logf("after the loss of a master, a call by %s took %v", m.name, time.Since(began).Round(time.Millisecond))
	}
	// A tunnel is opened elsewhere.
	began := time.Now()
	eventually(t, 30*time.Second, func() error {
		for _, m := range []*master{with[1], without[0]} {
			if tunnels := m.mustNodes()["node-1"].Tunnel; !slices.Contains(tunnels, with[1].id) || !slices.Contains(tunnels, without[0].id) {
				return errNotYet("%s sees tunnels to %v", m.name, tunnels)
			}
		}
		return g.tunnelled(2, with[1], without[0])
	})
	t.Logf("the node had two tunnels again after %v", time.Since(began).Round(time.Millisecond))
	with[0].options.in.plug()
	eventually(t, 30*time.Second, func() error { return g.tunnelled(2) })
}

// streams looks at the log and the console of a VM by way of a master.
func (g *natGrid) streams(m *master, sid string) {
	g.t.Helper()
	ctx, cancel := context.WithTimeout(g.t.Context(), 10*time.Second)
	defer cancel()
	get := func(path string, header http.Header) *http.Response {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url+path, nil)
		if err != nil {
			g.t.Fatal(err)
		}
		for k, v := range header {
			req.Header[k] = v
		}
		res, err := (&http.Client{Transport: m.http.Transport}).Do(req)
		if err != nil {
			g.t.Fatal(err)
		}
		return res
	}
	res := get("/vms/"+sid+"/logs?follow=true&node_id=node-1", nil)
	defer res.Body.Close()
	if line, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil || res.StatusCode != http.StatusOK {
		g.t.Errorf("log of a VM by %s: %s, %q, %v", m.name, res.Status, line, err)
	}
	console := get("/vms/"+sid+"/console?node_id=node-1", http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	})
	defer console.Body.Close()
	if console.StatusCode != http.StatusSwitchingProtocols || console.Header.Get("Sec-Websocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		g.t.Errorf("console of a VM by %s: %s %v", m.name, console.Status, console.Header)
	}
}

// The node's machine loses its way to one master, then to all, and gets them back. What
// is on record is right all the time.
func TestLostRoutes(t *testing.T) {
	g := newNATGrid(t)
	var v vm
	g.masters[0].must(t, "deploy_vm", obj{"node_id": "node-1", "name": "stays", "op_id": "1"}, &v)
	eventually(t, 10*time.Second, func() error {
		for _, m := range g.masters {
			if vms, err := m.vms(); err != nil || vms[v.SID].State != "running" {
				return errNotYet("%s lists %+v (%v)", m.name, vms, err)
			}
		}
		return equalRecords(g.masters...)
	})
	before := g.record()
	route := func(verb string, m *master) {
		g.home.net.ip("-n", g.home.name, "route", verb, "blackhole", m.options.in.ip)
	}
	// As long as one master hears the node, it is online for all.
	var wrong atomic.Pointer[string]
	watched, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		for watched.Err() == nil {
			for _, m := range g.masters {
				nodes, err := m.nodes()
				if n := nodes["node-1"]; err == nil && n.Status != "online" {
					text := fmt.Sprintf("%s says %s", m.name, n.Status)
					wrong.Store(&text)
				}
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	for _, m := range g.masters[:2] {
		route("add", m)
		time.Sleep(6 * time.Second) // longer than a silent node counts as online
	}
	g.masters[0].must(t, "vm_stats", obj{"node_id": "node-1", "sid": v.SID}, nil)
	stop()
	watching.Wait()
	if text := wrong.Load(); text != nil {
		t.Errorf("with a way to one master left, %s", *text)
	}
	route("add", g.masters[2])
	eventually(t, 15*time.Second, func() error {
		for _, m := range g.masters {
			if n := m.mustNodes()["node-1"]; n.Status != "offline" {
				return errNotYet("%s says %s", m.name, n.Status)
			}
		}
		return nil
	})
	if now := g.record(); now != before {
		t.Errorf("while it was away its record changed from\n%s\nto\n%s", before, now)
	}
	for _, m := range g.masters {
		route("del", m)
	}
	began := time.Now()
	eventually(t, 20*time.Second, func() error { return g.tunnelled(2) })
	t.Logf("back after %v", time.Since(began).Round(time.Millisecond))
	eventually(t, 10*time.Second, func() error { return equalRecords(g.masters...) })
	if now := g.record(); now != before {
		t.Errorf("after it came back its record has changed from\n%s\nto\n%s", before, now)
	}
}

// record is what the masters have on record of the node.
func (g *natGrid) record() string {
	g.t.Helper()
	all, err := g.masters[0].records()
	if err != nil {
		g.t.Fatal(err)
	}
	return show(all["node-1"])
}

// One master after the other is killed under a load of VM calls, by a client that knows
// all of them. No call fails, and each has run once.
func TestNoCallFailsAndNoneRunsTwice(t *testing.T) {
	g := newNATGrid(t)
	var addrs []string
	for _, m := range g.masters {
		addrs = append(addrs, "unix://"+m.socket)
	}
	masters, err := client.New(addrs, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer masters.Close()
	var v vm
	if err := masters.Call(t.Context(), "deploy_vm", obj{"node_id": "node-1", "name": "busy"}, &v); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, func() error {
		_, err := g.masters[0].vms()
		return err
	})

	const rate = 50
	var ran, failed atomic.Int64
	var slowest atomic.Int64
	var calls sync.WaitGroup
	load, stop := context.WithCancel(t.Context())
	defer stop()
	calls.Go(func() {
		tick := time.NewTicker(time.Second / rate)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-load.Done():
				return
			case <-tick.C:
			}
			calls.Go(func() {
				var res struct {
					Stdout string `json:"stdout"`
				}
				began := time.Now()
				ctx, cancel := context.WithTimeout(context.WithoutCancel(load), time.Minute)
				defer cancel()
				want := fmt.Sprint("call ", i)
				err := masters.Call(ctx, "vm_exec", obj{"node_id": "node-1", "sid": v.SID, "command": "echo " + want}, &res)
				if err == nil && strings.TrimSpace(res.Stdout) != want {
					err = fmt.Errorf("got %q", res.Stdout)
				}
				if err != nil {
					failed.Add(1)
					t.Errorf("call %d, after %v: %v", i, time.Since(began).Round(time.Millisecond), err)
					return
				}
				ran.Add(1)
				for took := time.Since(began).Milliseconds(); ; {
					if was := slowest.Load(); took <= was || slowest.CompareAndSwap(was, took) {
						break
					}
				}
			})
		}
	})
	time.Sleep(2 * time.Second)
	for _, m := range g.masters {
		m.kill()
		time.Sleep(2 * time.Second)
		m.launch()
		eventually(t, 20*time.Second, func() error { return errors.Join(meshed(g.masters...), g.tunnelled(2)) })
		time.Sleep(time.Second)
	}
	stop()
	calls.Wait()

	var counts map[string]struct{ OK, Error int64 }
	if err := g.node.compute.call("calls", obj{}, &counts); err != nil {
		t.Fatal(err)
	}
	if counts["vm_exec"].OK != ran.Load() || counts["vm_exec"].Error != 0 {
		t.Errorf("%d calls were answered, %d failed, and the node has run %+v", ran.Load(), failed.Load(), counts["vm_exec"])
	}
	t.Logf("%d calls, each run once, the slowest took %d ms; three masters killed", ran.Load(), slowest.Load())
}
