package explorer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

func TestRegisterAndBeat(t *testing.T) {
	m := startMaster(t, func(c *Config) { c.Aliases = map[string]string{"Old.heartbeat": "ExplorerService.node_heartbeat"} })
	var a Answer
	m.must(&a, "node_heartbeat", `{"node_id":"n1","boot":1,"seq":1}`)
	if a.Accepted || !a.Register || a.HeartbeatIntervalS != 10 || a.OfflineAfterS != 30 || len(a.Masters) != 1 || a.Masters[0].ID != "self" {
		t.Errorf("beat of an unknown node: %+v", a)
	}
	m.must(&a, "register_node", `{"node_id":"n1","boot":1,"seq":1,"hostname":"h1","total":{"cru":4},"from_the_future":{"x":1},
		"vms":[{"sid":"v1","name":"web","state":"running"}]}`)
	m.must(&a, "ExplorerService.register_node", `[{"node_id":"n1","boot":1,"seq":1,"hostname":"h1"}]`)
	if a.Accepted {
		t.Error("the same version twice was accepted")
	}
	for _, method := range []string{"node_heartbeat", "ExplorerService.node_heartbeat", "Old.heartbeat"} {
		m.must(&a, method, `{"node_id":"n1","boot":1,"seq":2,"usage":{"cru":1.5},"uptime_s":9}`)
		if !a.Accepted || a.Register || len(a.Masters) != 1 {
			t.Errorf("%s: %+v", method, a)
		}
	}
	var n crdtstore.Node
	m.must(&n, "get_node", `{"node_id":"n1"}`)
	if n.Hostname != "h1" || n.Usage.CRU != 1.5 || len(n.VMs) != 1 || n.VMs[0].NodeID != "n1" {
		t.Errorf("%+v", n)
	}
}

func TestHeartbeats(t *testing.T) {
	m := startMaster(t)
	m.must(nil, "register_node", `{"node_id":"n1"}`)
	m.must(nil, "register_node", `{"node_id":"gone"}`)
	m.must(nil, "remove_node", `{"node_id":"gone"}`)
	var a BeatsAnswer
	m.must(&a, "node_heartbeats", `{"beats":[{"node_id":"n1"},{"node_id":"n2"},{"node_id":"bad id"},{"node_id":"gone"}]}`)
	if len(a.Results) != 4 || !a.Results[0].Accepted || !a.Results[1].Register || a.HeartbeatIntervalS != 10 || len(a.Masters) != 1 {
		t.Fatalf("%+v", a)
	}
	var data struct{ Field, Reason string }
	if e := a.Results[2].Error; e == nil || e.Code != -32602 || e.DecodeData(&data) != nil || data.Field != "beats[2].node_id" {
		t.Errorf("bad id: %+v", e)
	}
	if e := a.Results[3].Error; e == nil || e.Code != -32006 || e.DecodeData(&data) != nil || data.Reason != "removed" {
		t.Errorf("removed: %+v", e)
	}
	m.must(&a, "node_heartbeats", `{"beats":[]}`)
	m.must(&a, "node_heartbeats", `{"beats":[`+strings.Repeat(`{"node_id":"n1"},`, 999)+`{"node_id":"n1"}]}`)
	if len(a.Results) != 1000 {
		t.Error(len(a.Results))
	}
	m.fails(-32602, "beats", "node_heartbeats", `{"beats":[`+strings.Repeat(`{"node_id":"n1"},`, 1000)+`{"node_id":"n1"}]}`)
	m.fails(-32602, "beats", "node_heartbeats", `{}`)
}

