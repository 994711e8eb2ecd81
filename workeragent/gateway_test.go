package workeragent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent/internal/ops"
)

// compute is a compute service that counts what it carries out. It can be absent.
type compute struct {
	t    *testing.T
	path string
	stop func()

	mu    sync.Mutex
	runs  map[string]int // by params
	got   []string       // bodies
	about func(w http.ResponseWriter, r *http.Request, body string) bool
}

func newCompute(t *testing.T) *compute {
	return &compute{t: t, path: filepath.Join(t.TempDir(), "c.sock"), runs: map[string]int{}, stop: func() {}}
}

func (c *compute) endpoint() client.Endpoint {
	ep, err := client.Parse("unix://"+c.path, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	return ep
}

// start lets the service be there; it returns it.
func (c *compute) start() *compute {
	ln, err := net.Listen("unix", c.path)
	if err != nil {
		c.t.Fatal(err)
	}
	s := &http.Server{Handler: c}
	go s.Serve(ln)
	c.stop = func() { s.Close() }
	c.t.Cleanup(c.stop)
	return c
}

func (c *compute) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var in struct{ Method, Params, ID json.RawMessage }
	_ = json.Unmarshal(body, &in)
	c.mu.Lock()
	c.runs[string(in.Params)]++
	c.got = append(c.got, string(body))
	about := c.about
	c.mu.Unlock()
	if r.Header.Get(client.HeaderOperation) != "" {
		c.t.Error("the id of an operation was passed on")
	}
	if about != nil && about(w, r, string(body)) {
		return
	}
	// Spelled as no encoder of ours would.
	member := `"result":{ "run" : ` + fmt.Sprint(c.ran(string(in.Params))) + `, "f": 1.0, "u":"\u003c" }`
	if string(in.Method) == `"fail"` {
		member = `"error": {"message" : "no", "x":1, "code":-32077, "data":{ "retryable":false }}`
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	fmt.Fprintf(w, ` {"id":%s, %s, "jsonrpc":"2.0"}`+"\n", in.ID, member)
}

func (c *compute) set(about func(w http.ResponseWriter, r *http.Request, body string) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.about = about
}

func (c *compute) ran(params string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.runs[params]
}

// gatewayRig is a gateway in front of a compute service.
type gatewayRig struct {
	t       *testing.T
	c       *compute
	file    string
	journal *ops.Journal
	server  *httptest.Server
	close   func()
	// carriedOut is what the gateway says of operations.
	carriedOut chan struct{}
}

func newGatewayRig(t *testing.T, c *compute, o ops.Options) *gatewayRig {
	d := &gatewayRig{t: t, c: c, file: filepath.Join(t.TempDir(), "operations")}
	d.open(o)
	t.Cleanup(func() { d.close() })
	return d
}

func (d *gatewayRig) open(o ops.Options) {
	journal, err := ops.Open(d.file, o)
	if err != nil {
		d.t.Fatal(err)
	}
	gateway := newGateway("n", d.c.endpoint(), journal, nil)
	d.carriedOut = make(chan struct{}, 1)
	gateway.carriedOut = d.carriedOut
	server := httptest.NewServer(gateway)
	d.journal, d.server = journal, server
	d.close = sync.OnceFunc(func() {
		server.CloseClientConnections()
		server.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := journal.Close(ctx); err != nil {
			d.t.Error(err)
		}
		gateway.close()
	})
}

func (d *gatewayRig) reopen(o ops.Options) {
	d.close()
	d.open(o)
}

// post sends a body and returns the answer. No key: key is empty.
func (d *gatewayRig) post(key, body string) (*http.Response, string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, d.server.URL+"/rpc", strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if key != "" {
		req.Header[client.HeaderOperation] = strings.Split(key, "\n")
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		d.t.Error(err)
		return &http.Response{}, ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Error(err)
	}
	return resp, string(text)
}

func (d *gatewayRig) wants(key, body, want string) {
	d.t.Helper()
	if resp, got := d.post(key, body); resp.StatusCode != http.StatusOK || got != want {
		d.t.Errorf("%s %s: %d %s, want %s", key, body, resp.StatusCode, got, want)
	}
}

// fails wants an error of the gateway's own.
func (d *gatewayRig) fails(key, body string, code int, retryable bool) (data errorData) {
	d.t.Helper()
	_, got := d.post(key, body)
	var in struct {
		Error *jsonrpc.Error
		ID    json.RawMessage
	}
	if err := json.Unmarshal([]byte(got), &in); err != nil || in.Error == nil || in.Error.DecodeData(&data) != nil {
		d.t.Errorf("%s %s: %s, want an error", key, body, got)
		return data
	}
	if in.Error.Code != code || data.Retryable != retryable || data.Hint == "" || data.By != jsonrpc.ByAgent {
		d.t.Errorf("%s %s: %s, want code %d, retryable %v, a hint, and that the agent says so", key, body, got, code, retryable)
	}
	return data
}

func TestDoorPassesCallsOn(t *testing.T) {
	c := newCompute(t).start()
	d := newGatewayRig(t, c, ops.Options{})
	body := ` {"method":"m", "params":{ "secret":"<s>" },"jsonrpc":"2.0","id": "\u0061"}`
	for n := range 2 {
		resp, got := d.post("", body)
		want := fmt.Sprintf(` {"id":"\u0061", "result":{ "run" : %d, "f": 1.0, "u":"\u003c" }, "jsonrpc":"2.0"}`+"\n", n+1)
		if got != want || resp.Header.Get("Content-Type") != "application/json; charset=utf-8" {
			t.Errorf("%v %s, want %s", resp.Header, got, want)
		}
	}
	if c.got[0] != body {
		t.Errorf("passed on %s, want %s", c.got[0], body)
	}
	c.set(func(w http.ResponseWriter, _ *http.Request, _ string) bool {
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprint(w, "short and stout")
		return true
	})
	if resp, got := d.post("", body); resp.StatusCode != http.StatusTeapot || resp.Header.Get("Content-Type") != "text/plain" || got != "short and stout" {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, got)
	}
}

