//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// grid is what one test runs.
type grid struct {
	t   *testing.T
	dir string
	bin string // where the programs are
}

func newGrid(t *testing.T) *grid {
	t.Helper()
	return &grid{t: t, dir: tempDir(t), bin: binDir}
}

// env is the environment of every process: a home of the test's own, and
// nothing that could configure the programs by chance.
func (g *grid) env(extra ...string) []string {
	return append([]string{
		"HOME=" + g.dir,
		"PATH=" + os.Getenv("PATH"),
		"HERO_SOCKET_DIR=" + filepath.Join(g.dir, "sockets"),
	}, extra...)
}

// master is a running explorer.
type master struct {
	*process
	*endpoint // its API
	name      string
	rpc, ui   string // host:port
	mesh      string
	socket    string
	dir       string
	id        string // the id by which masters know it, once it runs
	grid      *grid
	options   masterOptions
}

type masterOptions struct {
	peers []string // PEER_MASTERS
	args  []string // further flags
	env   []string // further variables
	in    *netns   // the network it lives in; nil: this one
	// ports are those that others know already; nil: free ones.
	ports *ports
	edge  bool     // on loopback: agents can open tunnels to it
	under []string // a program that becomes the master's, and its arguments
}

// ports are those of one master on loopback.
type ports struct{ rpc, ui, mesh string }

func newPorts(t *testing.T) *ports {
	t.Helper()
	return &ports{rpc: freeAddr(t), ui: freeAddr(t), mesh: freeAddr(t)}
}

// startMaster starts a master and waits until it is healthy. On loopback every
// listener gets a free port; in a network of its own the master has the
// defaults, on all addresses.
func (g *grid) startMaster(name string, o masterOptions) *master {
	g.t.Helper()
	m := g.newMaster(name, o)
	m.launch()
	return m
}

// newMaster prepares a master that does not run.
func (g *grid) newMaster(name string, o masterOptions) *master {
	g.t.Helper()
	m := &master{
		name: name, grid: g, options: o, dir: filepath.Join(g.dir, name),
		socket: filepath.Join(g.dir, name+".sock"),
	}
	switch {
	case o.in != nil:
		m.rpc, m.ui, m.mesh = o.in.ip+":9002", o.in.ip+":9001", o.in.ip+":9004"
	case o.ports != nil:
		m.rpc, m.ui, m.mesh = o.ports.rpc, o.ports.ui, o.ports.mesh
	default:
		m.rpc, m.ui, m.mesh = freeAddr(g.t), freeAddr(g.t), freeAddr(g.t)
	}
	return m
}

// launch runs the master's process, again after it was killed, and waits until it
// is healthy.
func (m *master) launch() {
	m.grid.t.Helper()
	m.run()
	eventually(m.grid.t, 30*time.Second, func() error {
		m.mustRun()
		return m.healthy()
	})
	var list masterList
	m.must(m.grid.t, "masters", nil, &list)
	m.id = list.Self
}

// healthy returns nil when /health does.
func (m *master) healthy() error {
	status, body, err := m.get("/health")
	if err == nil && status != 200 {
		err = fmt.Errorf("/health answers %d %s", status, body)
	}
	return err
}

// run starts the master's process.
func (m *master) run() {
	g, o := m.grid, m.options
	g.t.Helper()
	argv := append(slices.Clone(o.under), filepath.Join(g.bin, "explorer"), "serve",
		"--name", m.name, "--data-dir", m.dir, "--rpc-socket", m.socket)
	if o.in != nil {
		argv = append(o.in.exec(), argv...)
		argv = append(argv, "--rpc-addr", "0.0.0.0:9002", "--ui-addr", "0.0.0.0:9001")
		// Unix sockets reach into other networks.
		m.endpoint = unixEndpoint(m.socket)
	} else {
		argv = append(argv, "--rpc-addr", m.rpc, "--ui-addr", m.ui)
		if o.edge {
			argv = append(argv, "--edge-addr", freeAddr(g.t))
		}
		if len(o.peers) > 0 || slices.Contains(o.args, "--cluster-secret-file") {
			argv = append(argv, "--mesh-addr", m.mesh)
			if !o.edge {
				argv = append(argv, "--edge-addr", "off")
			}
		}
		m.endpoint = tcpEndpoint(m.rpc)
	}
	if len(o.peers) > 0 {
		argv = append(argv, "--peer-masters", strings.Join(o.peers, ","))
	}
	m.process = start(g.t, m.name, g.dir, g.env(o.env...), append(argv, o.args...)...)
}