func TestNodes(t *testing.T) {
	m := startMaster(t)
	for i := range 5 {
		m.must(nil, "register_node", fmt.Sprintf(`{"node_id":"n%d","labels":{"zone":"a"}}`, i))
	}
	var page crdtstore.NodePage
	m.must(&page, "list_nodes", `{"limit":2}`)
	if len(page.Nodes) != 2 || page.Total != 5 || page.NextCursor == "" {
		t.Errorf("%+v", page)
	}
	next := page.NextCursor
	m.must(&page, "list_nodes", `{"limit":1000,"cursor":"`+next+`"}`)
	if len(page.Nodes) != 3 {
		t.Errorf("second page has %d nodes", len(page.Nodes))
	}
	m.fails(-32009, "cursor", "list_nodes", `{"cursor":"?"}`)

	var n crdtstore.Node
	if m.must(&n, "drain_node", `{"node_id":"n1"}`); !n.Drained {
		t.Error("not drained")
	}
	if m.must(&n, "undrain_node", `{"node_id":"n1"}`); n.Drained {
		t.Error("still drained")
	}
	if m.must(&n, "label_node", `{"node_id":"n1","labels":{"rack":"7","zone":null}}`); n.Labels["rack"] != "7" || len(n.Labels) != 1 {
		t.Error(n.Labels)
	}
	if m.must(&n, "remove_node", `{"node_id":"n1","reason":"sold"}`); n.RemovedAt == nil {
		t.Error("not removed")
	}
	m.must(&page, "list_nodes", `{"limit":10}`)
	if page.Total != 4 {
		t.Error("a removed node is listed")
	}
	m.must(&page, "list_nodes", `{"limit":10,"include_removed":true}`)
	if page.Total != 5 {
		t.Error("include_removed does not list it")
	}
	m.fails(-32006, "", "node_heartbeat", `{"node_id":"n1","boot":1,"seq":9}`)
	for _, method := range []string{"get_node", "drain_node", "undrain_node", "remove_node", "start_vm"} {
		m.fails(-32001, "", method, `{"node_id":"nowhere"}`)
	}
	m.fails(-32001, "", "label_node", `{"node_id":"nowhere","labels":{"a":"b"}}`)
}

func TestVMs(t *testing.T) {
	m := startMaster(t)
	m.must(nil, "register_node", `{"node_id":"n1","vms":[{"sid":"v1","state":"running","secret":"hunter2"},{"sid":"v2"}]}`)
	a := m.call("list_vms", `{}`)
	if bytes.Contains(a.Result, []byte("hunter2")) {
		t.Error("a secret got out")
	}
	var page crdtstore.VMPage
	if err := json.Unmarshal(a.Result, &page); err != nil || page.Total != 2 || len(page.VMs) != 2 {
		t.Error(page, err)
	}
	var vm crdtstore.VM
	m.must(&vm, "get_vm", `{"sid":"v1"}`)
	if vm.NodeID != "n1" || vm.State != "running" {
		t.Errorf("%+v", vm)
	}
	m.must(&vm, "get_vm", `{"sid":"v1","node_sid":"n1"}`)
	m.fails(-32008, "", "get_vm", `{"sid":"v9"}`)
	m.fails(-32602, "sid", "get_vm", `{}`)
}

func TestMastersAndStats(t *testing.T) {
	m := startMaster(t)
	var a MastersAnswer
	m.must(&a, "masters", `{}`)
	if a.Self != "self" || len(a.Masters) != 1 || a.Masters[0].RPCURLs == nil {
		t.Errorf("%+v", a)
	}
	var s crdtstore.Stats
	m.must(&s, "stats", `null`)
	if !s.Convergence.InSync {
		t.Errorf("%+v", s)
	}
	var fromRPC, fromHTTP any
	m.must(&fromRPC, "rpc.discover", `[]`)
	_, b := get(t, m.unix(), "http://x/openrpc.json")
	if err := json.Unmarshal(b, &fromHTTP); err != nil || fmt.Sprint(fromRPC) != fmt.Sprint(fromHTTP) {
		t.Error("rpc.discover and /openrpc.json differ", err)
	}
}

