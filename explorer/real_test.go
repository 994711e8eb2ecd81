package explorer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// startReal starts a master on a store on disk.
func startReal(t *testing.T, cfg Config) *testMaster {
	t.Helper()
	s, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Stop(t.Context()) })
	return &testMaster{Server: s, t: t, url: "http://" + s.RPCAddr().String(), page: "http://" + s.UIAddr().String()}
}

// What only the store can check is still told by the name of the flag.
func TestStoreFields(t *testing.T) {
	for flag, change := range map[string]func(*Config){
		"peer-masters": func(c *Config) { c.PeerMasters = []string{"/ip4/nonsense"} },
		"mesh-addr":    func(c *Config) { c.MeshAddr = "/ip4/nonsense" },
		"advertise":    func(c *Config) { c.PeerMasters, c.Advertise = []string{"127.0.0.1"}, []string{"/ip4/nonsense"} },
	} {
		cfg := testConfig(t)
		cfg.MeshAddr = "127.0.0.1:0"
		change(&cfg)
		s, err := New(cfg, nil)
		if err == nil {
			err = s.Start(t.Context())
		}
		var field *crdtstore.FieldError
		if !errors.As(err, &field) || field.Field != flag {
			t.Errorf("want an error about %s: %v", flag, err)
		}
	}
}

// A report that does not speak of usage and uptime leaves them as they were; null
// erases them.
func TestReportKeepsUsage(t *testing.T) {
	m := startReal(t, testConfig(t))
	for i, c := range []struct {
		say    string
		cru    float64
		uptime uint64
	}{
		{`"usage":{"cru":2},"uptime_s":7`, 2, 7},
		{`"hostname":"h"`, 2, 7},
		{`"usage":{"cru":3}`, 3, 7},
		{`"uptime_s":8`, 3, 8},
		{`"usage":null,"uptime_s":null`, 0, 0},
	} {
		m.must(nil, "register_node", fmt.Sprintf(`{"node_id":"n1","boot":1,"seq":%d,%s}`, i+1, c.say))
		var n crdtstore.Node
		if m.must(&n, "get_node", `{"node_id":"n1"}`); n.Usage.CRU != c.cru || n.UptimeS != c.uptime {
			t.Errorf("after %s: %+v, up %d", c.say, n.Usage, n.UptimeS)
		}
	}
}

// What is late is not accepted; senders that do not count always are.
func TestOrderOfBeats(t *testing.T) {
	m := startReal(t, testConfig(t))
	var a Answer
	for _, c := range []struct {
		method, version string
		accepted        bool
	}{
		{"register_node", `"boot":5,"seq":1`, true},
		{"node_heartbeat", `"boot":5,"seq":1`, true}, // no news, but nothing is newer
		{"node_heartbeat", `"boot":5,"seq":3`, true},
		{"node_heartbeat", `"boot":5,"seq":2`, false},
		{"node_heartbeat", `"boot":5,"seq":3`, true},
		{"node_heartbeat", `"boot":4,"seq":9`, false},
		{"node_heartbeat", `"boot":5`, true},
		{"node_heartbeat", `"boot":9,"seq":1`, true}, // asks for the report, and orders nothing yet
		{"node_heartbeat", `"boot":5,"seq":4`, true},
		{"node_heartbeat", `"uptime_s":1`, true},
		{"register_node", `"boot":5`, true},
		{"register_node", `"boot":5,"hostname":"h"`, true},
		{"register_node", `"hostname":"i"`, true},
		{"register_node", `"boot":4`, false},
		{"register_node", `"boot":6`, true},
	} {
		if m.must(&a, c.method, `{"node_id":"n1",`+c.version+`}`); a.Accepted != c.accepted || a.Register && c.version != `"boot":4,"seq":9` && c.version != `"boot":9,"seq":1` {
			t.Errorf("%s %s: %+v", c.method, c.version, a)
		}
	}
}

// A heartbeat that says what cannot be changes nothing.
func TestRefusedBeats(t *testing.T) {
	m := startReal(t, testConfig(t))
	m.must(nil, "register_node", `{"node_id":"n1","boot":1,"seq":1,"usage":{"cru":2}}`)
	for params, field := range map[string]string{
		`"seq":2,"usage":{"cru":-1}`:         "usage.cru",
		`"seq":2,"usage":{"cru":1e300}`:      "usage.cru",
		`"seq":9223372036854775808`:          "seq",
		`"boot":9223372036854775808,"seq":1`: "boot",
	} {
		m.fails(-32602, field, "node_heartbeat", `{"node_id":"n1",`+params+`}`)
		var a BeatsAnswer
		m.must(&a, "node_heartbeats", `{"beats":[{"node_id":"n1",`+params+`}]}`)
		if a.Results[0].Accepted || a.Results[0].Error == nil || a.Results[0].Error.Code != -32602 {
			t.Errorf("%s: %+v", params, a.Results[0])
		}
	}
	m.must(nil, "node_heartbeat", `{"node_id":"n1","boot":1,"seq":2}`)
	var n crdtstore.Node
	if m.must(&n, "get_node", `{"node_id":"n1"}`); n.Usage.CRU != 2 {
		t.Errorf("%+v", n.Usage)
	}
}

