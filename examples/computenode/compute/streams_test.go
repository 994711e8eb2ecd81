package compute_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
)

// served is a service on loopback with one VM, whose secret is "s".
type served struct {
	*compute.Service
	url string // of the VM
	sid string
}

func serveVM(t *testing.T, timeouts time.Duration) *served {
	t.Helper()
	s := &served{Service: newService(t, compute.Config{})}
	srv := httptest.NewUnstartedServer(s.Handler())
	srv.Config.ReadTimeout, srv.Config.WriteTimeout = timeouts, timeouts
	srv.Start()
	t.Cleanup(srv.Close)
	t.Cleanup(s.EndStreams)
	vm, err := s.Deploy(t.Context(), compute.Deployment{Name: "web", Image: "tiny", CPU: 1, Memory: 1 << 30, Secret: "s"})
	if err != nil {
		t.Fatal(err)
	}
	s.sid, s.url = vm.SID, srv.URL+"/vms/"+vm.SID
	return s
}

// follow opens the log and returns its lines as they come; closed at the end.
func (s *served) follow(t *testing.T, query string) <-chan string {
	t.Helper()
	resp := s.get(t, "/logs?follow=true&"+query)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("HTTP %d", resp.StatusCode)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		in := bufio.NewScanner(resp.Body)
		for in.Scan() {
			select {
			case lines <- in.Text():
			case <-t.Context().Done():
				return
			}
		}
	}()
	return lines
}

