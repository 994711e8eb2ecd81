package conncap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// fakeConn is a connection from an address, which says whether it was closed.
type fakeConn struct {
	net.Conn
	from   string
	closed bool
}

func (c *fakeConn) RemoteAddr() net.Addr {
	a, _ := net.ResolveTCPAddr("tcp", c.from)
	return a
}
func (c *fakeConn) Close() error { c.closed = true; return nil }

// fakeListener gives out what its test puts in.
type fakeListener struct {
	net.Listener
	next func() (net.Conn, error)
}

func (l fakeListener) Accept() (net.Conn, error) { return l.next() }

// offered accepts one connection and returns it, nil where it was turned away.
func offered(l *Listener, c *fakeConn) *conn {
	given := false
	l.Listener = fakeListener{next: func() (net.Conn, error) {
		if given {
			return nil, io.EOF
		}
		given = true
		return c, nil
	}}
	got, _ := l.Accept()
	if got == nil {
		return nil
	}
	return got.(*conn)
}

// Whatever comes and goes, bounds hold, what serves is never closed for another, the one
// that goes is the quietest of the address with the most that are quiet, and one that fits
// is always taken.
func TestBounds(t *testing.T) {
	type entry struct {
		c       *conn
		fake    *fakeConn
		host    string
		serving bool
		quiet   int // when it began to be
	}
	rapid.Check(t, func(t *rapid.T) {
		total, perAddress := rapid.IntRange(1, 6).Draw(t, "total"), rapid.IntRange(1, 4).Draw(t, "per address")
		closed := 0
		l := Listen(nil, Options{Total: total, PerAddress: perAddress, Closed: func(string) { closed++ }})
		var open []*entry
		now := 0
		of := func(host string) (list []*entry) {
			for _, e := range open {
				if host == "" || e.host == host {
					list = append(list, e)
				}
			}
			return list
		}
		pick := func(t *rapid.T, serving bool) *entry {
			var list []*entry
			for _, e := range open {
				if e.serving == serving {
					list = append(list, e)
				}
			}
			if len(list) == 0 {
				t.Skip("none")
			}
			return rapid.SampledFrom(list).Draw(t, "which")
		}
		t.Repeat(map[string]func(*rapid.T){
			"open": func(t *rapid.T) {
				host := rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "[2001:db8::1]", "[2001:db8::2]"}).Draw(t, "host")
				fake := &fakeConn{from: host + ":1"}
				if strings.HasPrefix(host, "[") {
					host = "v6" // one /64
				}
				var victim *entry
				full := true
				switch {
				case len(of(host)) >= perAddress:
					victim = quietest(of(host), func(e *entry) (bool, int) { return e.serving, e.quiet })
				case len(open) >= total:
					most := 0
					for _, host := range []string{"10.0.0.1", "10.0.0.2", "v6"} {
						quiet := 0
						for _, e := range of(host) {
							if !e.serving {
								quiet++
							}
						}
						v := quietest(of(host), func(e *entry) (bool, int) { return e.serving, e.quiet })
						if quiet > most || quiet == most && v != nil && v.quiet < victim.quiet {
							victim, most = v, quiet
						}
					}
				default:
					full = false
				}
				was := closed
				c := offered(l, fake)
				if (c == nil) != (full && victim == nil) {
					t.Fatalf("taken: %v, with %d open, %d from %s", c != nil, len(open), len(of(host)), host)
				}
				if full != (closed == was+1) {
					t.Fatalf("%d closings were told of", closed-was)
				}
				if victim != nil {
					if !victim.fake.closed {
						t.Fatal("another one than the quietest was closed")
					}
					open = slices.DeleteFunc(open, func(e *entry) bool { return e == victim })
				}
				if c != nil {
					now++
					open = append(open, &entry{c: c, fake: fake, host: host, quiet: now})
				}
			},
			"begin": func(t *rapid.T) { e := pick(t, false); e.c.serve(1); e.serving = true },
			"end":   func(t *rapid.T) { e := pick(t, true); e.c.serve(-1); now++; e.serving, e.quiet = false, now },
			"close": func(t *rapid.T) {
				e := pick(t, rapid.Bool().Draw(t, "serving"))
				_ = e.c.Close()
				open = slices.DeleteFunc(open, func(o *entry) bool { return o == e })
			},
			"": func(t *rapid.T) {
				for _, e := range open {
					if e.fake.closed {
						t.Fatal("a connection was closed that nobody had to make room")
					}
				}
				if l.n != len(open) || len(l.hosts) > len(open) || len(l.order) != len(l.hosts) {
					t.Fatalf("%d are counted, of %d and %d addresses; %d are open", l.n, len(l.hosts), len(l.order), len(open))
				}
			},
		})
	})
}

// quietest is the naive choice.
func quietest[E any](list []*E, of func(*E) (serving bool, quiet int)) (found *E) {
	least := 0
	for _, e := range list {
		if serving, quiet := of(e); !serving && (found == nil || quiet < least) {
			found, least = e, quiet
		}
	}
	return found
}

// A want of descriptors is waited for, and logged once.
func TestAcceptOutlastsAWantOfDescriptors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		tries := 0
		l := Listen(fakeListener{next: func() (net.Conn, error) {
			if tries++; tries <= 50 {
				return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
			}
			return &fakeConn{from: "10.0.0.1:1"}, nil
		}}, Options{Name: "rpc-addr", Logger: slog.New(slog.NewTextHandler(&out, nil))})
		if _, err := l.Accept(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "\n"); n != 1 || !strings.Contains(out.String(), "listener=rpc-addr") {
			t.Errorf("%d lines:\n%s", n, &out)
		}
	})
	broken := errors.New("broken")
	l := Listen(fakeListener{next: func() (net.Conn, error) { return nil, broken }}, Options{})
	if _, err := l.Accept(); !errors.Is(err, broken) {
		t.Errorf("another error became %v", err)
	}
}

// Requests that never end, from one address and from many, do not keep others out of a
// real server; a request that is being answered is not broken off for a new one.
func TestHalfSentRequests(t *testing.T) {
	under, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Listen(under, Options{Total: 8, PerAddress: 4})
	began, finish := make(chan struct{}), make(chan struct{})
	srv := &http.Server{ConnContext: ConnContext, ReadHeaderTimeout: time.Minute, Handler: Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(began)
			<-finish
		}
		_, _ = io.WriteString(w, "here")
	}))}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	get := func(path string) error {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		resp, err := client.Get("http://" + under.Addr().String() + path)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if string(body) != "here" {
			return fmt.Errorf("answered %q, %w", body, err)
		}
		return nil
	}
	slow := make(chan error, 1)
	go func() { slow <- get("/slow") }()
	<-began
	for i := range 60 {
		from := 2 + i%20 // 127.0.0.2 and on
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(from))}}
		c, err := d.DialContext(context.Background(), "tcp", under.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX-Half")
		if i%10 == 9 {
			if err := get("/"); err != nil {
				t.Fatalf("after %d half-sent requests: %v", i+1, err)
			}
		}
	}
	close(finish)
	if err := <-slow; err != nil {
		t.Errorf("the request that was being answered: %v", err)
	}
}
