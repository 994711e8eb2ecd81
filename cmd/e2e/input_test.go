//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// Whatever is sent, the answer has the code that the contract gives it and
// names the field, the process lives on, and the state is what it was.
func TestBadInput(t *testing.T) {
	g := newGrid(t)
	m := g.startMaster("alone", masterOptions{})
	m.register("node-1", 10, 5, obj{"labels": obj{"rack": "7"}, "vms": []obj{{"sid": "vm-1", "name": "web", "state": "running", "cpu": 1, "memory": 1}}})
	m.must(t, "drain_node", obj{"node_id": "node-1"}, nil)
	before, err := m.records()
	if err != nil {
		t.Fatal(err)
	}

	call := func(method, params string) string {
		return `{"jsonrpc":"2.0","id":1,"method":"` + method + `","params":` + params + `}`
	}
	report := func(members string) string {
		return call("register_node", `{"node_id":"node-1","boot":10,"seq":6,`+members+`}`)
	}
	long := strings.Repeat("x", 5000)
	deep := strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000)
	for _, c := range []struct {
		name, body string
		code       int
		field      string // that data.field, or the message, names
	}{
		{"empty body", ``, -32700, ""},
		{"not JSON", `{"jsonrpc":`, -32700, ""},
		{"two values", `{} {}`, -32700, ""},
		{"single quotes", `{'jsonrpc':'2.0'}`, -32700, ""},
		{"not UTF-8", "\xff\xfe", -32700, ""},
		{"very deep", deep, -32700, ""},
		{"deep params", call("list_nodes", deep), -32700, ""},
		{"empty batch", `[]`, -32600, ""},
		{"a number", `1`, -32600, ""},
		{"a string", `"list_nodes"`, -32600, ""},
		{"null", `null`, -32600, ""},
		{"no version", `{"id":1,"method":"list_nodes"}`, -32600, "jsonrpc"},
		{"version 1.0", `{"jsonrpc":"1.0","id":1,"method":"list_nodes"}`, -32600, "jsonrpc"},
		{"no method", `{"jsonrpc":"2.0","id":1}`, -32600, "method"},
		{"method is a number", `{"jsonrpc":"2.0","id":1,"method":1}`, -32600, "method"},
		{"id is an object", `{"jsonrpc":"2.0","id":{},"method":"list_nodes"}`, -32600, "id"},
		{"params are a string", `{"jsonrpc":"2.0","id":1,"method":"list_nodes","params":"x"}`, -32600, "params"},
		{"unknown method", call("no_such_method", `{}`), -32601, "no_such_method"},
		{"prefix alone", call("ExplorerService.", `{}`), -32601, ""},
		{"other service", call("ComputeService.list_nodes", `{}`), -32601, ""},

		{"limit is a string", call("list_nodes", `{"limit":"x"}`), -32602, "limit"},
		{"limit is too great", call("list_nodes", `{"limit":1001}`), -32602, "limit"},
		{"limit is negative", call("list_nodes", `{"limit":-1}`), -32602, "limit"},
		{"limit is a fraction", call("list_nodes", `{"limit":1.5}`), -32602, "limit"},
		{"unknown field", call("list_nodes", `{"limitt":1}`), -32602, "limitt"},
		{"unknown field within", call("list_nodes", `{"min_free":{"gpus":1}}`), -32602, "gpus"},
		{"unknown status", call("list_nodes", `{"status":"asleep"}`), -32602, "status"},
		{"unknown sort", call("list_nodes", `{"sort":"colour"}`), -32602, "sort"},
		{"unknown cursor", call("list_nodes", `{"cursor":"nonsense"}`), -32009, "cursor"},
		{"cursor of another", call("list_vms", `{"cursor":"AAAA"}`), -32009, "cursor"},
		{"two positional params", call("list_nodes", `[{},{}]`), -32602, "params"},
		{"positional scalar", call("get_node", `["node-1"]`), -32602, "params"},
		{"no node_id", call("get_node", `{}`), -32602, "node_id"},
		{"node_id is a number", call("get_node", `{"node_id":1}`), -32602, "node_id"},
		{"node_id with a space", call("get_node", `{"node_id":"a b"}`), -32602, "node_id"},
		{"node_id with a slash", call("register_node", `{"node_id":"../x"}`), -32602, "node_id"},
		{"node_id too long", call("register_node", `{"node_id":"`+strings.Repeat("n", 129)+`"}`), -32602, "node_id"},
		{"no such node", call("get_node", `{"node_id":"node-9"}`), -32001, ""},
		{"drain no such node", call("drain_node", `{"node_id":"node-9"}`), -32001, ""},
		{"remove no such node", call("remove_node", `{"node_id":"node-9"}`), -32001, ""},
		{"drain with more", call("drain_node", `{"node_id":"node-1","force":true}`), -32602, "force"},
		{"labels are a list", call("label_node", `{"node_id":"node-1","labels":["a"]}`), -32602, "labels"},
		{"label is a number", call("label_node", `{"node_id":"node-1","labels":{"a":1}}`), -32602, "labels"},
		{"no such VM", call("get_vm", `{"sid":"vm-9"}`), -32008, ""},
		{"no such master", call("diff", `{"master":"nobody"}`), -32008, ""},
		{"diff with nobody", call("diff", `{}`), -32602, "master"},

		{"report is null", call("register_node", `null`), -32602, "node_id"},
		{"report without node_id", call("register_node", `{"boot":1,"seq":1}`), -32602, "node_id"},
		{"boot is negative", call("register_node", `{"node_id":"node-1","boot":-1,"seq":1}`), -32602, "boot"},
		{"boot is a string", call("register_node", `{"node_id":"node-1","boot":"10","seq":1}`), -32602, "boot"},
		{"boot is beyond 64 bits", call("register_node", `{"node_id":"node-1","boot":99999999999999999999,"seq":1}`), -32602, "boot"},
		{"boot is at 2^63", call("register_node", `{"node_id":"node-1","boot":9223372036854775808,"seq":1}`), -32602, "boot"},
		{"hostname is a number", report(`"hostname":1`), -32602, "hostname"},
		{"hostname is too long", report(`"hostname":"` + long + `"`), -32602, "hostname"},
		{"socket_path is too long", report(`"socket_path":"` + long + `"`), -32602, "socket_path"},
		{"latitude is beyond the pole", report(`"location":{"latitude":91}`), -32602, "location.latitude"},
		{"location is a string", report(`"location":"here"`), -32602, "location"},
		{"negative cores", report(`"total":{"cru":-1}`), -32602, "total.cru"},
		{"negative memory", report(`"total":{"mru":-1}`), -32602, "mru"},
		{"labels are a string", report(`"labels":"x"`), -32602, "labels"},
		{"a label is an object", report(`"labels":{"a":{}}`), -32602, "labels"},
		{"65 labels", report(`"labels":` + manyLabels(65)), -32602, "labels"},
		{"a label without a name", report(`"labels":{"":"x"}`), -32602, "labels"},
		{"vms is an object", report(`"vms":{}`), -32602, "vms"},
		{"a VM without sid", report(`"vms":[{"name":"x"}]`), -32602, "vms[0].sid"},
		{"the same sid twice", report(`"vms":[{"sid":"a"},{"sid":"a"}]`), -32602, "vms[1].sid"},
		{"1001 VMs", report(`"vms":` + manyVMs(1001)), -32602, "vms"},
		{"a signature alone", report(`"signature":"AAAA"`), 0, ""},
		{"a bad signature", report(`"public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","signature":"` + strings.Repeat("A", 86) + `=="`), -32006, ""},
		{"a heartbeat without node_id", call("node_heartbeat", `{}`), -32602, "node_id"},
		{"a heartbeat with a wrong boot", call("node_heartbeat", `{"node_id":"node-1","boot":"x"}`), -32602, "boot"},
		{"usage is a number", call("node_heartbeat", `{"node_id":"node-1","usage":1}`), -32602, "usage"},
		{"1001 heartbeats", call("node_heartbeats", `{"beats":`+manyBeats(1001)+`}`), -32602, "beats"},
		{"no heartbeats", call("node_heartbeats", `{}`), -32602, "beats"},
		{"deploy nowhere", call("deploy_vm", `{"name":"x"}`), -32602, "node_id"},
		{"proxy without method", call("proxy", `{"node_id":"node-1"}`), -32602, "method"},
		{"proxy of what is not allowed", call("proxy", `{"node_id":"node-1","method":"reboot"}`), -32010, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, body, err := m.post("/rpc", []byte(c.body))
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			if status != 200 {
				t.Errorf("status %d", status)
			}
			var answer struct {
				JSONRPC string `json:"jsonrpc"`
				Result  any    `json:"result"`
				Error   *struct {
					Code    int    `json:"code"`
					Message string `json:"message"`
					Data    struct {
						Field string `json:"field"`
						Hint  string `json:"hint"`
					} `json:"data"`
				} `json:"error"`
			}
			if err := json.Unmarshal(body, &answer); err != nil || answer.JSONRPC != "2.0" || answer.Error == nil {
				t.Fatalf("not an error answer (%v): %s", err, body)
			}
			e := answer.Error
			if c.code != 0 && e.Code != c.code {
				t.Errorf("code %d, want %d: %s", e.Code, c.code, body)
			}
			if c.field != "" && !contains(e.Data.Field, c.field) && !contains(e.Message, c.field) {
				t.Errorf("the answer does not name %s: %s", c.field, body)
			}
		})
	}

	t.Run("batch", func(t *testing.T) {
		status, body, err := m.post("/rpc", []byte(`[1,`+call("get_node", `{"node_id":"node-1"}`)+`,{"jsonrpc":"2.0","method":"list_nodes"},{}]`))
		var answers []response
		if err != nil || status != 200 || json.Unmarshal(body, &answers) != nil || len(answers) != 3 {
			t.Fatalf("%v, status %d, want three answers: %s", err, status, body)
		}
		good := 0
		for _, a := range answers {
			if a.Result != nil {
				good++
			} else if !contains(string(a.Error), "-32600") {
				t.Errorf("want -32600: %s", a.Error)
			}
		}
		if good != 1 {
			t.Errorf("one request of three was good: %s", body)
		}
	})
	t.Run("notification", func(t *testing.T) {
		for _, body := range []string{
			`{"jsonrpc":"2.0","method":"list_nodes"}`,
			`{"jsonrpc":"2.0","method":"no_such_method"}`,
			`[{"jsonrpc":"2.0","method":"list_nodes"}]`,
		} {
			if status, answer, err := m.post("/rpc", []byte(body)); err != nil || status != 204 || len(answer) > 0 {
				t.Errorf("%s: %v, status %d, want 204 and nothing: %s", body, err, status, answer)
			}
		}
	})
	t.Run("huge bodies", func(t *testing.T) {
		huge := make([]byte, 4<<20+1)
		for i := range huge {
			huge[i] = ' '
		}
		if status, answer, err := m.post("/rpc", huge); err != nil || status != 413 {
			t.Errorf("4 MiB and one byte: %v, status %d, want 413: %.200s", err, status, answer)
		}
		// The largest that is taken: a good request in 4 MiB.
		copy(huge, call("get_node", `{"node_id":"node-1"}`))
		if status, answer, err := m.post("/rpc", huge[:4<<20]); err != nil || status != 200 || !contains(string(answer), `"result"`) {
			t.Errorf("4 MiB: %v, status %d, want 200 and a result: %.200s", err, status, answer)
		}
		if err := lies(m.rpc, "Content-Length: 99999999999\r\n"); err != nil {
			t.Errorf("a length that is a lie: %v", err)
		}
		if err := lies(m.rpc, "Transfer-Encoding: chunked\r\n"); err != nil {
			t.Errorf("a body in endless chunks: %v", err)
		}
	})
	t.Run("other requests", func(t *testing.T) {
		for path, want := range map[string]int{"/rpc": 405, "/nowhere": 404, "/../../etc/passwd": 404} {
			if status, answer, err := m.get(path); err != nil || status != want {
				t.Errorf("GET %s: %v, status %d, want %d: %.200s", path, err, status, want, answer)
			}
		}
	})

	m.mustRun()
	after, err := m.records()
	if err != nil {
		t.Fatal(err)
	}
	if a, b := show(before), show(after); a != b {
		t.Errorf("the state was:\n%s\nand is:\n%s", a, b)
	}
	if log := tail(m.log, 10_000); contains(log, "panic") {
		t.Errorf("the log speaks of a panic:\n%s", log)
	}
}

// lies sends a request whose body is not what the header says, and returns an
// error unless the master answers with 413 or hangs up.
func lies(addr, header string) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintf(conn, "POST /rpc HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n%s\r\n", addr, header)
	written := make(chan struct{})
	go func() {
		defer close(written)
		chunk := []byte(fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat(" ", 64<<10)))
		for range 200 { // 12.5 MiB
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	}()
	head := make([]byte, 12)
	_, err = conn.Read(head)
	conn.Close()
	<-written
	if err == nil && !contains(string(head), "413") && !contains(string(head), "400") {
		return fmt.Errorf("answered %q", head)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("neither answered nor hung up: %w", err)
	}
	return nil
}

func manyLabels(n int) string {
	labels := map[string]string{}
	for i := range n {
		labels[fmt.Sprint("l", i)] = "x"
	}
	b, _ := json.Marshal(labels)
	return string(b)
}

func manyVMs(n int) string {
	return many(n, `{"sid":"vm-%d"}`)
}

func manyBeats(n int) string {
	return many(n, `{"node_id":"n-%d"}`)
}

func many(n int, format string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(format, i)
	}
	return "[" + strings.Join(all, ",") + "]"
}
