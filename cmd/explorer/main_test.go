package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	version = "v1.2.3-test"
	testscript.Main(m, map[string]func(){
		"explorer": func() {
			version = "v1.2.3-test"
			main()
		},
	})
}

// TestScripts runs the scripts in testdata. In them, $MASTER is the address of a
// stub (see stub_test.go), $SICK, $OLD and $FULL of others (see stub_status_test.go), $BUSY one
// that answers 503, and nobody listens at $NOBODY. "code N command..." runs a command that must end with exit code N.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			for name, grid := range stubGrids {
				s := newStub(grid)
				env.Defer(s.Close)
				env.Setenv(name, s.Listener.Addr().String())
			}
			busy := newBusy()
			env.Defer(busy.Close)
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("BUSY", busy.Listener.Addr().String())
			env.Setenv("NOBODY", nobody())
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: code N command...")
				}
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				got := 0
				if err := ts.Exec(args[1], args[2:]...); err != nil {
					var exit *exec.ExitError
					if !errors.As(err, &exit) {
						ts.Fatalf("%v", err)
					}
					got = exit.ExitCode()
				}
				if got != want {
					ts.Fatalf("exit code %d, want %d", got, want)
				}
			},
		},
	})
}

// nobody returns an address at which nothing listens.
func nobody() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// Serve serves until its context ends, and then leaves with 0.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "rpc.sock")
	env := func(name string) (string, bool) { v, ok := map[string]string{"HOME": dir}[name]; return v, ok }
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan int, 1)
	var log bytes.Buffer
	go func() {
		done <- run(ctx, []string{"serve", "--data-dir", dir, "--rpc-socket", socket, "--rpc-addr=", "--ui-addr=", "--name", "alpha"}, env, &log, &log)
	}()
	var out bytes.Buffer
	for code := 1; code != 0; {
		select {
		case code := <-done:
			t.Fatalf("ended with %d: %s", code, &log)
		case <-time.After(20 * time.Millisecond):
		}
		out.Reset()
		code = run(ctx, []string{"status", "--addr", "unix://" + socket}, env, &out, &out)
	}
	if !strings.Contains(out.String(), "alpha, version v1.2.3-test") {
		t.Errorf("status: %s", &out)
	}
	out.Reset()
	if code := run(ctx, []string{"id", "--addr", "unix://" + socket}, env, &out, &out); code != 0 || !strings.HasPrefix(out.String(), "12D3KooW") {
		t.Errorf("id: %d %s", code, &out)
	}
	cancel()
	if code := <-done; code != 0 {
		t.Errorf("ended with %d: %s", code, &log)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is still there")
	}
}

