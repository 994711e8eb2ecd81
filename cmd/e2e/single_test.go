//go:build e2e

package e2e

import (
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// A master without peers and secret opens no socket but API and page, and is a
// whole explorer nonetheless, also over kill -9.
func TestSingleMaster(t *testing.T) {
	g := newGrid(t)
	m := g.startMaster("alone", masterOptions{})
	g.startAgent("node-1", agentOptions{compute: true}, m)
	eventually(t, 10*time.Second, func() error { return m.online("node-1") })

	want := []string{"tcp " + m.rpc, "tcp " + m.ui, "unix " + m.socket}
	slices.Sort(want)
	if got := sockets(t, m.cmd.Process.Pid); !slices.Equal(got, want) {
		t.Errorf("the master listens on %v, want %v", got, want)
	}

	m.register("node-2", 10, 1, obj{"labels": obj{"rack": "7"}})
	m.register("node-3", 10, 1, nil)
	m.must(t, "drain_node", obj{"node_id": "node-2"}, nil)
	m.must(t, "label_node", obj{"node_id": "node-2", "labels": obj{"zone": "b"}}, nil)
	m.must(t, "remove_node", obj{"node_id": "node-3"}, nil)
	before, err := m.records()
	if err != nil {
		t.Fatal(err)
	}

	m.kill()
	m.launch()
	after, err := m.records()
	if err != nil {
		t.Fatal(err)
	}
	// What was acknowledged a moment before the kill is there after it. node-1
	// lives, so its account may be a newer one already.
	for _, id := range []string{"node-2", "node-3"} {
		if a, b := show(before[id]), show(after[id]); a != b {
			t.Errorf("before the kill:\n%s\nafter:\n%s", a, b)
		}
	}
	if ids := slices.Sorted(maps.Keys(m.mustNodes())); !slices.Equal(ids, []string{"node-1", "node-2"}) {
		t.Errorf("after the kill the master lists %v", ids)
	}
	eventually(t, 20*time.Second, func() error {
		if n, err := m.nodes(); err != nil || n["node-1"].Status == "online" {
			return err
		}
		return errNotYet("node-1 is not online again")
	})
}

// Every service of the contract is at its path, on TCP and on the socket.
func TestPaths(t *testing.T) {
	g := newGrid(t)
	m := g.startMaster("alone", masterOptions{})
	for _, e := range []*endpoint{tcpEndpoint(m.rpc), unixEndpoint(m.socket)} {
		for path, want := range map[string]string{
			"/health":                       `"status":"ok"`,
			"/openrpc.json":                 `"openrpc"`,
			"/.well-known/heroservice.json": `"protocol":"openrpc"`,
			"/metrics":                      "# HELP",
		} {
			status, body, err := e.get(path)
			if err != nil || status != 200 || !contains(string(body), want) {
				t.Errorf("GET %s: %v, status %d, want %s in %.300s", path, err, status, want, body)
			}
		}
		for _, path := range []string{"/rpc", "/explorer/rpc"} {
			status, body, err := e.post(path, []byte(`{"jsonrpc":"2.0","id":1,"method":"ExplorerService.stats"}`))
			if err != nil || status != 200 || !contains(string(body), `"result"`) {
				t.Errorf("POST %s: %v, status %d: %s", path, err, status, body)
			}
		}
	}
	status, body, err := m.get("/health")
	if err != nil || status != 200 || !contains(string(body), testVersion) || !contains(string(body), `"hero_explorer"`) {
		t.Errorf("/health: %v, status %d: %s", err, status, body)
	}
}

// The programs answer as the contract says when they are used wrongly.
func TestExitCodes(t *testing.T) {
	g := newGrid(t)
	explorer, agent := filepath.Join(binDir, "explorer"), filepath.Join(binDir, "workeragent")
	for _, c := range []struct {
		argv []string
		code int
		says string
	}{
		{[]string{explorer, "version"}, 0, testVersion},
		{[]string{agent, "version"}, 0, testVersion},
		{[]string{explorer, "--help"}, 0, "EXPLORER_DATA_DIR"},
		{[]string{explorer, "serve", "--help"}, 0, "PEER_MASTERS"},
		{[]string{agent, "--help"}, 0, "EXPLORER_ADDRESSES"},
		{[]string{explorer, "--no-such-flag"}, 2, "no-such-flag"},
		{[]string{agent, "--no-such-flag"}, 2, "no-such-flag"},
		{[]string{explorer, "serve", "--heartbeat-interval", "never"}, 2, "heartbeat-interval"},
		{[]string{explorer, "serve", "--rpc-addr", "nonsense"}, 2, "rpc-addr"},
		{[]string{agent, "run"}, 2, "explorers"},
		{[]string{explorer, "health", "--addr", "127.0.0.1:1"}, 1, "127.0.0.1:1"},
	} {
		out, code := command(t, g.dir, g.env(), c.argv...)
		if code != c.code || !contains(out, c.says) {
			t.Errorf("%v: exit code %d, want %d and %q in:\n%s", c.argv, code, c.code, c.says, out)
		}
	}
}
