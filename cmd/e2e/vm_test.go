//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"
)

// A VM deployed through one master is seen on the other, and operated through
// it; what the node answers, result or error, comes back as the node said it.
func TestVMCallsThroughEitherMaster(t *testing.T) {
	g := newGrid(t)
	a, b := g.twoMasters()
	ag := g.startAgent("node-1", agentOptions{compute: true}, a)
	eventually(t, 10*time.Second, func() error { return errors.Join(a.online("node-1"), b.online("node-1")) })

	const secret = "open-sesame"
	var deployed vm
	a.must(t, "deploy_vm", obj{"node_id": "node-1", "name": "web", "cpu": 2, "memory": 1 << 30, "secret": secret}, &deployed)
	if deployed.SID == "" || deployed.Name != "web" {
		t.Fatalf("deploy_vm answers %+v", deployed)
	}
	state := func(m *master, want string) error {
		vms, err := m.vms()
		if err == nil && (vms[deployed.SID].State != want || vms[deployed.SID].NodeID != "node-1") {
			err = errNotYet("%s lists %+v, want %s on node-1", m.name, vms[deployed.SID], want)
		}
		return err
	}
	eventually(t, 5*time.Second, func() error { return state(b, "running") })

	for _, c := range []struct{ method, state string }{
		{"stop_vm", "stopped"}, {"start_vm", "running"}, {"restart_vm", "running"},
	} {
		got, err := b.raw(c.method, obj{"node_sid": "node-1", "sid": deployed.SID, "secret": secret})
		if err != nil {
			t.Fatal(err)
		}
		direct, err := ag.compute.raw("get_vm", obj{"sid": deployed.SID, "secret": secret})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Result, direct.Result) || got.Error != nil {
			t.Errorf("%s through b: %s %s\nthe node itself: %s", c.method, got.Result, got.Error, direct.Result)
		}
		eventually(t, 5*time.Second, func() error { return errors.Join(state(a, c.state), state(b, c.state)) })
	}
	for _, method := range []string{"vm_logs", "vm_stats"} {
		b.must(t, method, obj{"node_id": "node-1", "sid": deployed.SID, "secret": secret}, nil)
	}

	// Errors of the node: a wrong secret, a VM that is not there, bad params.
	for _, c := range []struct {
		method string
		params obj
	}{
		{"stop_vm", obj{"sid": deployed.SID, "secret": "wrong"}},
		{"start_vm", obj{"sid": "vm-nowhere"}},
		{"vm_exec", obj{"sid": deployed.SID, "secret": secret}},
		{"deploy_vm", obj{"name": "x", "cpu": -1}},
		{"deploy_vm", obj{"name": "x", "colour": "red"}},
	} {
		direct, err := ag.compute.raw(c.method, c.params)
		if err != nil {
			t.Fatal(err)
		}
		c.params["node_id"] = "node-1"
		got, err := b.raw(c.method, c.params)
		if err != nil {
			t.Fatal(err)
		}
		if direct.Error == nil || !bytes.Equal(got.Error, direct.Error) {
			t.Errorf("%s through b: %s %s\nthe node itself: %s", c.method, got.Result, got.Error, direct.Error)
		}
	}

	got, err := b.raw("proxy", obj{"node_id": "node-1", "method": "get_vm", "params": obj{"sid": deployed.SID, "secret": secret}})
	if err != nil {
		t.Fatal(err)
	}
	if direct, err := ag.compute.raw("get_vm", obj{"sid": deployed.SID, "secret": secret}); err != nil || !bytes.Equal(got.Result, direct.Result) {
		t.Errorf("get_vm by proxy: %s %s\nthe node itself: %s %v", got.Result, got.Error, direct.Result, err)
	}

	a.must(t, "delete_vm", obj{"sid": deployed.SID, "secret": secret}, nil)
	eventually(t, 5*time.Second, func() error {
		for _, m := range []*master{a, b} {
			if vms, err := m.vms(); err != nil || len(vms) > 0 {
				return errNotYet("%s lists %v (%v)", m.name, vms, err)
			}
		}
		return nil
	})
}

// compute is a node's compute service that says what the test wants, byte by
// byte, and remembers what it was asked.
type compute struct {
	*httptest.Server
	mu     sync.Mutex
	answer string
	asked  []json.RawMessage // params
}

func startCompute(t *testing.T) *compute {
	c := new(compute)
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req struct {
			ID     json.RawMessage `json:"id"`
			Params json.RawMessage `json:"params"`
		}
		body, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(body, &req)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.asked = append(c.asked, req.Params)
		if c.answer == "" {
			panic(http.ErrAbortHandler) // hang up
		}
		io.WriteString(w, `{"jsonrpc":"2.0","id":`+string(req.ID)+`,`+c.answer+`}`)
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *compute) says(answer string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer, c.asked = answer, nil
}

func (c *compute) calls() []json.RawMessage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

