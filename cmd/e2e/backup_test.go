//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// cli runs an explorer command against a master.
func (m *master) cli(args ...string) (output string, code int) {
	m.t.Helper()
	argv := append([]string{filepath.Join(binDir, "explorer")}, args...)
	return command(m.t, m.grid.dir, m.grid.env(), append(argv, "--addr", m.rpc)...)
}

// mustCLI runs a command that has to succeed, and decodes what it prints.
func (m *master) mustCLI(into any, args ...string) {
	m.t.Helper()
	out, code := m.cli(append(args, "--json")...)
	if code != 0 {
		m.t.Fatalf("explorer %v: exit code %d\n%s", args, code, out)
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		m.t.Fatalf("explorer %v: %v\n%s", args, err, out)
	}
}

// digest returns the digest of all that a master has on record.
func (m *master) digest() string {
	m.t.Helper()
	var list masterList
	m.must(m.t, "masters", nil, &list)
	return list.Masters[0].Digest
}

type transferred struct {
	Nodes   int `json:"nodes"`
	Changed int `json:"changed"`
}

// A backup gives two empty masters that do not know each other the same records
// as the one it was taken from, and is no way to bring a removed node back.
func TestBackupAndRestore(t *testing.T) {
	g := newGrid(t)
	from := g.startMaster("alder", masterOptions{})
	one, two := g.startMaster("birch", masterOptions{}), g.startMaster("cedar", masterOptions{})
	const nodes = 200
	for i := range nodes {
		from.register(fmt.Sprintf("node-%03d", i), 10, 1, obj{"vms": []obj{{"sid": fmt.Sprint("vm-", i), "name": "web", "state": "running"}}})
	}
	from.must(t, "drain_node", obj{"node_id": "node-001"}, nil)
	from.must(t, "remove_node", obj{"node_id": "node-002"}, nil)

	var saved, restored transferred
	from.mustCLI(&saved, "backup", "first")
	if info, err := os.Stat(filepath.Join(g.dir, "first")); err != nil || info.Mode().Perm() != 0o600 || saved.Nodes != nodes {
		t.Fatalf("saved %+v, %v, %v", saved, info, err)
	}
	if out, code := from.cli("backup", "first"); code != 1 {
		t.Errorf("a backup is overwritten: %s", out)
	}
	want, digest := from.mustNodes(), from.digest()
	for _, m := range []*master{one, two, from} {
		for _, changed := range []int{nodes, 0} {
			if m == from {
				changed = 0
			}
			m.mustCLI(&restored, "restore", "first")
			if restored != (transferred{nodes, changed}) {
				t.Errorf("restored on %s: %+v, want %d changed", m.name, restored, changed)
			}
		}
		if err := sameIDs(m.name, m.mustNodes(), slices.Collect(maps.Keys(want))); err != nil {
			t.Error(err)
		}
		if m.digest() != digest {
			t.Errorf("%s has another digest after restoring", m.name)
		}
	}

	// What was restored is on disk.
	two.kill()
	two.launch()
	if two.digest() != digest {
		t.Error("restored records did not survive SIGKILL")
	}

	// What has happened since stands.
	one.must(t, "remove_node", obj{"node_id": "node-003"}, nil)
	one.must(t, "undrain_node", obj{"node_id": "node-001"}, nil)
	since := one.digest()
	one.mustCLI(&restored, "restore", "first")
	if restored.Changed != 0 || one.digest() != since {
		t.Errorf("an old backup has changed something: %+v", restored)
	}
	var n node
	one.must(t, "get_node", obj{"node_id": "node-003"}, &n)
	if n.RemovedAt == nil {
		t.Error("an old backup has brought a removed node back")
	}
	if err := one.call("node_heartbeat", obj{"node_id": "node-003", "boot": 10, "seq": 2}, nil); err == nil {
		t.Error("a removed node is heard after restoring")
	}

	// A damaged file changes nothing.
	file, err := os.ReadFile(filepath.Join(g.dir, "first"))
	if err != nil {
		t.Fatal(err)
	}
	file[len(file)/2] ^= 1
	if err := os.WriteFile(filepath.Join(g.dir, "damaged"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	before := two.digest()
	if out, code := two.cli("restore", "damaged"); code != 1 || !contains(out, "not a backup") {
		t.Errorf("restoring a damaged file: %d %s", code, out)
	}
	if two.digest() != before {
		t.Error("a damaged file has changed something")
	}
}

// explorer diff compares two masters by name, whatever their state.
func TestDiff(t *testing.T) {
	g := newGrid(t)
	a, b := g.twoMasters()
	eventually(t, 15*time.Second, func() error { return meshed(a, b) })
	a.register("node-1", 10, 1, nil)
	b.register("node-2", 10, 1, nil)
	eventually(t, 5*time.Second, func() error { return equalRecords(a, b) })
	for _, asked := range []*master{a, b} {
		for _, other := range []string{a.name, b.name, a.id, b.id} {
			var d struct {
				Equal  bool
				Digest struct{ Self, Other string }
				Nodes  []obj
			}
			asked.mustCLI(&d, "diff", other)
			if !d.Equal || len(d.Nodes) > 0 || d.Digest.Self != asked.digest() || d.Digest.Other != d.Digest.Self {
				t.Errorf("%s compared with %s: %+v", asked.name, other, d)
			}
		}
	}
	if out, code := a.cli("diff", "nobody"); code != 1 || !contains(out, "nobody is not known") {
		t.Errorf("an unknown master: %d %s", code, out)
	}
	b.kill()
	if out, code := a.cli("diff", b.name); code != 1 || !contains(out, "cannot be reached") {
		t.Errorf("a master that is gone: %d %s", code, out)
	}
}
