package crdtstore_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
)

// What the program beside one master serves is shown and reached on the other.
func TestStreamsAndEndpoints(t *testing.T) {
	edge := "/ip4/10.0.0.1/tcp/9005"
	c := crdtstoretest.Start(t, 2, func(i int, cfg *crdtstore.Config) {
		cfg.Endpoints = crdtstore.Endpoints{
			RPCURLs: []string{fmt.Sprint("http://rpc", i)}, UIURLs: []string{fmt.Sprint("http://ui", i)}, EdgeAddrs: []string{edge},
		}
	})
	a, b := c.Store(0), c.Store(1)
	for _, s := range []*crdtstore.Store{a, b} {
		until(t, "the endpoints are shown", func() bool {
			m, err := s.Master(a.ID())
			return err == nil && slices.Equal(m.RPCURLs, []string{"http://rpc0"}) && slices.Equal(m.UIURLs, []string{"http://ui0"}) &&
				slices.Equal(m.EdgeAddrs, []string{edge + "/p2p/" + a.ID()})
		})
	}

	b.Streams().Serve("greet", func(from string, conn net.Conn) {
		defer conn.Close()
		_, _ = io.WriteString(conn, "hello "+from)
	})
	conn, err := a.Streams().Dial(t.Context(), b.ID(), "greet")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); string(got) != "hello "+a.ID() || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := a.Streams().Dial(t.Context(), "nobody", "greet"); !errors.Is(err, crdtstore.ErrUnreachable) {
		t.Errorf("a connection to nobody: %v", err)
	}

	if _, err := a.Report(t.Context(), report("n", 1, 1)); err != nil {
		t.Fatal(err)
	}
	for _, open := range []bool{true, false} {
		a.Streams().SetTunnel("n", open)
		until(t, fmt.Sprint("the tunnel is shown to be open: ", open), func() bool {
			n, err := b.Node("n")
			return err == nil && slices.Equal(n.Tunnel, []string{a.ID()}) == open
		})
	}
}
