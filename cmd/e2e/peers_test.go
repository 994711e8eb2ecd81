//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// peerRows are the configured peers that a master has not met, and why.
func (m *master) peerRows(t *testing.T) map[string]string {
	t.Helper()
	var list struct {
		Masters []struct {
			Name, Status, Cause, Reason string
			Since                       time.Time
		} `json:"masters"`
	}
	m.must(t, "masters", nil, &list)
	rows := map[string]string{}
	for _, one := range list.Masters {
		if one.Status != "never_met" {
			continue
		}
		rows[one.Name] = one.Cause
		if one.Cause != "" && (one.Reason == "" || time.Since(one.Since) > 5*time.Minute) {
			t.Errorf("%s: %+v", m.name, one)
		}
	}
	return rows
}

// A master says of each configured peer why it was not met, and stops when it is.
func TestPeersThatWereNeverMet(t *testing.T) {
	g := newGrid(t)
	secret := g.secretFile()
	other := filepath.Join(g.dir, "other-secret")
	if err := os.WriteFile(other, []byte("another secret of the cluster\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	pa, pb, ps, absent := newPorts(t), newPorts(t), newPorts(t), newPorts(t)
	g.startMaster("b", masterOptions{ports: pb, args: secret})
	g.startMaster("s", masterOptions{ports: ps, args: []string{"--cluster-secret-file", other}})
	_, port, _ := strings.Cut(pa.mesh, ":")
	a := g.startMaster("a", masterOptions{ports: pa, args: secret, peers: []string{
		pa.mesh, "localhost:" + port, pb.mesh, pb.rpc, ps.mesh, absent.mesh, "no-such-host.invalid",
	}})
	want := map[string]string{pb.rpc: "no_mesh_port", ps.mesh: "secret", absent.mesh: "refused", "no-such-host.invalid": "unreachable"}
	eventually(t, 15*time.Second, func() error {
		if got := a.peerRows(t); fmt.Sprint(got) != fmt.Sprint(want) {
			return errNotYet("not met: %v, want %v", got, want)
		}
		return nil
	})
	_, metrics, err := a.get("/metrics")
	if err != nil || !contains(string(metrics), fmt.Sprintf(`hero_explorer_peer_never_met{cause="secret",peer="%s"} 1`, ps.mesh)) {
		t.Errorf("the metrics do not tell of the secret: %v", err)
	}
	out, _ := command(t, g.dir, g.env(), filepath.Join(g.bin, "explorer"), "masters", "--addr", a.rpc)
	if !contains(out, pb.rpc+" was never met: the API of a master answers there") {
		t.Errorf("explorer masters says\n%s", out)
	}
	if out, code := command(t, g.dir, g.env(), filepath.Join(g.bin, "explorer"), "status", "--addr", a.rpc); code != 1 || !contains(out, absent.mesh) {
		t.Errorf("explorer status ends with %d:\n%s", code, out)
	}

	// The absent one is started.
	g.startMaster("late", masterOptions{ports: absent, args: secret})
	delete(want, absent.mesh)
	eventually(t, 10*time.Second, func() error {
		if got := a.peerRows(t); fmt.Sprint(got) != fmt.Sprint(want) {
			return errNotYet("not met: %v, want %v", got, want)
		}
		return nil
	})
}

// One absent peer does not fill the log.
func TestAbsentPeerIsLoggedOnce(t *testing.T) {
	g := newGrid(t)
	absent := newPorts(t)
	began := time.Now()
	a := g.startMaster("a", masterOptions{peers: []string{absent.mesh}, args: g.secretFile()})
	time.Sleep(time.Until(began.Add(time.Minute))) // the minute is what is looked at
	log, err := os.ReadFile(a.log)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(log), "\n"); n > 5 || strings.Count(string(log), "was not met") != 1 {
		t.Errorf("%d lines in a minute:\n%s", n, log)
	}
}

// Masters and an agent on hosts that have only IPv6 addresses find each other with the
// defaults, and the agent reaches its master by a tunnel.
func TestIPv6Only(t *testing.T) {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		skip(t, "this system has no IPv6")
	}
	g := newGrid(t)
	w := newNetwork(t, 3, "")
	for i, h := range w.hosts {
		w.ip("-n", h.name, "addr", "flush", "dev", "eth0", "scope", "global")
		w.ip("-n", h.name, "addr", "del", "127.0.0.1/8", "dev", "lo") // not even that
		h.ip = fmt.Sprintf("fd99::%d", i+1)
		if out, err := exec.Command("ip", "-n", h.name, "addr", "add", h.ip+"/64", "dev", "eth0", "nodad").CombinedOutput(); err != nil {
			skip(t, fmt.Sprintf("this machine does not allow IPv6 addresses: %s", out))
		}
	}
	one, two := w.hosts[0], w.hosts[1]
	peers := []string{one.ip, "[" + two.ip + "]:9004"}
	a := g.startMaster("a", masterOptions{in: one, peers: peers, args: g.secretFile()})
	b := g.startMaster("b", masterOptions{in: two, peers: peers, args: g.secretFile()})
	eventually(t, 10*time.Second, func() error { return meshed(a, b) })
	// The API and the page listen there too, on what means all addresses.
	for _, url := range []string{"http://[" + one.ip + "]:9002/health", "http://[" + one.ip + "]:9001/"} {
		if out, code := command(t, g.dir, g.env(), append(two.exec(), "curl", "-sSf", "--max-time", "5", url)...); code != 0 {
			t.Errorf("%s: %s", url, out)
		}
	}

	edge := &master{rpc: "/ip6/" + one.ip + "/tcp/9005"} // who that is the handshake proves
	g.startAgent("n1", agentOptions{in: w.hosts[2], compute: true}, edge)
	eventually(t, 20*time.Second, func() error {
		for _, m := range []*master{a, b} {
			if err := m.online("n1"); err != nil {
				return err
			}
		}
		var n struct {
			Tunnel []string `json:"tunnel"`
		}
		b.must(t, "get_node", obj{"node_id": "n1"}, &n)
		if len(n.Tunnel) != 2 {
			return errNotYet("the agent has tunnels to %v", n.Tunnel)
		}
		return nil
	})
	if len(a.peerRows(t))+len(b.peerRows(t)) != 0 {
		t.Errorf("never met: %v and %v", a.peerRows(t), b.peerRows(t))
	}
}