// Bad input gets the code of the contract, names the field and changes nothing.
func TestBadInput(t *testing.T) {
	m := startMaster(t)
	m.must(nil, "register_node", `{"node_id":"n1","boot":5,"seq":5,"hostname":"h","vms":[{"sid":"v1"}]}`)
	before, beats := m.store.encoded(), m.store.beats
	long := strings.Repeat("x", 300)
	for _, c := range []struct{ method, params, field string }{
		{"register_node", `{}`, "node_id"},
		{"register_node", `{"node_id":7}`, "node_id"},
		{"register_node", `{"node_id":"a b"}`, "node_id"},
		{"register_node", `{"node_id":"` + long + `"}`, "node_id"},
		{"register_node", `{"node_id":"n1","hostname":["x"]}`, "hostname"},
		{"register_node", `{"node_id":"n1","hostname":"` + long + `"}`, "hostname"},
		{"register_node", `{"node_id":"n1","total":{"cru":"many"}}`, "total.cru"},
		{"register_node", `{"node_id":"n1","total":{"mru":-1}}`, "total.mru"},
		{"register_node", `{"node_id":"n1","location":{"latitude":91}}`, "location.latitude"},
		{"register_node", `{"node_id":"n1","vms":[{"sid":"a"},{"sid":"a"}]}`, "vms[1].sid"},
		{"register_node", `[1]`, "params"},
		{"register_node", `[{"node_id":"n1"},{}]`, "params"},
		{"node_heartbeat", `{}`, "node_id"},
		{"node_heartbeat", `{"node_id":"n1","boot":-1}`, "boot"},
		{"node_heartbeat", `{"node_id":"n1","seq":"1"}`, "seq"},
		{"node_heartbeat", `{"node_id":"n1","usage":{"cru":"x"}}`, "usage.cru"},
		{"node_heartbeat", `{"node_id":"n1","colour":"red"}`, "colour"},
		{"node_heartbeats", `{"beats":{}}`, "beats"},
		{"node_heartbeats", `{"beats":[{"node_id":1}]}`, "beats[0].node_id"},
		{"list_nodes", `{"limit":1001}`, "limit"},
		{"list_nodes", `{"limit":-1}`, "limit"},
		{"list_nodes", `{"limit":"5"}`, "limit"},
		{"list_nodes", `{"status":"asleep"}`, "status"},
		{"list_nodes", `{"min_free":{"cru":"x"}}`, "min_free.cru"},
		{"list_nodes", `{"min_free":{"cru":-1}}`, "min_free.cru"},
		{"list_nodes", `{"page":2}`, "page"},
		{"get_node", `{}`, "node_id"},
		{"get_node", `{"node_id":"/"}`, "node_id"},
		{"drain_node", `{"node_id":"n1","force":true}`, "force"},
		{"label_node", `{"node_id":"n1"}`, "labels"},
		{"label_node", `{"node_id":"n1","labels":{"a":1}}`, "labels.a"},
		{"remove_node", `{"node_id":"n1","reason":"` + long + `"}`, "reason"},
		{"list_vms", `{"limit":5000}`, "limit"},
		{"list_vms", `{"node_id":"a b"}`, "node_id"},
		{"get_vm", `{"sid":"v1","node_id":"n1","node_sid":"n2"}`, "node_sid"},
		{"start_vm", `{}`, "node_id"},
		{"start_vm", `{"node_id":3}`, "node_id"},
		{"start_vm", `{"node_id":"a/b"}`, "node_id"},
		{"proxy", `{"node_id":"n1"}`, "method"},
		{"proxy", `{"node_id":"n1","method":"list_vms","params":"x"}`, "params"},
		{"proxy", `{"node_id":"n1","method":"list_vms","timeout_s":301}`, "timeout_s"},
		{"proxy", `{"node_id":"n1","method":"list_vms","timeout_s":-1}`, "timeout_s"},
		{"proxy", `{"node_id":"n1","method":"list_vms","op_id":"` + long + `"}`, "op_id"},
		{"proxy", `{"method":"list_vms"}`, "node_id"},
		{"masters", `{"x":1}`, "x"},
		{"stats", `[1]`, "params"},
	} {
		m.fails(-32602, c.field, c.method, c.params)
	}
	m.fails(-32008, "", "start_vm", `{"sid":"v9"}`)
	m.fails(-32010, "method", "proxy", `{"node_id":"n1","method":"shutdown"}`)
	if m.store.encoded() != before || m.store.beats != beats {
		t.Error("bad input changed something")
	}
}

func TestStoreCannotWrite(t *testing.T) {
	m := startMaster(t)
	m.must(nil, "register_node", `{"node_id":"n1"}`)
	m.store.set(func() { m.store.health = errors.New("full") })
	for _, c := range [][2]string{{"register_node", `{"node_id":"n2"}`}, {"drain_node", `{"node_id":"n1"}`}} {
		a := m.call(c[0], c[1])
		if a.Error == nil || a.Error.Code != -32603 || !*a.Error.Data.Retryable || a.Error.Data.RetryAfterS == 0 {
			t.Errorf("%s: %+v", c[0], a.Error)
		}
	}
	m.must(nil, "list_nodes", `{}`)
	m.must(nil, "node_heartbeat", `{"node_id":"n1"}`)
}
