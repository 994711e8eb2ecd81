//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// strangers keep a number of connections open to an address, from many others, on which a
// request begins and does not end. They come again when they are turned away.
func strangers(t *testing.T, n int, addr, begin string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i%10))}}
			for ctx.Err() == nil {
				if c, err := d.DialContext(ctx, "tcp", addr); err == nil {
					end := context.AfterFunc(ctx, func() { _ = c.Close() })
					_, _ = io.WriteString(c, begin)
					_, _ = io.Copy(io.Discard, c)
					end()
					_ = c.Close()
				}
				select {
				case <-ctx.Done():
				case <-time.After(200 * time.Millisecond):
				}
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

// With few file descriptors, while strangers hold as many connections as they can get to
// every listener, a master takes writes on new connections, answers on its socket and on
// /health, keeps its agents, and meets a master that comes back.
func TestFewDescriptors(t *testing.T) {
	g := newGrid(t)
	edge := freeAddr(t)
	few := []string{"sh", "-c", `ulimit -n 256 && exec "$0" "$@"`}
	pa, pb := newPorts(t), newPorts(t)
	a := g.startMaster("a", masterOptions{ports: pa, peers: []string{pb.mesh}, under: few, args: append(g.secretFile(), "--edge-addr", edge)})
	b := g.startMaster("b", masterOptions{ports: pb, peers: []string{pa.mesh}, args: g.secretFile()})
	g.startAgent("beats", agentOptions{}, a)
	eventually(t, 20*time.Second, func() error { return a.online("beats") })

	const half = "POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Le"
	for _, to := range []struct{ addr, begin string }{{a.rpc, half}, {a.ui, half}, {a.mesh, "\x13/multi"}, {edge, "\x13/multi"}} {
		defer strangers(t, 400, to.addr, to.begin)()
	}
	// They have what they can get as soon as some were turned away.
	eventually(t, 20*time.Second, func() error {
		_, metrics, err := unixEndpoint(a.socket).get("/metrics")
		if err == nil && !strings.Contains(string(metrics), `hero_explorer_connections_closed_total{listener="rpc-addr"`) {
			err = errNotYet("no connection had to make room yet")
		}
		return err
	})

	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	var slowest time.Duration
	for i := range 100 {
		body := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"register_node","params":{"node_id":"n%d","boot":1,"seq":1}}`, i)
		began := time.Now()
		resp, err := fresh.Post("http://"+a.rpc+"/rpc", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
		answer, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || !strings.Contains(string(answer), `"accepted":true`) {
			t.Fatalf("write %d is answered %s, %v", i, answer, err)
		}
		slowest = max(slowest, time.Since(began))
	}
	t.Logf("100 writes on new connections, the slowest took %v", slowest)
	if err := a.healthy(); err != nil {
		t.Error(err)
	}
	if status, _, err := unixEndpoint(a.socket).get("/health"); status != 200 {
		t.Errorf("on the socket /health answers %d, %v", status, err)
	}
	eventually(t, 10*time.Second, func() error { return equalRecords(a, b) })

	b.kill()
	b.launch()
	eventually(t, 10*time.Second, func() error { return meshed(a, b) })
	a.register("after", 1, 1, nil)
	eventually(t, 10*time.Second, func() error { return equalRecords(a, b) })
	if n := a.mustNodes()["beats"]; n.Status != "online" {
		t.Errorf("the agent's node is %s", n.Status)
	}

	log, err := os.ReadFile(a.log)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(log), "\n"); n > 40 {
		t.Errorf("%d lines in the log of %s, of which the last are\n%s", n, filepath.Base(a.log), log[max(0, len(log)-4000):])
	}
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.cmd.Process.Pid))
	if err != nil || len(open) >= 256 {
		t.Errorf("%d descriptors are open, %v", len(open), err)
	}
	t.Logf("%d descriptors are open", len(open))
}