// A stream that breaks off goes on where it was, and what would look as it did
// is not printed again.
func TestWatch(t *testing.T) {
	s := newStub(stubGrids["MASTER"])
	defer s.Close()
	for _, c := range []struct {
		args []string
		want []string // how lines begin, in order
	}{
		{nil, []string{"NODE", "n1", "n2", "n3", "n1", "n9"}},
		{[]string{"--json"}, []string{`{"node_id":"n1"`, `{"node_id":"n2"`, `{"node_id":"n3"`, `{"boot":7`, `{"boot":7`}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		out, errs := &until{text: "n9", then: cancel}, new(bytes.Buffer)
		args := append([]string{"nodes", "watch", "--addr", nobody() + "," + s.Listener.Addr().String()}, c.args...)
		if code := run(ctx, args, os.LookupEnv, out, errs); code != 0 {
			t.Errorf("ended with %d: %s", code, errs)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != len(c.want) {
			t.Fatalf("%d lines:\n%s", len(lines), &out.Buffer)
		}
		for i, line := range lines {
			if !strings.HasPrefix(line, c.want[i]) || strings.Contains(line, "\x1b") {
				t.Errorf("line %d: %q, want %s", i, line, c.want[i])
			}
		}
		if !strings.Contains(errs.String(), "the stream has ended; trying again in 100ms") {
			t.Errorf("on stderr: %s", errs)
		}
	}
}

// What happened before comes first and once, then what happens, as far as it was asked
// for, also after the stream has broken off.
func TestFollowEvents(t *testing.T) {
	s := newStub(stubGrids["MASTER"])
	defer s.Close()
	for _, c := range []struct {
		args []string
		want []string // what lines end or begin with, in order
	}{
		{nil, []string{"event 1", "event 2", "event 3", "event 4", "event 5"}},
		{[]string{"--json"}, []string{`{"id":1`, `{"id":2`, `{"id":3`, `{"id":4`, `{"id":5`}},
		// The stub lists all, whatever it is asked for.
		{[]string{"--master", "beta", "--kind", "operator"}, []string{"event 1", "event 2", "event 3", "event 5"}},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		out, errs := &until{text: "event 5", then: cancel}, new(bytes.Buffer)
		args := append([]string{"events", "--follow", "--addr", s.Listener.Addr().String()}, c.args...)
		if code := run(ctx, args, os.LookupEnv, out, errs); code != 0 {
			t.Errorf("ended with %d: %s", code, errs)
		}
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != len(c.want) {
			t.Fatalf("%d lines:\n%s", len(lines), &out.Buffer)
		}
		for i, line := range lines {
			if !strings.Contains(line, c.want[i]) || strings.Contains(line, "\x1b") {
				t.Errorf("line %d: %q, want %s", i, line, c.want[i])
			}
		}
	}
}

// until is a buffer that does something once it holds a text.
type until struct {
	bytes.Buffer
	text string
	then func()
}

func (u *until) Write(b []byte) (int, error) {
	n, err := u.Buffer.Write(b)
	if strings.Contains(u.String(), u.text) {
		u.then()
	}
	return n, err
}

func Example_usage() {
	run(context.Background(), []string{"nodes", "grab"}, os.LookupEnv, os.Stdout, os.Stdout)
	// Output:
	// explorer: unknown command "grab" for "explorer nodes"
	// Run 'explorer nodes --help' for usage.
}

func TestPrinting(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{size(0), "0"},
		{size(1023), "1023"},
		{size(1024), "1Ki"},
		{size(1536), "1.5Ki"},
		{size(16 << 30), "16Gi"},
		{size(1<<64 - 1), "16Ei"},
		{number(0), "0"},
		{number(0.256), "0.26"},
		{number(3.14159), "3.1"},
		{number(123.4), "123"},
		{number(64), "64"},
		{age(-time.Second), "0s"},
		{age(99 * time.Second), "99s"},
		{age(100 * time.Second), "1m"},
		{age(119 * time.Minute), "1h"},
		{age(50 * time.Hour), "2d"},
		{ago(time.Time{}), ""},
		{printable("a\x1b[31mb\u202e\nc\td"), "a\ufffd[31mb\ufffd\nc\td"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]uint64{
		"": 0, "0": 0, "1024": 1024, "1Ki": 1024, "1KiB": 1024, "1K": 1000, "1KB": 1000, "1.5Gi": 3 << 29, "2T": 2e12, "10B": 10,
	} {
		if got, err := parseSize(in); err != nil || got != want {
			t.Errorf("parseSize(%q) = %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"x", "-1", "1x", "1i", "1KK", "1iK", "9999P", "NaN", "Inf", "1 Gi", "Gi"} {
		if got, err := parseSize(in); err == nil {
			t.Errorf("parseSize(%q) = %d", in, got)
		}
	}
}

func TestReadEvents(t *testing.T) {
	var got []string
	err := readEvents(strings.NewReader(": hello\n\nevent: a\nid: 1\ndata: x\ndata:y\n\nid: 2\n\ndata: z\n\nevent: cut\ndata: off"),
		func() {}, func(e event) error {
			got = append(got, fmt.Sprintf("%s/%s/%s", e.kind, e.id, e.data))
			return nil
		})
	if want := "[a/1/x\ny //z]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
	long := strings.NewReader("data: " + strings.Repeat("x", maxEvent) + "\n\n")
	if err := readEvents(long, func() {}, func(event) error { return nil }); err == nil {
		t.Error("an event without an end is read")
	}
}