func TestDoorRefuses(t *testing.T) {
	c := newCompute(t).start()
	d := newGatewayRig(t, c, ops.Options{})
	call := `{"jsonrpc":"2.0","method":"m","params":[1],"id":1}`
	for _, key := range []string{"", "k"} {
		d.fails(key, `[`+call+`]`, jsonrpc.CodeInvalidRequest, false)
		d.fails(key, `{"jsonrpc":"2.0"`, jsonrpc.CodeParse, false)
		d.fails(key, `{"jsonrpc":"2.0","id":3}`, jsonrpc.CodeInvalidRequest, false)
		resp, got := d.post(key, `{"jsonrpc":"2.0","method":"m","id":1,"params":["`+strings.Repeat("x", jsonrpc.MaxBody)+`"]}`)
		if resp.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(got, "-32600") {
			t.Errorf("a long body: %d %s", resp.StatusCode, got)
		}
	}
	for _, key := range []string{" ", "a\tb", "käse", "one\ntwo", strings.Repeat("x", 129)} {
		if data := d.fails(key, call, jsonrpc.CodeInvalidParams, false); !strings.Contains(data.Hint, "op_id") {
			t.Errorf("key %q: %+v", key, data)
		}
	}
	for _, path := range []string{"/", "/health", "/rpc/", "/vms//logs", "/vms/../logs", "/vms/%2e%2e/logs", "/vms/a%2fb/console", "/vms/a/exec", "/vms/a/logs/", "/x/vms/a/logs"} {
		resp, err := raw(d, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
		if err != nil || resp.StatusCode != http.StatusNotFound {
			t.Errorf("GET %s: %v, error %v", path, resp, err)
		}
	}
	if resp, err := raw(d, "GET /rpc HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil || resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET /rpc: %v, error %v", resp, err)
	}
	if resp, err := raw(d, "POST /vms/a/logs HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil || resp.StatusCode != http.StatusNotFound {
		t.Errorf("POST /vms/a/logs: %v, error %v", resp, err)
	}
	if len(c.got) != 0 {
		t.Errorf("passed on %q", c.got)
	}
}

