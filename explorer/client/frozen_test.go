package client_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

// within is how soon another service must have answered in the place of a frozen one.
const within = 5 * time.Second

// piped is a service to which connections are pipes, so that it lives in virtual time.
type piped struct {
	frozen atomic.Bool  // it takes connections and says nothing
	slow   atomic.Int64 // nanoseconds until it answers
	stream chan string  // what /stream says
	asked  atomic.Int32
	conns  chan net.Conn
	done   chan struct{}
	once   sync.Once
}

func servePiped(t *testing.T) *piped {
	p := &piped{stream: make(chan string), conns: make(chan net.Conn), done: make(chan struct{})}
	srv := &http.Server{Handler: p}
	go func() { _ = srv.Serve(p) }()
	t.Cleanup(func() { _ = srv.Close() })
	return p
}

func (p *piped) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *piped) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *piped) Addr() net.Addr { return &net.UnixAddr{} }

func (p *piped) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/stream" {
		for {
			_ = http.NewResponseController(w).Flush()
			select {
			case line := <-p.stream:
				fmt.Fprintln(w, line)
			case <-r.Context().Done():
				return
			}
		}
	}
	body, _ := io.ReadAll(r.Body)
	p.asked.Add(1)
	select {
	case <-time.After(time.Duration(p.slow.Load())):
	case <-r.Context().Done():
	}
	var request struct{ ID json.RawMessage }
	_ = json.Unmarshal(body, &request)
	fmt.Fprintf(w, `{"jsonrpc":"2.0","id":%s,"result":"done"}`, request.ID)
}

// connect makes a connection. The kernel of a stopped process takes what it is sent.
func (p *piped) connect(t *testing.T) net.Conn {
	here, there := net.Pipe()
	if p.frozen.Load() {
		go func() { _, _ = io.Copy(io.Discard, there) }()
		t.Cleanup(func() { _ = there.Close() })
		return here
	}
	p.conns <- there
	return here
}

// over returns a client over services. It calls whom it dials in the order in which it
// asks them, for the services are not told apart by their connections.
func over(t *testing.T, order ...*piped) *client.Client {
	var dials atomic.Int32
	return dialling(t, len(order), func() *piped { return order[min(int(dials.Add(1)), len(order))-1] })
}

func dialling(t *testing.T, addresses int, to func() *piped) *client.Client {
	var addrs []string
	for i := range addresses {
		addrs = append(addrs, fmt.Sprintf("192.0.2.%d", i+1))
	}
	c, err := client.New(addrs, client.Options{Dial: func(context.Context) (net.Conn, error) { return to().connect(t), nil }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func text(body io.ReadCloser, err error) error {
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = io.ReadAll(body)
	return err
}

// Whatever may be repeated goes on to the next service within seconds where the first
// one takes the connection and says nothing, whatever the whole call may take.
func TestFrozenService(t *testing.T) {
	for name, call := range map[string]func(context.Context, *client.Client) error{
		"read":     func(ctx context.Context, c *client.Client) error { return c.Call(ctx, "list_nodes", nil, nil) },
		"override": func(ctx context.Context, c *client.Client) error { return c.Call(ctx, "remove_node", nil, nil) },
		"read through proxy": func(ctx context.Context, c *client.Client) error {
			return c.Call(ctx, "proxy", map[string]any{"method": "vm_logs"}, nil)
		},
		"operation": func(ctx context.Context, c *client.Client) error { return c.Call(ctx, "deploy_vm", nil, nil) },
		"get": func(ctx context.Context, c *client.Client) error {
			resp, err := c.Get(ctx, "/health", nil)
			if err != nil {
				return err
			}
			return text(resp.Body, nil)
		},
		"download": func(ctx context.Context, c *client.Client) error { return text(c.Download(ctx, "/backup", nil)) },
		"upload": func(ctx context.Context, c *client.Client) error {
			return text(c.Upload(ctx, "/restore", strings.NewReader("body")))
		},
		"http": func(ctx context.Context, c *client.Client) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://any/x", nil)
			if err != nil {
				return err
			}
			resp, err := c.HTTP().Do(req)
			if err != nil {
				return err
			}
			return text(resp.Body, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				frozen, alive := servePiped(t), servePiped(t)
				frozen.frozen.Store(true)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began := time.Now()
				c := over(t, frozen, alive)
				if err := call(ctx, c); err != nil || time.Since(began) >= within {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
				if got := c.Endpoint().Address; got != "192.0.2.2:9002" {
					t.Errorf("stays with %s", got)
				}
			})
		})
	}
}

// A call that may run once is not sent to a second service while the first may have
// carried it out.
func TestFrozenServiceMayHaveRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		frozen, alive := servePiped(t), servePiped(t)
		frozen.frozen.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := over(t, frozen, alive).Call(ctx, "create_token", nil, nil)
		if !client.OutcomeUnknown(err) || !errors.Is(err, context.DeadlineExceeded) || alive.asked.Load() != 0 {
			t.Errorf("%v; the second was asked %d times", err, alive.asked.Load())
		}
	})
}

// One that is slow is not given up for others that are no better.
func TestSlowService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow, frozen := servePiped(t), servePiped(t)
		slow.slow.Store(int64(8 * time.Second))
		frozen.frozen.Store(true)
		var answer string
		if err := over(t, slow, frozen, frozen).Call(t.Context(), "list_nodes", nil, &answer); err != nil || answer != "done" || slow.asked.Load() != 1 {
			t.Errorf("%q, %v, asked %d times", answer, err, slow.asked.Load())
		}
	})
}

// All that are frozen together take one time limit and not one each.
func TestAllServicesFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		frozen := servePiped(t)
		frozen.frozen.Store(true)
		began := time.Now()
		err := over(t, frozen, frozen, frozen).Call(t.Context(), "list_nodes", nil, nil)
		if took := time.Since(began); !client.OutcomeUnknown(err) || took > 17*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// A stream that freezes ends within seconds, and the next one is elsewhere.
func TestStreamFreezes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := servePiped(t), servePiped(t)
		var at atomic.Pointer[piped]
		at.Store(first)
		c := dialling(t, 2, func() *piped { return at.Load() })
		resp, err := c.Get(t.Context(), "/stream", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		lines := bufio.NewScanner(resp.Body)
		go func() {
			first.stream <- "alive"
			time.Sleep(time.Hour) // it is quiet, and yet answers
			first.stream <- "still"
			first.frozen.Store(true)
			first.slow.Store(int64(24 * time.Hour)) // those that are connected
		}()
		for _, want := range []string{"alive", "still"} {
			if !lines.Scan() || lines.Text() != want {
				t.Fatalf("got %q, %v; want %q", lines.Text(), lines.Err(), want)
			}
		}
		began := time.Now()
		var transport *client.TransportError
		if lines.Scan() || !errors.As(lines.Err(), &transport) {
			t.Fatalf("got %q, %v", lines.Text(), lines.Err())
		}
		at.Store(second)
		again, err := c.Get(t.Context(), "/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		again.Body.Close()
		if took := time.Since(began); took >= within || c.Endpoint().Address != "192.0.2.2:9002" {
			t.Errorf("on after %v, at %s", took, c.Endpoint())
		}
	})
}