// agent is a running workeragent and the compute service beside it.
type agent struct {
	*process
	nodeID  string
	compute *endpoint // nil: none
	beside  *process  // of the compute service
	dir     string
}

type agentOptions struct {
	compute bool
	args    []string
	env     []string
	in      *netns
}

// startAgent starts an agent that reports to the given masters.
func (g *grid) startAgent(nodeID string, o agentOptions, masters ...*master) *agent {
	g.t.Helper()
	a := &agent{nodeID: nodeID, dir: filepath.Join(g.dir, nodeID)}
	socket := filepath.Join(g.dir, nodeID+"-vm.sock")
	if o.compute {
		a.beside = start(g.t, nodeID+"-compute", g.dir, g.env(), filepath.Join(g.bin, "computenode"), "--socket", socket)
		a.compute = unixEndpoint(socket)
		eventually(g.t, 10*time.Second, func() error { return a.compute.call("list_vms", obj{}, nil) })
	}
	var explorers []string
	for _, m := range masters {
		explorers = append(explorers, m.rpc)
	}
	var argv []string
	if o.in != nil {
		argv = o.in.exec()
	}
	argv = append(argv, filepath.Join(g.bin, "workeragent"), "run",
		"--node-id", nodeID, "--data-dir", a.dir, "--compute", "unix://"+socket,
		"--explorers", strings.Join(explorers, ","))
	a.process = start(g.t, nodeID, g.dir, g.env(o.env...), append(argv, o.args...)...)
	return a
}

// nodes lists all nodes of a master by id.
func (m *master) nodes() (map[string]node, error) {
	var page struct {
		Nodes []node `json:"nodes"`
		Total int    `json:"total"`
	}
	if err := m.call("list_nodes", obj{"limit": 1000}, &page); err != nil {
		return nil, err
	}
	byID := make(map[string]node, len(page.Nodes))
	for _, n := range page.Nodes {
		byID[n.NodeID] = n
	}
	if len(byID) != page.Total || len(byID) != len(page.Nodes) {
		return nil, fmt.Errorf("list_nodes of %s: %d nodes, %d different ones, total %d", m.name, len(page.Nodes), len(byID), page.Total)
	}
	return byID, nil
}

// mustNodes lists all nodes of a master.
func (m *master) mustNodes() map[string]node {
	m.t.Helper()
	nodes, err := m.nodes()
	if err != nil {
		m.t.Fatal(err)
	}
	return nodes
}

// vms lists all VMs of a master by sid, without the times.
func (m *master) vms() (map[string]vm, error) {
	var page struct {
		VMs   []vm `json:"vms"`
		Total int  `json:"total"`
	}
	if err := m.call("list_vms", obj{"limit": 1000}, &page); err != nil {
		return nil, err
	}
	bySID := make(map[string]vm, len(page.VMs))
	for _, v := range page.VMs {
		bySID[v.SID] = v
	}
	if len(bySID) != page.Total {
		return nil, fmt.Errorf("list_vms of %s: %d VMs, total %d", m.name, len(bySID), page.Total)
	}
	return bySID, nil
}

// online returns an error unless the master lists exactly these nodes, all
// online.
func (m *master) online(ids ...string) error {
	nodes, err := m.nodes()
	if err != nil {
		return err
	}
	if err := sameIDs(m.name, nodes, ids); err != nil {
		return err
	}
	for _, id := range ids {
		if nodes[id].Status != "online" {
			return fmt.Errorf("%s says that %s is %s", m.name, id, nodes[id].Status)
		}
	}
	return nil
}

func sameIDs(master string, nodes map[string]node, ids []string) error {
	have, want := slices.Sorted(maps.Keys(nodes)), slices.Sorted(slices.Values(ids))
	if !slices.Equal(have, want) {
		return fmt.Errorf("%s lists %v, want %v", master, have, want)
	}
	return nil
}

// volatile are the fields of a node that two masters may see differently at one
// instant: what they hear right now.
var volatile = []string{"status", "reason", "seen_by", "last_seen", "usage", "uptime_s", "tunnel"}