// raw sends a request byte for byte; clients would clean its path.
func raw(d *gatewayRig, request string) (*http.Response, error) {
	conn, err := net.Dial("tcp", d.server.Listener.Addr().String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	fmt.Fprint(conn, request)
	return http.ReadResponse(bufio.NewReader(conn), nil)
}

func TestOperationRunsOnce(t *testing.T) {
	c := newCompute(t).start()
	d := newGatewayRig(t, c, ops.Options{})
	for _, method := range []string{"deploy", "fail", "vm_stats"} { // also what may be repeated
		call := func(id string) string {
			return `{"jsonrpc":"2.0","method":"` + method + `","params":["` + method + `"],"id":` + id + `}`
		}
		member := `"result":{ "run" : 1, "f": 1.0, "u":"\u003c" }`
		if method == "fail" {
			member = `"error":{"message" : "no", "x":1, "code":-32077, "data":{ "retryable":false }}`
		}
		for time := range 2 {
			var all sync.WaitGroup
			for n := range 20 {
				id := fmt.Sprintf(`"caller %d"`, n)
				all.Go(func() { d.wants("op "+method, call(id), `{"jsonrpc":"2.0",`+member+`,"id":`+id+`}`) })
			}
			all.Wait()
			if n := len(d.carriedOut); n != 1-time {
				t.Errorf("%s: said %d times that VMs may have changed", method, n)
			}
			d.reopen(ops.Options{})
		}
		if resp, got := d.post("op "+method, `{"jsonrpc":"2.0","method":"`+method+`","params":["`+method+`"]}`); resp.StatusCode != http.StatusNoContent || got != "" {
			t.Errorf("a notification was answered %d %s", resp.StatusCode, got)
		}
		if n := c.ran(`["` + method + `"]`); n != 1 {
			t.Errorf("%s ran %d times", method, n)
		}
	}
	d.fails("op deploy", `{"jsonrpc":"2.0","method":"deploy","params":["other"],"id":1}`, jsonrpc.CodeInvalidParams, false)
	d.fails("op deploy", `{"jsonrpc":"2.0","method":"deplo","params":["deploy"],"id":1}`, jsonrpc.CodeInvalidParams, false)
	d.fails("op deploy", `{"jsonrpc":"2.0","method":"deploy","id":1}`, jsonrpc.CodeInvalidParams, false)
}

const deploy = `{"jsonrpc":"2.0","method":"deploy","params":["x"],"id":1}`

func TestComputeIsAbsentAndComesBack(t *testing.T) {
	c := newCompute(t)
	d := newGatewayRig(t, c, ops.Options{})
	d.fails("", deploy, jsonrpc.CodeCannotReach, true)
	d.fails("op", deploy, jsonrpc.CodeCannotReach, true)
	for _, key := range []string{"", "op"} { // who does not ask for an answer gets none, of errors neither
		if resp, got := d.post(key, `{"jsonrpc":"2.0","method":"deploy","params":["x"]}`); resp.StatusCode != http.StatusNoContent || got != "" {
			t.Errorf("a notification was answered %d %s", resp.StatusCode, got)
		}
	}
	d.reopen(ops.Options{})
	d.fails("op", deploy, jsonrpc.CodeCannotReach, true)
	c.start()
	for range 2 {
		d.wants("op", deploy, `{"jsonrpc":"2.0","result":{ "run" : 1, "f": 1.0, "u":"\u003c" },"id":1}`)
	}
	c.set(func(w http.ResponseWriter, _ *http.Request, _ string) bool {
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	d.fails("op 2", deploy, jsonrpc.CodeCannotReach, true) // it did not take the request
	c.set(nil)
	d.wants("op 2", deploy, `{"jsonrpc":"2.0","result":{ "run" : 3, "f": 1.0, "u":"\u003c" },"id":1}`)
}

func TestComputeDiesInACall(t *testing.T) {
	c := newCompute(t).start()
	d := newGatewayRig(t, c, ops.Options{})
	deaths := map[string]func(w http.ResponseWriter, r *http.Request, _ string) bool{
		"at once": func(http.ResponseWriter, *http.Request, string) bool { panic(http.ErrAbortHandler) },
		"in its answer": func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			fmt.Fprint(w, `{"jsonrpc":"2.0",`) // in chunks; only the last one is missing
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"behind a gateway": func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			w.WriteHeader(http.StatusBadGateway)
			return true
		},
		"and says nonsense": func(w http.ResponseWriter, _ *http.Request, _ string) bool {
			fmt.Fprint(w, "{}")
			return true
		},
	}
	for key, death := range deaths {
		c.set(death)
		d.fails(key, deploy, jsonrpc.CodeOutcomeUnknown, false)
	}
	c.set(deaths["at once"])
	d.fails("", deploy, jsonrpc.CodeOutcomeUnknown, false)
	d.fails("", `{"jsonrpc":"2.0","method":"ComputeService.list_vms","id":1}`, jsonrpc.CodeOutcomeUnknown, true)

	// An answer of which a part is missing must not look whole.
	c.set(deaths["in its answer"])
	resp, err := http.Post(d.server.URL+"/rpc", "application/json", strings.NewReader(deploy))
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
	}
	if err == nil {
		t.Error("half an answer was passed on as a whole one")
	}

	c.set(nil)
	before := c.ran(`["x"]`)
	for range 2 {
		for key := range deaths {
			d.fails(key, deploy, jsonrpc.CodeOutcomeUnknown, false)
		}
		d.reopen(ops.Options{})
	}
	if n := c.ran(`["x"]`); n != before {
		t.Errorf("%d operations of unknown outcome ran again", n-before)
	}
}

// A caller hangs up, and the next one gets the answer.
func TestCallerHangsUp(t *testing.T) {
	c := newCompute(t).start()
	d := newGatewayRig(t, c, ops.Options{})
	arrived, goOn := make(chan bool), make(chan bool)
	c.set(func(http.ResponseWriter, *http.Request, string) bool {
		arrived <- true
		<-goOn
		return false
	})
	ctx, hangUp := context.WithCancel(t.Context())
	gone := make(chan error)
	go func() {
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, d.server.URL+"/rpc", strings.NewReader(deploy))
		req.Header.Set(client.HeaderOperation, "op")
		_, err := http.DefaultTransport.RoundTrip(req)
		gone <- err
	}()
	<-arrived
	hangUp()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(goOn)
	d.wants("op", deploy, `{"jsonrpc":"2.0","result":{ "run" : 1, "f": 1.0, "u":"\u003c" },"id":1}`)
}

