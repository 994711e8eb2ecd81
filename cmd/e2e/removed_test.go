//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The agent of a node that was removed through one master is told so by all of them,
// and says it; started anew, it is back. Both masters tell who removed the node, and
// through which of them.
func TestRemovedAgentIsTold(t *testing.T) {
	g := newGrid(t)
	a, b := g.twoMasters("--heartbeat-interval", "1s", "--offline-after", "4s")
	ag := g.startAgent("node-1", agentOptions{}, a, b)
	// An event names the master as it is known at that moment, which takes a pulse.
	eventually(t, 10*time.Second, func() error {
		return errors.Join(a.online("node-1"), b.online("node-1"), meshed(a, b))
	})
	var known node
	a.must(t, "get_node", obj{"node_id": "node-1"}, &known)
	a.must(t, "remove_node", obj{"node_id": "node-1", "reason": "sold"}, nil)

	eventually(t, 15*time.Second, func() error {
		var status struct {
			Explorers []struct {
				Address   string `json:"address"`
				State     string `json:"state"`
				LastError string `json:"last_error"`
			} `json:"explorers"`
		}
		out, code := command(t, g.dir, g.env(), filepath.Join(binDir, "workeragent"), "status", "--data-dir", ag.dir, "--json")
		if err := json.Unmarshal([]byte(out), &status); code != 0 || err != nil {
			t.Fatalf("workeragent status ends with %d: %s", code, out)
		}
		refused := 0
		for _, e := range status.Explorers {
			if e.State == "refused" && strings.Contains(e.LastError, "an operator removed this node") {
				refused++
			}
		}
		if refused != 2 {
			return errNotYet("the agent does not know that it was removed: %+v", status.Explorers)
		}
		return nil
	})
	out, _ := command(t, g.dir, g.env(), filepath.Join(binDir, "workeragent"), "status", "--data-dir", ag.dir)
	if !strings.Contains(out, "restart the agent to register it anew") {
		t.Errorf("workeragent status does not say what to do:\n%s", out)
	}
	for _, m := range []*master{a, b} {
		err := m.call("node_heartbeat", obj{"node_id": "node-1", "boot": known.Boot, "seq": 1 << 40}, nil)
		refusal, ok := errors.AsType[*rpcError](err)
		if !ok || refusal.Code != -32006 || !strings.Contains(string(refusal.Data), `"reason":"removed"`) {
			t.Errorf("%s answers a beat of the removed boot: %v", m.name, err)
		}
		if ids := m.mustNodes(); len(ids) != 0 {
			t.Errorf("%s lists %v", m.name, ids)
		}
		out, code := command(t, g.dir, g.env(), filepath.Join(binDir, "explorer"), "events", "--kind", "operator", "--addr", m.rpc)
		if said := "node-1 removed by local through " + a.name + ": sold"; code != 0 || strings.Count(out, said) != 1 {
			t.Errorf("%s does not say %q once:\n%s", m.name, said, out)
		}
	}

	ag.stop()
	g.startAgent("node-1", agentOptions{}, a, b)
	eventually(t, 10*time.Second, func() error { return errors.Join(a.online("node-1"), b.online("node-1")) })
}