// Not even the spelling of an answer changes on its way: not the order of its
// members, not its numbers, not its escapes. The faults that are the masters'
// own have codes of their own.
func TestForwardingIsVerbatim(t *testing.T) {
	g := newGrid(t)
	a, b := g.twoMasters()
	node := startCompute(t)
	a.register("node-1", 10, 1, obj{"socket_path": node.URL})
	a.register("node-2", 10, 1, obj{"socket_path": "tcp://" + freeAddr(t)})
	eventually(t, 5*time.Second, func() error { return b.online("node-1", "node-2") })

	for _, member := range []string{
		`"result":{"z":1,"a":1.50,"e":1e2,"big":123456789012345678901234567890,"html":"<&>","esc":"\u00e9\/","nested":{"secret":"s"}}`,
		`"result":null`,
		`"result":[ 1 , 2 ]`,
		`"result":"text"`,
		`"error":{"code":-33001,"message":"no <room>","data":{"z":0.10,"a":[1,2,3]},"extra":true}`,
		`"error":{"code":-32602,"message":"the node's own -32602"}`,
	} {
		node.says(member)
		got, err := b.raw("stop_vm", json.RawMessage(`{"node_id":"node-1","sid":"vm-1","count":1.0,"text":"<&>"}`))
		if err != nil && member != `"result":null` {
			t.Fatal(err)
		}
		said := `"result":` + string(got.Result)
		if got.Error != nil {
			said = `"error":` + string(got.Error)
		}
		if said != member {
			t.Errorf("the node said %s\nb says       %s", member, said)
		}
		asked := node.calls()
		if len(asked) != 1 {
			t.Fatalf("the node was asked %d times: %s", len(asked), asked)
		}
		var params map[string]json.RawMessage
		if err := json.Unmarshal(asked[0], &params); err != nil {
			t.Fatal(err)
		}
		if _, there := params["node_id"]; there || string(params["count"]) != "1.0" || string(params["sid"]) != `"vm-1"` || len(params) != 3 {
			t.Errorf("the node got %s", asked[0])
		}
	}

	for _, c := range []struct {
		name   string
		method string
		params obj
		code   int
	}{
		{"sent and not answered", "deploy_vm", obj{"node_id": "node-1", "name": "x"}, -32004},
		{"cannot reach", "deploy_vm", obj{"node_id": "node-2", "name": "x"}, -32003},
		{"no such node", "deploy_vm", obj{"node_id": "node-9", "name": "x"}, -32001},
		{"no node named", "deploy_vm", obj{"name": "x"}, -32602},
		{"two nodes named", "deploy_vm", obj{"node_id": "node-1", "node_sid": "node-2"}, -32602},
		{"not a VM call", "proxy", obj{"node_id": "node-1", "method": "format_disks"}, -32010},
		{"no such VM", "get_vm", obj{"sid": "vm-nowhere"}, -32008},
	} {
		node.says("") // hangs up after it has read the request
		failure := new(rpcError)
		if err := b.call(c.method, c.params, nil); !errors.As(err, &failure) || failure.Code != c.code {
			t.Errorf("%s: got %v, want code %d", c.name, err, c.code)
			continue
		}
		var data struct {
			Hint      string `json:"hint"`
			Retryable *bool  `json:"retryable"`
		}
		if err := json.Unmarshal(failure.Data, &data); err != nil || data.Hint == "" || data.Retryable == nil {
			t.Errorf("%s: data without hint or retryable: %s", c.name, failure.Data)
		}
		if n := len(node.calls()); c.code == -32004 && n != 1 {
			t.Errorf("%s: the node was asked %d times, a mutation must be sent once", c.name, n)
		}
	}
}

// A node that nobody hears and nobody reaches is offline, and calls to it say
// so.
func TestOfflineNode(t *testing.T) {
	g := newGrid(t)
	a, b := g.twoMasters("--heartbeat-interval", "500ms", "--offline-after", "2s")
	ag := g.startAgent("node-1", agentOptions{compute: true}, a, b)
	g.startAgent("node-2", agentOptions{}, a, b)
	eventually(t, 10*time.Second, func() error {
		return errors.Join(a.online("node-1", "node-2"), b.online("node-1", "node-2"))
	})
	ag.kill()
	ag.beside.kill()
	eventually(t, 10*time.Second, func() error {
		for _, m := range []*master{a, b} {
			if n, err := m.nodes(); err != nil || n["node-1"].Status != "offline" || n["node-2"].Status != "online" {
				return errNotYet("%s says that node-1 is %s and node-2 %s (%v)", m.name, n["node-1"].Status, n["node-2"].Status, err)
			}
		}
		return nil
	})
	failure := new(rpcError)
	err := b.call("stop_vm", obj{"node_id": "node-1", "sid": "vm-1"}, nil)
	if !errors.As(err, &failure) || failure.Code != -32002 {
		t.Errorf("stop_vm on a node that is offline: %v, want code -32002", err)
	}
}
