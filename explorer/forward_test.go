package explorer

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// fakeNode is a compute service that answers with given bytes.
type fakeNode struct {
	*httptest.Server
	answer func(w http.ResponseWriter, id, body json.RawMessage)
	asked  chan json.RawMessage
	count  atomic.Int32
}

func startNode(t *testing.T, network string, answer func(w http.ResponseWriter, id, body json.RawMessage)) (*fakeNode, string) {
	t.Helper()
	n := &fakeNode{answer: answer, asked: make(chan json.RawMessage, 2*maxNodeCalls)}
	n.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var in struct{ ID json.RawMessage }
		if err := json.Unmarshal(body, &in); err != nil || r.Method != http.MethodPost || r.URL.Path != "/rpc" {
			t.Errorf("%s %s %s: %v", r.Method, r.URL, body, err)
		}
		n.count.Add(1)
		select {
		case n.asked <- body:
		default:
		}
		n.answer(w, in.ID, body)
	}))
	addr := "tcp://" + n.Listener.Addr().String()
	switch network {
	case "unix":
		n.Listener.Close()
		path := filepath.Join(filepath.Dir(testConfig(t).DataDir), "n.sock")
		l, err := listenUnix(path)
		if err != nil {
			t.Fatal(err)
		}
		n.Listener, addr = l, "unix://"+path
	case "http":
		addr = "http://" + n.Listener.Addr().String()
	}
	n.Start()
	t.Cleanup(n.Close)
	return n, addr
}

func result(raw string) func(http.ResponseWriter, json.RawMessage, json.RawMessage) {
	return func(w http.ResponseWriter, id, _ json.RawMessage) {
		fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":%s}`, id, raw)
	}
}

