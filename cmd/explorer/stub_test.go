package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/coder/websocket"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// stubNode is a node as a master gives it, whose hostname tries to steer the
// terminal.
func stubNode(id string, drained bool) string {
	return fmt.Sprintf(`{"node_id":%q,"boot":7,"seq":9,"hostname":"host\u001b[31m","socket_path":"tcp://192.0.2.1:9003","version":"1.0",
		"location":{"country":"Belgium","city":"Ghent","latitude":51,"longitude":3.7},"total":{"cru":8,"mru":17179869184,"sru":107374182400,"hru":0},
		"slices_total":4,"labels":{"zone":"a"},"usage":{"cru":1.5,"mru":4294967296,"sru":0,"hru":0,"slices":1},"uptime_s":7200,
		"vms":[%s],"status":"online","drained":%v,"last_seen":"2026-01-02T03:04:05Z","seen_by":[{"master":"12D3KooWStub","age_s":3.2}],
		"tunnel":[],"signed":true,"created_at":"2026-01-01T00:00:00Z","updated_at":"2026-01-02T00:00:00Z","field_of_a_newer_master":1}`, id, stubVM, drained)
}

const stubVM = `{"sid":"v1","name":"web","node_id":"n1","state":"running","cpu":2,"memory":2147483648,"ip":"10.0.0.2","as_of":"2026-01-02T03:04:05Z"}`

