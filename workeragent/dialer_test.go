package workeragent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Who gets the agent's token, of the addresses that it learned of.
func TestTokenForLearnedAddresses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		explore string // the configured address of master a
		learned string // that of master b
		wary    bool   // masters answer nobody without a token
		shown   bool   // b gets the token
		beats   bool   // and the heartbeats
	}{
		{"by the socket", "unix:///run/a.sock", "http://b:1", false, false, true},
		{"by the socket, wary", "unix:///run/a.sock", "http://b:1", true, false, false},
		{"by loopback, wary", "http://127.0.0.1:1", "http://b:1", true, false, false},
		{"by TLS", "https://a:1", "http://b:1", false, false, true},
		{"by TLS, wary", "https://a:1", "http://b:1", true, false, false},
		{"TLS there too", "https://a:1", "https://b:1", false, true, true},
		{"TLS there too, wary", "unix:///run/a.sock", "https://b:1", true, true, true},
		{"the same host, wary", "https://a:1", "http://a:2", true, true, true},
		{"on this machine, wary", "unix:///run/a.sock", "http://127.0.0.1:2", true, true, true},
		{"plain HTTP is configured", "http://a:1", "http://b:1", false, true, true},
		{"plain HTTP is configured, wary", "a:1", "http://b:1", true, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, "a", "b", "stranger")
				at := tt.learned[strings.LastIndex(tt.learned, "/")+1:]
				f.with(func() {
					for _, name := range []string{"a", "b"} {
						f.masters[name].wary = tt.wary
					}
					f.masters["b"].RPCURLs = []string{"http://reused:1", tt.learned}
					f.masters["stranger"].mute = true
					f.routes["/run/a.sock"], f.routes["127.0.0.1:1"] = "a", "a"
					f.routes[at], f.routes["reused:1"] = "b", "stranger"
				})
				cfg := testConfig(t, tt.explore)
				cfg.Token = "secret"
				s := f.start(cfg)
				want := []string{"a"}
				if tt.beats {
					want = append(want, "b")
				}
				f.wantBeats(30*time.Second, want...)
				if f.shown[at] != tt.shown || f.shown["reused:1"] || f.asked["reused:1 masters"] == 0 {
					t.Errorf("the token was shown to %v; calls %v", f.shown, f.asked)
				}
				if e := s.agent.Status().Explorers[1]; !tt.beats && !strings.Contains(e.LastError, "token is not sent over plain HTTP") {
					t.Errorf("status %+v", e)
				}

				// The address goes to somebody else while nobody answers there.
				f.with(func() { f.masters["b"].down = true })
				time.Sleep(time.Minute)
				f.with(func() { f.routes[at] = "stranger"; clear(f.shown); clear(f.asked) })
				time.Sleep(time.Minute)
				synctest.Wait()
				if f.shown[at] || len(f.asked) < 2 {
					t.Error("the token was shown to who came to the address later")
				}
			})
		})
	}
}

// pinnedCall is a caller that notes the address it was opened for.
type pinnedCall struct{ err error }

func (c *pinnedCall) Call(context.Context, string, any, any) error { return c.err }
func (c *pinnedCall) Close()                                       {}

// The master that is first met at an edge address without an id is the one that is called
// there, also after a restart, and another one is refused with what to do.
func TestEdgeAddressWithoutID(t *testing.T) {
	const addr = "/ip4/10.0.0.1/tcp/9005"
	place, err := parseEndpoint(addr)
	if err != nil || place.edge != addr || place.master != "" {
		t.Fatalf("%+v, %v", place, err)
	}
	path := filepath.Join(t.TempDir(), mastersFile)
	there, inner, opened := idA, &pinnedCall{}, []string(nil)
	open := func() *pinned {
		d := newMembership(path, fakeEdge{}, slog.New(slog.DiscardHandler))
		d.endpoints = append(d.endpoints, place)
		d.load(false)
		return &pinned{addr: addr, dialer: &dialer{dir: d, edges: fakeEdge{
			who: func(context.Context, string) (string, error) { return there, nil },
			open: func(addrs []string) (caller, error) {
				opened = append(opened, addrs...)
				return inner, nil
			}}}}
	}
	call := func(p *pinned) error { return p.Call(t.Context(), methodMasters, nil, nil) }

	p := open()
	if err := call(p); err != nil {
		t.Fatal(err)
	}
	p.dialer.dir.known[idA] = &member{id: idA} // as its answer says
	if err := p.dialer.dir.save(); err != nil {
		t.Fatal(err)
	}
	there = idB
	if err := call(p); err != nil {
		t.Error("the open connection is given up:", err)
	}
	inner.err = errors.New("it broke off")
	if err := call(p); err == nil {
		t.Error("no error")
	}
	inner.err = nil
	for name, p := range map[string]*pinned{"in the same run": p, "after a restart": open()} {
		if err := call(p); err == nil || !strings.Contains(err.Error(), idA) || !strings.Contains(err.Error(), idB) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: another master is met with %v", name, err)
		}
	}
	if len(opened) != 1 || opened[0] != addr+"/p2p/"+idA {
		t.Errorf("it called %q", opened)
	}
	there = idA
	if err := call(p); err != nil {
		t.Error("the right one is back:", err)
	}
}