func TestMemoryIsFull(t *testing.T) {
	c := newCompute(t).start()
	d := newGatewayRig(t, c, ops.Options{MaxOps: 1, MaxAnswer: 5})
	d.wants("op", deploy, `{"jsonrpc":"2.0","result":{ "run" : 1, "f": 1.0, "u":"\u003c" },"id":1}`)
	d.fails("op", deploy, jsonrpc.CodeOutcomeUnknown, false) // its answer is too long
	if data := d.fails("op 2", deploy, jsonrpc.CodeLimit, true); data.RetryAfterS < 500 || data.RetryAfterS > 600 {
		t.Errorf("%+v, want about 600 s", data)
	}
	if n := c.ran(`["x"]`); n != 1 {
		t.Errorf("ran %d times", n)
	}
}

func TestErrorsOfOperations(t *testing.T) {
	wait := func(err error) error { return &ops.WaitError{Err: err, After: 1500 * time.Millisecond} }
	for _, c := range []struct {
		err       error
		code      int
		retryable bool
		after     int
		hint      string // a part of it
	}{
		{ops.NotRun(errTooManyCalls), jsonrpc.CodeLimit, true, 1, "nothing was done"},
		{ops.ErrDisk, jsonrpc.CodeCannotReach, true, 0, "nothing was done; check the disk"},
		{ops.ErrUnsaved, jsonrpc.CodeOutcomeUnknown, true, 0, "it was carried out"},
		{ops.ErrTooLarge, jsonrpc.CodeOutcomeUnknown, false, 0, "it was carried out"},
		{ops.ErrUnknown, jsonrpc.CodeOutcomeUnknown, false, 0, "may have run, and it will not run again"},
		{ops.ErrClosed, jsonrpc.CodeCannotReach, true, 0, "nothing was done; try again when it runs"},
		{ops.ErrOtherCall, jsonrpc.CodeInvalidParams, false, 0, "another call"},
		{wait(ops.ErrDamaged), jsonrpc.CodeOutcomeUnknown, true, 2, "nothing was done now"},
		{wait(ops.ErrFresh), jsonrpc.CodeOutcomeUnknown, false, 2, "nothing was done now"},
		{wait(ops.ErrFull), jsonrpc.CodeLimit, true, 2, "nothing was done; try again in 2 s"},
		{ops.NotRun(&client.TransportError{Err: io.EOF}), jsonrpc.CodeCannotReach, true, 0, "nothing was done; check the compute service"},
	} {
		e := operationFailed(fmt.Errorf("wrapped: %w", c.err))
		var data errorData
		if err := e.DecodeData(&data); err != nil || e.Code != c.code || data.Retryable != c.retryable || data.RetryAfterS != c.after || !strings.Contains(data.Hint, c.hint) {
			t.Errorf("%v: %v %+v", c.err, e, data)
		}
	}
}