// newStub serves the API of a master that always knows the same.
func newStub(grid stubGrid) *httptest.Server {
	rpc := new(jsonrpc.Mux)
	answer := func(method string, f func(p map[string]any) (string, error)) {
		rpc.Handle(method, func(_ context.Context, params json.RawMessage) (any, error) {
			p := map[string]any{}
			d := json.NewDecoder(bytes.NewReader(params))
			d.UseNumber() // so that sizes keep all their bits
			if err := d.Decode(&p); err != nil && params != nil {
				return nil, err
			}
			result, err := f(p)
			return json.RawMessage(result), err
		})
	}
	always := func(method, result string) {
		answer(method, func(map[string]any) (string, error) { return result, nil })
	}
	always("stats", grid.stats)
	always("masters", grid.masters)
	answer("diff", func(p map[string]any) (string, error) {
		switch p["master"] {
		case "alpha":
			return `{"equal":true,"digest":{"self":"ab","other":"ab"},"nodes":[],"total":0}`, nil
		case "beta":
			return `{"equal":false,"digest":{"self":"ab","other":"cd"},"total":2,"nodes":[{"node_id":"n1","fields":["drained","labels"]},{"node_id":"n2","fields":["missing_here"]}]}`, nil
		case "gamma":
			return `{"equal":false,"digest":{"self":"ab","other":"cd"},"total":2000,"nodes":[{"node_id":"n1","fields":["history"]}]}`, nil
		}
		return "", &jsonrpc.Error{Code: jsonrpc.CodeNotFound, Message: fmt.Sprintf("master %v is not known", p["master"]), Data: jsonrpc.ErrorData{Hint: "masters shows what there is"}}
	})
	answer("events", func(p map[string]any) (string, error) {
		if p["q"] == "params" { // shows what was asked for
			b, err := json.Marshal(p)
			return `{"events":[],"asked":` + string(b) + `}`, err
		}
		if p["cursor"] == "c1" {
			return `{"events":[` + stubEvent(1) + `]}`, nil
		}
		return `{"events":[` + stubEvent(2) + `,` + stubEvent(1) + `],"next_cursor":"c1"}`, nil
	})
	always("rpc.discover", `{"openrpc":"1.2.6","methods":[]}`)
	answer("list_vms", func(p map[string]any) (string, error) {
		if q := p["q"]; q == "twin" || q == "t" {
			return `{"vms":[{"sid":"t1","name":"twin","node_id":"n1"},{"sid":"t2","name":"twin","node_id":"n2"}],"total":2}`, nil
		}
		return `{"vms":[` + stubVM + `],"total":1}`, nil
	})
	answer("list_nodes", func(p map[string]any) (string, error) {
		if p["status"] == "asleep" {
			return "", jsonrpc.InvalidParams("status", `is "asleep"; must be online, suspect or offline`)
		}
		if p["q"] == "params" { // shows what was asked for
			b, err := json.Marshal(p)
			return `{"nodes":[],"total":0,"asked":` + string(b) + `}`, err
		}
		if p["q"] == "conflict" {
			return `{"nodes":[` + stubConflict() + `],"total":1}`, nil
		}
		if p["q"] == "only-" { // one that begins so, on the second page, and one that has it elsewhere
			if p["cursor"] == nil {
				return `{"nodes":[{"node_id":"not-only-"}],"total":2,"next_cursor":"c9"}`, nil
			}
			return `{"nodes":[{"node_id":"only-n1"}],"total":2}`, nil
		}
		if p["cursor"] == "c2" {
			return `{"nodes":[` + stubNode("n3", false) + `],"total":3}`, nil
		}
		return `{"nodes":[` + stubNode("n1", false) + `,` + stubNode("n2", true) + `],"total":3,"next_cursor":"c2"}`, nil
	})
	stubVMCalls(answer)
	known := func(p map[string]any, result string) (string, error) {
		if id := p["node_id"]; id != "n1" && id != "only-n1" {
			return "", &jsonrpc.Error{Code: jsonrpc.CodeNodeNotFound, Message: fmt.Sprintf("node %v is not known", id), Data: jsonrpc.ErrorData{Hint: "list_nodes shows the nodes"}}
		}
		return result, nil
	}
	answer("get_node", func(p map[string]any) (string, error) {
		if p["node_id"] == "torn" {
			return stubConflict(), nil
		}
		return known(p, stubNode("n1", false))
	})
	for _, m := range []string{"drain_node", "undrain_node", "label_node", "remove_node"} {
		answer(m, func(p map[string]any) (string, error) {
			if b, err := json.Marshal(p); m == "label_node" && string(b) != `{"labels":{"a":"b=c","gone":null},"node_id":"n1"}` {
				return "", fmt.Errorf("unexpected params %s, %w", b, err)
			}
			return known(p, stubNode("n1", m == "drain_node"))
		})
	}
	answer("get_vm", func(p map[string]any) (string, error) {
		if p["sid"] != "v1" {
			return "", &jsonrpc.Error{Code: jsonrpc.CodeNotFound, Message: "VM is not known"}
		}
		return stubVM, nil
	})

	mux := http.NewServeMux()
	mux.HandleFunc("POST /rpc", func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Authorization"); a != "" && a != "Bearer right" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"jsonrpc":"2.0","id":null,"error":{"code":-32005,"message":"the token is not valid","data":{"retryable":false,"hint":"make another one","by":"master"}}}`)
			return
		}
		rpc.ServeHTTP(w, r)
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		if grid.reason != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintf(w, `{"status":"unavailable","service":"hero_explorer","version":"v9","reason":%q}`, grid.reason)
			return
		}
		fmt.Fprint(w, `{"status":"ok","service":"hero_explorer","version":"v9"}`)
	})
	mux.HandleFunc("GET /events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		flush := http.NewResponseController(w).Flush
		if r.URL.Query().Get("log") == "1" {
			if r.Header.Get("Last-Event-ID") == "" { // what was listed already, what is new, and it breaks off
				fmt.Fprintf(w, "event: snapshot\nid: 1\ndata: {}\n\nevent: log\nid: 2\ndata: %s\n\nevent: log\nid: 3\ndata: %s\n\n", stubEvent(2), stubEvent(3))
				return
			}
			fmt.Fprintf(w, "event: node\nid: 4\ndata: {}\n\nevent: log\nid: 5\ndata: %s\n\nevent: log\nid: 6\ndata: %s\n\n", stubEvent(4), stubEvent(5))
			_ = flush()
			<-r.Context().Done()
			return
		}
		switch r.Header.Get("Last-Event-ID") {
		case "": // a snapshot, a change, and the stream breaks off
			fmt.Fprintf(w, "event: snapshot\nid: 1\ndata: {}\n\nevent: node\nid: 2\ndata: %s\n\n", oneLineJSON(stubNode("n1", true)))
		case "2": // it goes on where it broke off
			fmt.Fprintf(w, ": following\n\nevent: vm\nid: 3\ndata: {}\n\nevent: node\nid: 4\ndata: %s\n\n", oneLineJSON(stubNode("n9", false)))
			_ = flush()
			<-r.Context().Done()
		}
	})
	mux.HandleFunc("GET /vms/v1/logs", func(w http.ResponseWriter, r *http.Request) {
		if secret := r.Header.Get("X-VM-Secret"); secret != "s3" {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"error":"wrong secret","hint":"give the secret of the VM"}`)
			return
		}
		fmt.Fprintf(w, "asked for %s\nboot\x1b[2J\n", r.URL.RawQuery)
	})
	mux.HandleFunc("GET /vms/v1/console", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-VM-Secret") != "s3" {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"error":"wrong secret","hint":"give the secret of the VM"}`)
			return
		}
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		serial := websocket.NetConn(r.Context(), ws, websocket.MessageBinary)
		fmt.Fprintf(serial, "login on %s: ", r.URL.Query().Get("node_id"))
		typed, _ := bufio.NewReader(serial).ReadString('\n')
		fmt.Fprintf(serial, "hello %s", typed)
		if strings.HasPrefix(typed, "root") {
			_ = ws.Close(websocket.StatusNormalClosure, "")
		}
		_, _, _ = ws.Read(r.Context()) // until the other side leaves
	})
	stubBackups(mux)
	return httptest.NewServer(mux)
}

