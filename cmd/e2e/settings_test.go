//go:build e2e

package e2e

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Of two masters one is stricter than the node beats, which it hears by way of the other
// only. The node is online at both, all the time. That the settings
// differ is shown everywhere.
func TestSettingsOfMastersDiffer(t *testing.T) {
	const beatEvery, watched = 10 * time.Second, 35 * time.Second
	g := newGrid(t)
	ports := []*ports{newPorts(t), newPorts(t)}
	peers := []string{ports[0].mesh, ports[1].mesh}
	strict := g.newMaster("strict", masterOptions{peers: peers, ports: ports[0], args: []string{"--heartbeat-interval", "1s", "--offline-after", "3s"}})
	lax := g.newMaster("lax", masterOptions{peers: peers, ports: ports[1], args: []string{"--heartbeat-interval", "10s", "--offline-after", "30s"}})
	strict.run()
	lax.run()
	masters := []*master{strict, lax}
	eventually(t, 20*time.Second, func() error { return errors.Join(strict.healthy(), lax.healthy()) })

	lax.must(t, "register_node", obj{"node_id": "n1", "boot": 1, "seq": 1}, nil)
	last := time.Now()
	eventually(t, 10*time.Second, func() error { return errors.Join(strict.online("n1"), lax.online("n1")) })

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var heard []string
	var following sync.WaitGroup
	for _, m := range masters {
		following.Go(func() {
			if err := m.follow(ctx, func(id, status string) {
				mu.Lock()
				defer mu.Unlock()
				heard = append(heard, m.name+" says that "+id+" is "+status)
			}); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	seq := 1
	for began := time.Now(); time.Since(began) < watched; time.Sleep(100 * time.Millisecond) {
		if time.Since(last) >= beatEvery {
			seq++
			lax.must(t, "node_heartbeat", obj{"node_id": "n1", "boot": 1, "seq": seq}, nil)
			last = time.Now()
		}
		for _, m := range masters {
			if err := m.online("n1"); err != nil {
				t.Fatalf("%v after the last beat: %v", time.Since(last).Round(time.Millisecond), err)
			}
		}
	}
	cancel()
	following.Wait()
	for _, text := range heard {
		if !strings.HasSuffix(text, "online") {
			t.Error(text)
		}
	}

	var list struct {
		Masters []struct {
			Name           string   `json:"name"`
			SettingsDiffer []string `json:"settings_differ"`
		} `json:"masters"`
	}
	strict.must(t, "masters", nil, &list)
	for _, m := range list.Masters {
		if got := strings.Join(m.SettingsDiffer, "; "); m.Name == "lax" && got != "offline-after: 30s there, 3s here; heartbeat-interval: 10s there, 1s here" {
			t.Errorf("strict says that settings of lax differ: %q", got)
		}
	}
	out, code := command(t, g.dir, g.env(), filepath.Join(binDir, "explorer"), "status", "--addr", strict.rpc)
	if code != 1 || !contains(out, "settings of lax differ from this master's: offline-after: 30s there, 3s here") {
		t.Errorf("explorer status ends with %d and says:\n%s", code, out)
	}
	if _, body, err := strict.get("/metrics"); err != nil || !contains(string(body), `name="lax"} 2`) || !contains(string(body), "hero_explorer_master_settings_differ{") {
		t.Errorf("the metric does not tell that two settings of lax differ: %v", err)
	}
}

// A VM is used by its name the moment its deployment is acknowledged, and is not found any
// more the moment its deletion is.
func TestDeployedVMIsUsedAtOnce(t *testing.T) {
	g := newGrid(t)
	m := g.startMaster("m", masterOptions{})
	g.startAgent("node-1", agentOptions{compute: true}, m)
	eventually(t, 10*time.Second, func() error { return m.online("node-1") })
	explorer := func(want int, args ...string) string {
		t.Helper()
		out, code := command(t, g.dir, g.env("EXPLORER_ADDR="+m.rpc), append([]string{filepath.Join(binDir, "explorer")}, args...)...)
		if code != want {
			t.Fatalf("explorer %v ends with %d, want %d:\n%s", args, code, want, out)
		}
		return out
	}
	for range 5 {
		explorer(0, "vms", "deploy", "--node", "node-1", "--name", "web")
		explorer(0, "vms", "stop", "web")
		explorer(0, "vms", "delete", "web")
		explorer(1, "vms", "get", "web")
	}
	if out := explorer(0, "status"); !contains(out, "all is well") {
		t.Errorf("explorer status says:\n%s", out)
	}
}