// Calls that are not the same are told apart, wherever one method ends and its params begin.
func TestFingerprint(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.StringN(1, 20, -1).Draw(r, "text")
		call := func(name string) jsonrpc.Incoming {
			i := rapid.IntRange(0, len(text)).Draw(r, name)
			return jsonrpc.Incoming{Method: text[:i], Params: json.RawMessage(text[i:])}
		}
		a, b := call("a"), call("b")
		if rapid.Bool().Draw(r, "another method") {
			b.Method = strings.ToUpper(a.Method)
			b.Params = a.Params
		}
		b.ID = json.RawMessage("7")
		same := a.Method == b.Method && string(a.Params) == string(b.Params)
		if (fingerprint(a) == fingerprint(b)) != same {
			r.Errorf("%q %q and %q %q", a.Method, a.Params, b.Method, b.Params)
		}
	})
}

// A body that is too long is refused: at once where it says so, else when it is.
func TestLongBodies(t *testing.T) {
	d := newGatewayRig(t, newCompute(t).start(), ops.Options{})
	for name, request := range map[string]string{
		"announced": fmt.Sprintf("Content-Length: %d\r\n\r\n", jsonrpc.MaxBody+1), // and nothing of it is sent
		"in chunks": fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", jsonrpc.MaxBody+1, strings.Repeat(" ", jsonrpc.MaxBody+1)),
	} {
		resp, err := raw(d, "POST /rpc HTTP/1.1\r\nHost: x\r\n"+request)
		if err != nil || resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %v, error %v", name, resp, err)
		}
	}
}

func TestCallsAreBounded(t *testing.T) {
	endpoints := make(chan struct{}, 1)
	release, ok := enter(t.Context(), endpoints, 0)
	if !ok {
		t.Fatal("no place")
	}
	if _, ok := enter(t.Context(), endpoints, 0); ok {
		t.Error("two in one place")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := enter(ctx, endpoints, time.Hour); ok {
		t.Error("two in one place")
	}
	release()
	if _, ok := enter(t.Context(), endpoints, 0); !ok {
		t.Error("a place was not given back")
	}
}

// Operations whose callers have gone count as well.
func TestOperationsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newGateway("n", newCompute(t).endpoint(), nil, nil)
		for range maxGatewayCalls {
			d.running <- struct{}{}
		}
		if _, err := d.carryOut(t.Context(), "op", jsonrpc.Incoming{Method: "m"}); operationFailed(err).Code != jsonrpc.CodeLimit {
			t.Errorf("error %v", err)
		}
	})
}

// A line of a log is there before the next one is written.
func TestLogsAreFlushed(t *testing.T) {
	c := newCompute(t).start()
	d := newGatewayRig(t, c, ops.Options{})
	next, target := make(chan string), make(chan string, 1)
	c.set(func(w http.ResponseWriter, r *http.Request, _ string) bool {
		target <- r.Method + " " + r.RequestURI + " " + r.Header.Get("Authorization")
		w.Header().Set("Content-Type", "text/plain")
		w.Header().Set("Content-Length", "35") // or the proxy would flush by itself
		for line := range next {
			fmt.Fprintln(w, line)
			w.(http.Flusher).Flush()
		}
		return true
	})
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, d.server.URL+"/vms/vm%201/logs?follow=1&tail=;x", nil)
	req.Header.Set("Authorization", "Bearer of-a-master")
	lines := make(chan string)
	go func() {
		defer close(lines)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		for s := bufio.NewScanner(resp.Body); s.Scan(); {
			lines <- s.Text()
		}
	}()
	for n := range 5 {
		next <- fmt.Sprint("line ", n)
		if got := <-lines; got != fmt.Sprint("line ", n) {
			t.Errorf("got %q", got)
		}
	}
	close(next)
	if _, more := <-lines; more {
		t.Error("the log has no end")
	}
	if got, want := <-target, "GET /vms/vm%201/logs?follow=1&tail=;x "; got != want {
		t.Errorf("asked %q, want %q", got, want)
	}
}