func TestRealStore(t *testing.T) {
	cfg := testConfig(t)
	cfg.Name = "alpha"
	m := startReal(t, cfg)
	node, addr := startNode(t, "tcp", result(`{"state":"stopped"}`))
	var a Answer
	m.must(&a, "node_heartbeat", `{"node_id":"n1","boot":1,"seq":1}`)
	if !a.Register || len(a.Masters) != 1 || a.Masters[0].Name != "alpha" || a.Masters[0].RPCURLs[0] != m.url {
		t.Errorf("%+v", a)
	}
	next := listen(t, m.url+"/events", "")
	next()
	for i := range 3 {
		m.must(&a, "register_node", fmt.Sprintf(`{"node_id":"n%d","boot":1,"seq":1,"hostname":"h","socket_path":"%s",
			"total":{"cru":8,"mru":100},"slices_total":4,"labels":{"zone":"a"},"vms":[{"sid":"v%d","state":"running"}]}`, i, addr, i))
	}
	if !a.Accepted {
		t.Errorf("%+v", a)
	}
	if e := next(); e.kind != "node" && e.kind != "vm" {
		t.Errorf("%+v", e)
	}
	m.must(&a, "node_heartbeat", `{"node_id":"n1","boot":1,"seq":2,"usage":{"cru":2}}`)
	if !a.Accepted || a.Register {
		t.Errorf("%+v", a)
	}
	var page crdtstore.NodePage
	m.must(&page, "list_nodes", `{"status":"online","labels":{"zone":"a"},"min_free":{"cru":7},"sort":"-node_id","limit":1}`)
	if page.Total != 2 || len(page.Nodes) != 1 || page.Nodes[0].NodeID != "n2" || page.NextCursor == "" {
		t.Errorf("%+v", page)
	}
	m.must(nil, "drain_node", `{"node_id":"n0"}`)
	m.must(nil, "label_node", `{"node_id":"n0","labels":{"rack":"7","zone":null}}`)
	m.must(nil, "remove_node", `{"node_id":"n2","reason":"sold"}`)
	m.fails(-32006, "", "node_heartbeat", `{"node_id":"n2","boot":1,"seq":9}`)
	m.fails(-32006, "", "register_node", `{"node_id":"n2","boot":1,"seq":9}`)
	if got := m.call("stop_vm", `{"sid":"v0","secret":"s"}`); string(got.Result) != `{"state":"stopped"}` || node.count.Load() != 1 {
		t.Errorf("%+v", got)
	}
	m.fails(-32001, "", "drain_node", `{"node_id":"nowhere"}`)
	m.fails(-32001, "", "drain_node", `{"node_id":"n2"}`)
	m.fails(-32602, "node_id", "drain_node", `{"node_id":"a b"}`)
	m.fails(-32602, "sort", "list_nodes", `{"sort":"colour"}`)
	m.fails(-32009, "cursor", "list_nodes", `{"cursor":"nonsense"}`)
	m.fails(-32009, "cursor", "list_vms", `{"cursor":"nonsense"}`)
	m.fails(-32602, "node_id", "node_heartbeat", `{"boot":1}`)
	m.fails(-32008, "", "get_vm", `{"sid":"v2"}`)
	var stats crdtstore.Stats
	m.must(&stats, "stats", `{}`)
	if stats.Nodes.Total != 2 || stats.Nodes.Drained != 1 || stats.Nodes.Removed != 1 || stats.VMs.Total != 2 || !stats.Convergence.InSync {
		t.Errorf("%+v", stats)
	}
	if _, b := get(t, m.unix(), "http://x/metrics"); !strings.Contains(string(b), `hero_explorer_nodes{status="online"} 2`) {
		t.Errorf("metrics: %s", b)
	}

	// What was acknowledged is there again after a restart.
	if err := m.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	m = startReal(t, cfg)
	var n crdtstore.Node
	m.must(&n, "get_node", `{"node_id":"n0"}`)
	if !n.Drained || n.Labels["rack"] != "7" || n.Labels["zone"] != "" || len(n.VMs) != 1 {
		t.Errorf("%+v", n)
	}
	m.must(&page, "list_nodes", `{"include_removed":true}`)
	if page.Total != 3 {
		t.Errorf("%+v", page)
	}
}

// In single-master mode nothing listens but API and page.
func TestSingleMasterListensForNobody(t *testing.T) {
	before := listening(t)
	m := startReal(t, testConfig(t))
	for addr := range listening(t) {
		if !before[addr] && addr != m.RPCAddr().String() && addr != m.UIAddr().String() {
			t.Error("listens on", addr)
		}
	}
}

// listening returns the TCP and UDP sockets of this process over IPv4 that
// listen, by address.
func listening(t *testing.T) map[string]bool {
	t.Helper()
	own := map[string]bool{} // inodes of sockets
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc:", err)
	}
	for _, fd := range fds {
		link, _ := os.Readlink("/proc/self/fd/" + fd.Name())
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			own[strings.TrimSuffix(inode, "]")] = true
		}
	}
	found := map[string]bool{}
	for _, table := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := os.ReadFile("/proc/self/net/" + table)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 10 || !own[f[9]] || strings.HasPrefix(table, "tcp") && f[3] != "0A" {
				continue
			}
			var ip [4]byte
			var port int
			if _, err := fmt.Sscanf(f[1], "%02X%02X%02X%02X:%04X", &ip[3], &ip[2], &ip[1], &ip[0], &port); err != nil || len(f[1]) != 13 {
				found[table+" "+f[1]] = true
				continue
			}
			found[net.JoinHostPort(net.IP(ip[:]).String(), fmt.Sprint(port))] = true
		}
	}
	return found
}

func TestRealStoreStopsInTime(t *testing.T) {
	cfg := testConfig(t)
	cfg.PeerMasters, cfg.MeshAddr = []string{"127.0.0.1:1"}, "127.0.0.1:0"
	m := startReal(t, cfg)
	m.must(nil, "stats", `{}`)
	began := time.Now()
	if err := m.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > stopTime {
		t.Error("stopping took", took)
	}
}
