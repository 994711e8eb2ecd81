//go:build e2e

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Three machines, each with the one line of the contract: two masters that name
// each other, and a worker that names both.
func TestMakeStartModes(t *testing.T) {
	c := newClone(t)
	w := newNetwork(t, 3, "")
	one, two, three := w.hosts[0], w.hosts[1], w.hosts[2]

	// on runs a command on a machine, whose user has a home of their own.
	homes := map[*netns]string{}
	on := func(h *netns, argv ...string) (string, int) {
		t.Helper()
		env := append(slices.Clone(c.env), "HOME="+homes[h], "RUN_DIR="+filepath.Join(homes[h], "run"))
		return command(t, c.dir, env, append(h.exec(), argv...)...)
	}
	must := func(h *netns, argv ...string) string {
		t.Helper()
		out, code := on(h, argv...)
		if code != 0 {
			t.Fatalf("%v on %s: exit code %d\n%s", argv, h.ip, code, out)
		}
		return out
	}
	for i, h := range w.hosts {
		homes[h] = filepath.Join(c.dir, "..", string(rune('x'+i)))
		if err := os.Mkdir(homes[h], 0o700); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			out, code := on(h, "make", "stop")
			if code != 0 {
				t.Errorf("make stop on %s: exit code %d", h.ip, code)
			}
			if t.Failed() {
				t.Logf("make stop on %s:\n%s", h.ip, out)
				for _, log := range []string{"explorer", "workeragent"} {
					t.Logf("log of %s:\n%s", log, tail(filepath.Join(homes[h], "run", log+".log"), 30))
				}
			}
		})
	}
	must(one, "make", "start", "MODE=master", "PEER_MASTERS="+two.ip)
	must(two, "make", "start", "MODE=master", "PEER_MASTERS="+one.ip+","+two.ip)
	must(three, "make", "start", "MODE=worker", "EXPLORER_ADDRESSES="+one.ip+",tcp://"+two.ip+":9002")

	var masters []*master
	for _, h := range []*netns{one, two} {
		m := &master{name: h.ip, process: &process{t: t}, endpoint: unixEndpoint(filepath.Join(homes[h], "hero/var/sockets/hero_compute/explorer_rpc.sock"))}
		var list masterList
		m.must(t, "masters", nil, &list)
		m.id = list.Self
		masters = append(masters, m)
		// API and page are there for the other machines, too.
		for _, port := range []string{":9002", ":9001"} {
			must(three, "bin/explorer", "health", "--addr", h.ip+port)
		}
	}
	eventually(t, 15*time.Second, func() error { return meshed(masters...) })
	var id string
	eventually(t, 15*time.Second, func() error {
		nodes, err := masters[0].nodes()
		if err != nil || len(nodes) != 1 {
			return errNotYet("%d nodes are listed (%v)", len(nodes), err)
		}
		for id = range nodes {
		}
		return errors.Join(masters[0].online(id), masters[1].online(id), equalRecords(masters...))
	})

	// From another machine, nobody drains a node without a token.
	if out, code := on(three, "bin/explorer", "nodes", "drain", id, "--addr", one.ip); code == 0 || !contains(out, "token") {
		t.Errorf("draining a node from another machine without a token: exit code %d\n%s", code, out)
	}
	must(one, "bin/explorer", "nodes", "drain", id)
	eventually(t, 5*time.Second, func() error {
		if n, err := masters[1].nodes(); err != nil || !n[id].Drained {
			return errNotYet("the other master does not know yet that the node is drained (%v)", err)
		}
		return nil
	})
}