func (s *served) get(t *testing.T, path string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set(compute.SecretHeader, "s")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func (s *served) exec(t *testing.T, program string) {
	t.Helper()
	if _, err := s.Exec(t.Context(), s.sid, "s", []string{program}); err != nil {
		t.Fatal(err)
	}
}

func wantLine(t *testing.T, lines <-chan string, ending string) {
	t.Helper()
	select {
	case line, ok := <-lines:
		if !ok || !strings.HasSuffix(line, ending) {
			t.Fatalf("line %q (%v), want one that ends with %q", line, ok, ending)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("no line that ends with %q", ending)
	}
}

func TestLogs(t *testing.T) {
	s := serveVM(t, 0)
	s.exec(t, "one")
	s.exec(t, "two")
	resp := s.get(t, "/logs?lines=2")
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.Header.Get("Content-Type") != "text/plain; charset=utf-8" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v, %v", resp.Header, err)
	}
	if text := string(body); strings.Count(text, "\n") != 2 || !strings.HasSuffix(text, "exec \"two\"\n") {
		t.Errorf("the last two lines: %q", text)
	}
}

func TestFollowLogs(t *testing.T) {
	s := serveVM(t, 0)
	s.exec(t, "one")
	all, latest := s.follow(t, "lines=1"), s.follow(t, "lines=0")
	wantLine(t, all, `exec "one"`)
	s.exec(t, "two")
	wantLine(t, all, `exec "two"`)
	wantLine(t, latest, `exec "two"`)
	// A VM that stops may be started again: the log goes on.
	if _, err := s.Restart(t.Context(), s.sid, "s"); err != nil {
		t.Fatal(err)
	}
	wantLine(t, all, "shut down")
	wantLine(t, all, "with 1 cores and 1024 MiB")
	if _, err := s.Delete(t.Context(), s.sid, "s"); err != nil {
		t.Fatal(err)
	}
	wantLine(t, all, "shut down")
	if line, ok := <-all; ok {
		t.Errorf("after delete_vm: %q", line)
	}
}

// The time that a server allows a request to take is not for streams.
func TestStreamsOutliveTheLimitsOfTheServer(t *testing.T) {
	const limit = 100 * time.Millisecond
	s := serveVM(t, limit)
	lines := s.follow(t, "lines=0")
	c := s.console(t)
	<-time.After(3 * limit) // what is tested is that time passes
	s.exec(t, "late")
	wantLine(t, lines, `exec "late"`)
	c.types(t, "x")
	c.shows(t, "x")
}

// One that does not read misses lines. It holds up neither the VM nor others.
func TestSlowFollower(t *testing.T) {
	s := serveVM(t, 0)
	log, err := s.Follow(t.Context(), s.sid, "s", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	const written = 10_000
	for range written {
		s.exec(t, "true")
	}
	s.exec(t, "last")
	for n := 1; ; n++ {
		line, err := log.Next()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(line, `"last"`) {
			if n < 100 || n > written/10 {
				t.Errorf("the slow one got %d lines", n)
			}
			return
		}
	}
}

// Whoever leaves is not waited for.
func TestFollowEndsWithItsContext(t *testing.T) {
	s := serveVM(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	log, err := s.Follow(ctx, s.sid, "s", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	console, err := s.Console(ctx, s.sid, "s")
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	cancel()
	if _, err := log.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("the log ends with %v", err)
	}
	if _, err := console.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the console ends with %v", err)
	}
}

// Nobody learns from the streams which VMs there are.
func TestStreamsOfAVMThatIsNotOurs(t *testing.T) {
	s := serveVM(t, 0)
	h := s.Handler()
	ask := func(sid, stream, query, header string) (int, string) {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/vms/"+sid+"/"+stream+query, nil)
		req.Header.Set(compute.SecretHeader, header)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		return w.Code, fmt.Sprint(w.Header(), strings.ReplaceAll(w.Body.String(), sid, "SID"))
	}
	for _, stream := range []string{"logs", "console"} {
		_, none := ask("vm-none", stream, "", "s")
		for _, c := range []struct{ query, header string }{
			{"", ""}, {"", "wrong"}, {"?secret=wrong", ""}, {"?secret=s", "wrong"},
		} {
			code, text := ask(s.sid, stream, c.query, c.header)
			if code != http.StatusNotFound || text != none {
				t.Errorf("%s%s with %q: HTTP %d %s\na VM that is not there: %s", stream, c.query, c.header, code, text, none)
			}
		}
	}
	for _, c := range []struct{ query, header string }{{"?secret=s", ""}, {"", "s"}, {"?secret=wrong", "s"}} {
		if code, text := ask(s.sid, "logs", c.query, c.header); code != http.StatusOK {
			t.Errorf("logs%s with %q: HTTP %d %s", c.query, c.header, code, text)
		}
	}
}

func TestBadStreamRequestsNameTheField(t *testing.T) {
	s := serveVM(t, 0)
	for path, field := range map[string]string{
		"/logs?lines=-1": "lines", "/logs?lines=1001": "lines", "/logs?lines=x": "lines",
		"/logs?follow=maybe": "follow", "/logs?folow=true": "folow", "/console?lines=1": "lines",
		"/logs?lines=1&lines=2": "lines", "/logs?follow=1&x": "x",
	} {
		resp := s.get(t, path)
		var e rpcError
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil || resp.StatusCode != http.StatusBadRequest {
			t.Errorf("%.40s: HTTP %d, %v", path, resp.StatusCode, err)
		}
		if !strings.Contains(string(e.Data), `"`+field+`"`) {
			t.Errorf("%.40s: %s %s does not name %s", path, e.Message, e.Data, field)
		}
	}
}

// console is the client's end of a console.
type console struct {
	conn *websocket.Conn
	seen string
}

func (s *served) console(t *testing.T) *console {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), s.url+"/console?secret=s", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return &console{conn: conn}
}

func (c *console) types(t *testing.T, keys string) {
	t.Helper()
	if err := c.conn.Write(t.Context(), websocket.MessageBinary, []byte(keys)); err != nil {
		t.Fatal(err)
	}
}

// shows waits until the text is on the console, and forgets what came before.
func (c *console) shows(t *testing.T, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !strings.Contains(c.seen, text) {
		typ, b, err := c.conn.Read(ctx)
		if err != nil {
			t.Fatalf("%v; on the console so far: %q", err, c.seen)
		}
		if typ != websocket.MessageBinary {
			t.Errorf("a message of type %v", typ)
		}
		c.seen += string(b)
	}
	_, c.seen, _ = strings.Cut(c.seen, text)
}

// ends waits for the last frame.
func (c *console) ends(t *testing.T) websocket.StatusCode {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		if _, _, err := c.conn.Read(ctx); err != nil {
			return websocket.CloseStatus(err)
		}
	}
}