func TestForwardVerbatim(t *testing.T) {
	const (
		odd    = `{ "sid":"v1","html":"<a & b>", "big":12345678901234567890.10, "null":null,"z":1,"a":[ ] }`
		oddErr = `{"code":-32001,"message":"no <such> slice","data":{ "code_name":"SLICE","action":"none","n":1.50},"extra":1}`
	)
	for _, network := range []string{"tcp", "unix", "http"} {
		t.Run(network, func(t *testing.T) {
			m := startMaster(t)
			node, addr := startNode(t, network, result(odd))
			m.must(nil, "register_node", `{"node_id":"n1","socket_path":"`+addr+`","vms":[{"sid":"v1"}]}`)
			before := m.store.encoded()
			for _, c := range []struct{ params, forwarded string }{
				{`{"node_id":"n1","sid":"v1","secret":"<s>","n":1.0}`, `{"n":1.0,"secret":"<s>","sid":"v1"}`},
				{`[{"node_sid":"n1","slice_sid":"x"}]`, `{"slice_sid":"x"}`},
				{`{"sid":"v1"}`, `{"sid":"v1"}`},
			} {
				for _, method := range []string{"deploy_vm", "start_vm", "stop_vm", "restart_vm", "delete_vm", "vm_stats", "vm_logs", "vm_exec"} {
					_, b := m.post(m.url+"/rpc", `{"jsonrpc":"2.0","id":1,"method":"`+Prefix+method+`","params":`+c.params+`}`)
					if !bytes.Contains(b, []byte(`"result":`+odd)) {
						t.Errorf("%s: answer is not verbatim: %s", method, b)
					}
					var asked struct {
						Method string
						Params json.RawMessage
					}
					if err := json.Unmarshal(<-node.asked, &asked); err != nil || asked.Method != method || string(asked.Params) != c.forwarded {
						t.Errorf("%s: the node got %s %s, want %s", method, asked.Method, asked.Params, c.forwarded)
					}
				}
			}
			_, b := m.post(m.url+"/rpc", `{"jsonrpc":"2.0","id":1,"method":"proxy","params":{"node_id":"n1","method":"ComputeService.list_vms","params":["s"],"timeout_s":5}}`)
			if !bytes.Contains(b, []byte(`"result":`+odd)) {
				t.Errorf("proxy: answer is not verbatim: %s", b)
			}
			if asked := <-node.asked; !bytes.Contains(asked, []byte(`"params":["s"]`)) || !bytes.Contains(asked, []byte(`"ComputeService.list_vms"`)) {
				t.Errorf("proxy sent %s", asked)
			}
			node.answer = func(w http.ResponseWriter, id, _ json.RawMessage) {
				fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"error":%s}`, id, oddErr)
			}
			_, b = m.post(m.url+"/rpc", `{"jsonrpc":"2.0","id":1,"method":"stop_vm","params":{"node_id":"n1"}}`)
			if !bytes.Contains(b, []byte(`"error":`+oddErr)) {
				t.Errorf("error is not verbatim: %s", b)
			}
			if m.store.encoded() != before {
				t.Error("a call changed what is known")
			}
		})
	}
}

func TestForwardFaults(t *testing.T) {
	m := startMaster(t, func(c *Config) { c.ProxyMethods = []string{"my_method"} })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "tcp://" + l.Addr().String()
	l.Close()
	m.must(nil, "register_node", `{"node_id":"closed","socket_path":"`+refused+`"}`)
	m.must(nil, "register_node", `{"node_id":"nowhere"}`)
	m.must(nil, "register_node", `{"node_id":"no_socket","socket_path":"unix:///nonexistent/x.sock"}`)
	m.must(nil, "register_node", `{"node_id":"nonsense","socket_path":"gopher://x"}`)
	m.must(nil, "register_node", `{"node_id":"metadata","socket_path":"http://169.254.169.254/"}`)
	m.must(nil, "register_node", `{"node_id":"me","socket_path":"unix://`+m.cfg.RPCSocket+`"}`)
	m.must(nil, "register_node", `{"node_id":"me_too","socket_path":"`+m.url+`"}`)
	for _, id := range []string{"closed", "nowhere", "no_socket", "nonsense", "metadata", "me", "me_too"} {
		m.fails(-32003, "", "start_vm", `{"node_id":"`+id+`","sid":"v"}`)
	}
	if a := m.call("start_vm", `{"node_id":"closed"}`); !*a.Error.Data.Retryable {
		t.Error("a call that was never sent may be repeated")
	}
	m.store.set(func() { m.store.status = crdtstore.Offline })
	m.fails(-32002, "", "start_vm", `{"node_id":"closed"}`)
	answers, addr := startNode(t, "tcp", result(`1`))
	m.must(nil, "register_node", `{"node_id":"silent","socket_path":"`+addr+`"}`)
	m.must(nil, "start_vm", `{"node_id":"silent"}`) // nobody has heard it yet
	answers.count.Store(0)
	m.store.set(func() { m.store.seenBy = []record.Observer{{Master: "self", AgeS: 99}} })
	if m.fails(-32002, "", "proxy", `{"node_id":"silent","method":"list_vms"}`); answers.count.Load() != 0 {
		t.Error("a node that is offline was called")
	}
	m.store.set(func() { m.store.status = crdtstore.Suspect })
	m.must(nil, "start_vm", `{"node_id":"silent"}`)
	m.store.set(func() { m.store.status, m.store.seenBy = crdtstore.Online, nil })

	dropped, addr := startNode(t, "tcp", func(w http.ResponseWriter, _, _ json.RawMessage) {
		panic(http.ErrAbortHandler) // closes the connection
	})
	m.must(nil, "register_node", `{"node_id":"drops","socket_path":"`+addr+`"}`)
	for method, retryable := range map[string]bool{"start_vm": false, "vm_exec": false, "deploy_vm": false, "vm_stats": true, "vm_logs": true} {
		dropped.count.Store(0)
		a := m.call(method, `{"node_id":"drops"}`)
		if a.Error == nil || a.Error.Code != -32004 || *a.Error.Data.Retryable != retryable {
			t.Errorf("%s without an answer: %+v", method, a.Error)
		}
		if n := dropped.count.Load(); !retryable && n != 1 {
			t.Errorf("%s was sent %d times", method, n)
		}
	}

	hang := make(chan struct{})
	_, addr = startNode(t, "tcp", func(http.ResponseWriter, json.RawMessage, json.RawMessage) { <-hang })
	defer close(hang)
	m.must(nil, "register_node", `{"node_id":"hangs","socket_path":"`+addr+`"}`)
	began := time.Now()
	m.fails(-32004, "", "proxy", `{"node_id":"hangs","method":"my_method","timeout_s":0.05}`)
	if took := time.Since(began); took > 5*time.Second {
		t.Error("timeout_s of 0.05 took", took)
	}

	for name, answer := range map[string]string{
		"no JSON": "hello", "no JSON-RPC": `{}`, "HTML": "<html>",
	} {
		_, addr := startNode(t, "tcp", func(w http.ResponseWriter, _, _ json.RawMessage) { io.WriteString(w, answer) })
		m.must(nil, "register_node", `{"node_id":"odd","socket_path":"`+addr+`"}`)
		if a := m.call("start_vm", `{"node_id":"odd"}`); a.Error == nil || a.Error.Code != -32004 || strings.Contains(a.Error.Message, answer) {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func TestForwardLimits(t *testing.T) {
	m := startMaster(t)
	hang := make(chan struct{})
	node, addr := startNode(t, "tcp", func(w http.ResponseWriter, id, body json.RawMessage) {
		<-hang
		result(`true`)(w, id, body)
	})
	m.must(nil, "register_node", `{"node_id":"n1","socket_path":"`+addr+`"}`)
	done := make(chan answer, maxNodeCalls)
	for range maxNodeCalls {
		go func() { done <- m.call("vm_stats", `{"node_id":"n1"}`) }()
	}
	for range maxNodeCalls {
		<-node.asked
	}
	if a := m.call("vm_stats", `{"node_id":"n1"}`); a.Error == nil || a.Error.Code != -32007 || a.Error.Data.RetryAfterS == 0 {
		t.Errorf("one call too many: %+v", a)
	}
	close(hang)
	for range maxNodeCalls {
		if a := <-done; a.Error != nil {
			t.Error(a.Error)
		}
	}
}

func TestTargetIsOnlyOneNode(t *testing.T) {
	// The same sid on two nodes: which is meant has to be said.
	m := startMaster(t)
	if _, err := m.nodeOf(vmCallParams{}); err == nil {
		t.Error("a call to no node")
	}
	n := crdtstore.Node{Profile: record.Profile{SocketPath: "unix:///x/../" + m.cfg.RPCSocket}}
	if _, err := m.direct(n, n.SocketPath); err == nil {
		t.Error("a detour to this master's own socket")
	}
}

func TestTargetOnAnotherMachine(t *testing.T) {
	m := startMaster(t)
	for _, path := range []string{"unix:///run/compute.sock", "/run/compute.sock", "tcp://127.0.0.1:9003", "http://[::1]:9003"} {
		n := crdtstore.Node{Profile: record.Profile{SocketPath: path, MachineID: identity.Machine()}}
		if _, err := m.direct(n, path); err != nil {
			t.Errorf("%s on this machine: %v", path, err)
		}
		n.MachineID = "another"
		if _, err := m.direct(n, path); err == nil && identity.Machine() != "" {
			t.Errorf("%s of another machine would be called on this one", path)
		}
	}
}

// A request on a connection that was kept and breaks is not sent once more by the
// transport, which takes a name for the operation as a promise that it may be.
func TestOperationIsNotReplayed(t *testing.T) {
	m := startMaster(t)
	var broken atomic.Bool
	node, addr := startNode(t, "tcp", func(w http.ResponseWriter, id, body json.RawMessage) {
		if broken.Load() {
			panic(http.ErrAbortHandler)
		}
		result(`1`)(w, id, body)
	})
	m.must(nil, "register_node", `{"node_id":"n","socket_path":"`+addr+`"}`)
	m.must(nil, "start_vm", `{"node_id":"n","op_id":"a"}`) // makes a connection that is kept
	broken.Store(true)
	node.count.Store(0)
	m.fails(-32004, "", "start_vm", `{"node_id":"n","op_id":"b"}`)
	if n := node.count.Load(); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
}
