package workeragent

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
)

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
		d := newMembership(path, slog.New(slog.DiscardHandler))
		d.endpoints = append(d.endpoints, place)
		d.load(false)
		return &pinned{addr: addr, dialer: &dialer{dir: d, deps: deps{
			identify: func(context.Context, string) (string, error) { return there, nil },
			tunnel: func(addrs []string) (caller, error) {
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