func TestConsole(t *testing.T) {
	c := newCompute(t).start()
	d := newGatewayRig(t, c, ops.Options{})
	c.set(func(w http.ResponseWriter, r *http.Request, _ string) bool {
		if r.Header.Get("Upgrade") != "websocket" || r.Header.Get("Sec-WebSocket-Key") != "k" || r.URL.Query().Get("secret") != "s" {
			t.Errorf("asked %s %v", r.RequestURI, r.Header)
		}
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return true
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\nhello ")
		_, _ = io.Copy(conn, buf) // says what it hears
		return true
	})
	conn, err := net.Dial("tcp", d.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /vms/vm-1/console?secret=s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols || resp.Header.Get("Sec-WebSocket-Accept") != "a" {
		t.Fatalf("%v, error %v", resp, err)
	}
	sent := bytes.Repeat([]byte{0x81, 0, 255, '\n', 0x88}, 20_000)
	go conn.Write(sent)
	got := make([]byte, len("hello ")+len(sent))
	if _, err := io.ReadFull(r, got); err != nil || string(got[:6]) != "hello " || !bytes.Equal(got[6:], sent) {
		t.Errorf("%d bytes came back otherwise, error %v", len(got), err)
	}
	conn.Close()
}

func TestStreamsWithoutCompute(t *testing.T) {
	c := newCompute(t)
	d := newGatewayRig(t, c, ops.Options{})
	get := func() int {
		resp, err := http.Get(d.server.URL + "/vms/a/logs")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	if status := get(); status != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503: nothing was sent", status)
	}
	c.start().set(func(http.ResponseWriter, *http.Request, string) bool { panic(http.ErrAbortHandler) })
	if status := get(); status != http.StatusBadGateway {
		t.Errorf("status %d, want 502", status)
	}
}

// An agent takes no call for another node, by whatever way it came there.
func TestDoorOfAnotherNode(t *testing.T) {
	c := newCompute(t).start()
	d := newGatewayRig(t, c, ops.Options{})
	for node, want := range map[string]int{"": http.StatusOK, "n": http.StatusOK, "other": http.StatusMisdirectedRequest} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, d.server.URL+"/rpc", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"start_vm","params":{"sid":"`+node+`"}}`))
		if node != "" {
			req.Header.Set(client.HeaderNode, node)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("for node %q: %s", node, resp.Status)
		}
		if ran := c.ran(`{"sid":"` + node + `"}`); (ran > 0) != (want == http.StatusOK) {
			t.Errorf("for node %q: it ran %d times", node, ran)
		}
	}
}

// A memory that began late does not take a repetition for new.
func TestRepetitionOnAFreshMemory(t *testing.T) {
	c := newCompute(t).start()
	d := newGatewayRig(t, c, ops.Options{Late: true})
	post := func(op string, again bool) string {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, d.server.URL+"/rpc", strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"start_vm","params":{"op":"`+op+`"}}`))
		req.Header.Set(client.HeaderOperation, op)
		if again {
			req.Header.Set(client.HeaderAgain, "1")
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body)
	}
	if got := post("x", true); !strings.Contains(got, "-32004") || c.ran(`{"op":"x"}`) != 0 {
		t.Errorf("a repetition of what may have run before: %s", got)
	}
	if got := post("y", false); !strings.Contains(got, `"result"`) {
		t.Errorf("a new operation: %s", got)
	}
	if got := post("y", true); !strings.Contains(got, `"result"`) || c.ran(`{"op":"y"}`) != 1 {
		t.Errorf("its repetition: %s", got)
	}
	d.reopen(ops.Options{Late: true})
	if got := post("x", true); !strings.Contains(got, "-32004") || c.ran(`{"op":"x"}`) != 0 {
		t.Errorf("after a restart: %s", got)
	}
}