// records returns what a master has on record, removed nodes included, in full.
func (m *master) records() (map[string]obj, error) {
	var page struct {
		Nodes []obj `json:"nodes"`
	}
	if err := m.call("list_nodes", obj{"limit": 1000, "include_removed": true}, &page); err != nil {
		return nil, err
	}
	byID := map[string]obj{}
	for _, n := range page.Nodes {
		for _, field := range volatile {
			delete(n, field)
		}
		byID[n["node_id"].(string)] = n
	}
	return byID, nil
}

// equalRecords returns an error unless all masters have the same on record, and
// say so themselves.
func equalRecords(masters ...*master) error {
	first, err := masters[0].records()
	if err != nil {
		return err
	}
	for _, m := range masters[1:] {
		other, err := m.records()
		if err != nil {
			return err
		}
		if !reflect.DeepEqual(first, other) {
			return fmt.Errorf("%s and %s differ:\n%s\n%s", masters[0].name, m.name, show(first), show(other))
		}
		var diff struct {
			Equal bool              `json:"equal"`
			Nodes []json.RawMessage `json:"nodes"`
		}
		if err := masters[0].call("diff", obj{"master": m.id}, &diff); err != nil {
			return err
		}
		if !diff.Equal || len(diff.Nodes) > 0 {
			return fmt.Errorf("%s says that %s differs: %s", masters[0].name, m.name, diff.Nodes)
		}
	}
	return inSync(masters...)
}

// inSync returns an error unless every master says that the others it can talk
// to have what it has, and all give the same digest.
func inSync(masters ...*master) error {
	for _, m := range masters {
		var list masterList
		if err := m.call("masters", nil, &list); err != nil {
			return err
		}
		for _, other := range list.Masters {
			if (other.Status == "alive" || other.Status == "self") && (!other.InSync || other.Digest != list.Masters[0].Digest || other.Digest == "") {
				return fmt.Errorf("%s does not see %s in sync: %+v", m.name, other.Name, list.Masters)
			}
		}
	}
	return nil
}

func show(v any) string {
	b, _ := json.MarshalIndent(v, "    ", "  ")
	return string(b)
}

// meshed returns an error unless every master sees exactly all the others
// alive.
func meshed(masters ...*master) error {
	for _, m := range masters {
		var list masterList
		if err := m.call("masters", nil, &list); err != nil {
			return err
		}
		seen := map[string]string{}
		for _, other := range list.Masters {
			if _, twice := seen[other.ID]; twice {
				return fmt.Errorf("%s lists the master %s twice", m.name, other.ID)
			}
			seen[other.ID] = other.Status
		}
		want := map[string]string{}
		for _, other := range masters {
			want[other.id] = "alive"
		}
		want[m.id] = "self"
		if !maps.Equal(seen, want) {
			return fmt.Errorf("%s lists masters %v, want %v", m.name, seen, want)
		}
	}
	return nil
}

// register registers a node that no process stands for.
func (m *master) register(id string, boot, seq uint64, fields obj) {
	m.t.Helper()
	report := obj{
		"node_id": id, "boot": boot, "seq": seq, "hostname": id, "version": "v1",
		"socket_path": "unix:///nonexistent/rpc.sock",
		"total":       obj{"cru": 8, "mru": 32 << 30, "sru": 1 << 40, "hru": 0},
		"vms":         []obj{},
	}
	maps.Copy(report, fields)
	var answer struct {
		Accepted bool `json:"accepted"`
	}
	m.must(m.t, "register_node", report, &answer)
}

var (
	handedOut   = map[string]bool{}
	handedOutMu sync.Mutex
)

// freeAddr returns a loopback address whose port was free a moment ago, and
// never the same twice.
func freeAddr(t *testing.T) string {
	t.Helper()
	handedOutMu.Lock()
	defer handedOutMu.Unlock()
	for {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		l.Close()
		if !handedOut[addr] {
			handedOut[addr] = true
			return addr
		}
	}
}

// secretFile writes a cluster secret and returns the flags for it.
func (g *grid) secretFile() []string {
	g.t.Helper()
	path := filepath.Join(g.dir, "secret")
	if err := os.WriteFile(path, []byte("a secret of the tests\n"), 0o600); err != nil {
		g.t.Fatal(err)
	}
	return []string{"--cluster-secret-file", path}
}