func TestConsoles(t *testing.T) {
	s := serveVM(t, 0)
	a, b := s.console(t), s.console(t)
	a.types(t, "echo  hallox\x7f\r")
	for _, c := range []*console{a, b} {
		c.shows(t, "echo  hallox\b \b\r\nhallo\r\nweb$ ")
	}
	b.types(t, "echo \xff\x00\r") // bytes, not text
	a.shows(t, "\r\n\xff\x00\r\nweb$ ")

	b.conn.CloseNow() // its leaving is nothing to a
	a.types(t, "host")
	a.types(t, "name\r")
	a.shows(t, "\nweb\r\n")

	if _, err := s.Stop(t.Context(), s.sid, "s"); err != nil {
		t.Fatal(err)
	}
	if code := a.ends(t); code != websocket.StatusNormalClosure {
		t.Errorf("when the VM stops, its console ends with %v", code)
	}
	_, resp, err := websocket.Dial(t.Context(), s.url+"/console?secret=s", nil)
	if err == nil || resp.StatusCode != http.StatusConflict {
		t.Errorf("the console of a stopped VM: %v", err)
	}
	if resp := s.get(t, "/console"); resp.StatusCode != http.StatusConflict {
		t.Errorf("HTTP %d", resp.StatusCode)
	}
	if _, err := s.Start(t.Context(), s.sid, "s"); err != nil {
		t.Fatal(err)
	}
	if resp := s.get(t, "/console"); resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("without an upgrade: HTTP %d", resp.StatusCode)
	}
}

// A page of another site has no business on a console, even one without a
// secret.
func TestConsoleFromAnotherSite(t *testing.T) {
	s := serveVM(t, 0)
	_, resp, err := websocket.Dial(t.Context(), s.url+"/console?secret=s",
		&websocket.DialOptions{HTTPHeader: http.Header{"Origin": {"https://elsewhere.example"}}})
	if err == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("%v", err)
	}
}

func TestCloseEndsStreams(t *testing.T) {
	s := serveVM(t, 0)
	lines := s.follow(t, "lines=0")
	c := s.console(t)
	ended := make(chan websocket.StatusCode)
	go func() { ended <- c.ends(t) }()
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if code := <-ended; code != websocket.StatusGoingAway {
		t.Errorf("the console ends with %v", code)
	}
	for range lines {
	}
	if resp := s.get(t, "/logs?follow=1"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after Close: HTTP %d", resp.StatusCode)
	}
	if _, err := s.Start(t.Context(), s.sid, "s"); err == nil {
		t.Error("a VM was started after Close")
	}
}

func TestStreamsAreBounded(t *testing.T) {
	s := serveVM(t, 0)
	var open []io.Closer
	for range compute.MaxStreams {
		c, err := s.Console(t.Context(), s.sid, "s")
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if _, err := s.Console(t.Context(), s.sid, "s"); err == nil {
		t.Error("one console too many")
	}
	if resp := s.get(t, "/logs?follow=1"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one log too many: HTTP %d", resp.StatusCode)
	}
	open[0].Close()
	open[0].Close() // counts once
	c, err := s.Console(t.Context(), s.sid, "s")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Console(t.Context(), s.sid, "s"); err == nil {
		t.Error("one console too many after another was closed twice")
	}
	for _, c := range slices.Concat(open, []io.Closer{c}) {
		c.Close()
	}
}