// stubEvent is something that happened: every other one is an operator's word.
func stubEvent(id int) string {
	kind, what, by := "node", "offline", ""
	if id%2 == 1 {
		kind, what, by = "operator", "drained", `"by":"alice","master":"12D3KooWOther",`
	}
	return fmt.Sprintf(`{"id":%d,"at":"2026-01-02T03:04:0%dZ","kind":%q,"type":%q,"node_id":"n%d",%s"text":"event %[1]d\u001b[31m"}`, id, id, kind, what, id, by)
}

// stubConflict is a node that two machines claim.
func stubConflict() string {
	return strings.Replace(stubNode("torn", false), `"signed":true`, `"signed":true,"trouble":["the disk is full","the fan\u001b[31m hums"],"conflict":{"reason":"several identities claim this node id","since":"2026-01-02T00:00:00Z","claims":[
		{"public_key":"b25l","boot":7,"seq":9,"hostname":"alpha","socket_path":"tcp://192.0.2.1:9003","since":"2026-01-01T00:00:00Z","shown":true},
		{"boot":8,"seq":1,"hostname":"beta\u001b[31m","socket_path":"","since":"2026-01-02T00:00:00Z","shown":false}]}`, 1)
}

// stubVMCalls adds what a master passes on to the node of v1, which tells what
// it was called with. The answer to what is done to v1 with the secret "lost"
// gets lost until somebody repeats it by hand.
func stubVMCalls(answer func(method string, f func(p map[string]any) (string, error))) {
	for _, m := range []string{"deploy_vm", "start_vm", "stop_vm", "restart_vm", "delete_vm"} {
		answer(m, func(p map[string]any) (string, error) {
			if name, _ := p["op_id"].(string); len(name) < 8 {
				return "", fmt.Errorf("op_id is %v", p["op_id"])
			}
			if p["secret"] == "lost" && p["op_id"] != "by-hand-1" {
				return "", &jsonrpc.Error{Code: jsonrpc.CodeOutcomeUnknown, Message: "sent and not answered", Data: jsonrpc.ErrorData{Retryable: true, Hint: "repeat it"}}
			}
			if p["op_id"] != "by-hand-1" {
				delete(p, "op_id")
			}
			b, err := json.Marshal(p)
			return `{"sid":"v1","state":"done with ` + strings.ReplaceAll(string(b), `"`, "'") + `"}`, err
		})
	}
	answer("vm_stats", func(map[string]any) (string, error) {
		return `{"sid":"v1","cpu_percent":12.5,"memory_used":1048576}`, nil
	})
	answer("vm_logs", func(p map[string]any) (string, error) {
		return fmt.Sprintf(`{"sid":"v1","lines":["first of %v","last\u001b[2J"]}`, p["lines"]), nil
	})
	answer("vm_exec", func(p map[string]any) (string, error) {
		if fmt.Sprint(p["command"]) == "[false]" {
			return `{"exit_code":3,"stdout":"","stderr":"it is false\n"}`, nil
		}
		return fmt.Sprintf(`{"exit_code":0,"stdout":"ran %v on %v\n","stderr":""}`, p["command"], p["node_id"]), nil
	})
}

// stubBackup looks like a backup of 3 nodes from outside.
func stubBackup() []byte {
	b := append([]byte("hero_explorer backup 1\n"), bytes.Repeat([]byte("x"), 10_000)...)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 3)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// stubBackups serves backups: a good one, and below /damaged, /cut, /endless and
// so on such that are not.
func stubBackups(mux *http.ServeMux) {
	give := func(path string, f func(http.ResponseWriter, *http.Request)) {
		mux.HandleFunc("GET "+path+"/backup", f)
	}
	file := stubBackup()
	give("", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(file) })
	give("/damaged", func(w http.ResponseWriter, _ *http.Request) {
		b := bytes.Clone(file)
		b[5000]++
		_, _ = w.Write(b)
	})
	give("/short", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(file[:len(file)-1]) })
	give("/other", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>Welcome</html>") })
	give("/cut", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(file) // all of it, but without a proper end
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	give("/silent", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(file[:100])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	give("/closed", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error":"a token is needed","hint":"make one"}`)
	})
	mux.HandleFunc("POST /restore", func(w http.ResponseWriter, r *http.Request) {
		if b, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(b, file) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"error":"not a backup that can be read","hint":"nothing was changed"}`)
			return
		}
		fmt.Fprint(w, `{"nodes":3,"changed":1}`)
	})
}

func oneLineJSON(s string) string {
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		panic(err)
	}
	b, _ := json.Marshal(v)
	return string(b)
}

// newBusy serves a master that cannot serve.
func newBusy() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"status":"unavailable","service":"hero_explorer","version":"v9","reason":"the disk is full"}`)
	}))
}
