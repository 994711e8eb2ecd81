package explorer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// The node's own address comes before a tunnel, a tunnel before a splice; behind them
// splices by masters that were not heard just now; and behind all of these, in the same
// order, what could not be dialled of late.
func TestOrderOfPaths(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		inBubble(t, rt, func(*testing.T) {
			s, store := unstarted()
			ago := func(name string, around time.Duration) time.Time {
				d := rapid.SampledFrom([]time.Duration{0, around - 1, around, around + 1, 10 * around}).Draw(rt, name)
				return time.Now().Add(-d)
			}
			var n crdtstore.Node
			n.NodeID = "n"
			n.AgentPath = rapid.SampledFrom([]string{"", "unix:///agent.sock"}).Draw(rt, "agent")
			n.SocketPath = rapid.SampledFrom([]string{"", "unix:///service.sock", "gopher://nonsense"}).Draw(rt, "service")
			n.Tunnel = rapid.Permutation([]string{"self", "b", "c", "d", "stranger"}).Draw(rt, "tunnels")
			n.Tunnel = n.Tunnel[:rapid.IntRange(0, len(n.Tunnel)).Draw(rt, "held")]
			heard := map[string]time.Time{}
			store.masters = nil
			for _, id := range []string{"self", "b", "c", "d"} {
				heard[id] = ago("heard "+id, silentAfter)
				status := crdtstore.MasterAlive
				if id == "self" { // nobody hears himself
					status = crdtstore.MasterSelf
				}
				store.masters = append(store.masters, crdtstore.Master{ID: id, Status: status, LastSeen: heard[id]})
			}

			var usable []string
			if n.AgentPath != "" {
				usable = append(usable, "agent")
			}
			if strings.HasPrefix(n.SocketPath, "unix") {
				usable = append(usable, "direct")
			}
			usable = append(usable, n.Tunnel...)
			all, unusable := s.paths(n)
			if (unusable != nil) != strings.HasPrefix(n.SocketPath, "gopher") {
				rt.Errorf("%q: %v", n.SocketPath, unusable)
			}
			failed := map[string]time.Time{}
			names := map[string]string{} // by key
			for _, p := range all {
				names[p.key] = nameOf(p)
				if rapid.Bool().Draw(rt, "failed") {
					failed[nameOf(p)] = ago("failed "+nameOf(p), failedFor)
					s.nodes.broken[p.key] = failed[nameOf(p)]
				}
			}

			slices.SortStableFunc(usable, func(a, b string) int {
				return slices.Compare(place(a, heard, failed), place(b, heard, failed))
			})
			var got []string
			all, _ = s.paths(n)
			for _, p := range all {
				got = append(got, nameOf(p))
				if p.remembers != (p.kind != pathDirect) {
					rt.Errorf("%s leads to the agent: %v", p.key, p.remembers)
				}
			}
			if !slices.Equal(got, usable) {
				rt.Errorf("the order is %q, want %q; heard %v, failed %v", got, usable, heard, failed)
			}
		})
	})
}

// nameOf is "agent", "direct", or the master that holds the tunnel.
func nameOf(p path) string {
	switch p.kind {
	case pathTunnel:
		return "self"
	case pathSplice:
		return strings.Fields(p.key)[1]
	}
	return p.kind
}

// place is where a path belongs, the lesser the earlier.
func place(name string, heard, failed map[string]time.Time) []int {
	is := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	at, ok := heard[name]
	since, broke := failed[name]
	kind := slices.Index([]string{"agent", "direct", "self"}, name)
	return []int{
		is(broke && time.Since(since) < 15*time.Second),
		is(ok && name != "self" && time.Since(at) > 2*time.Second),
		cmp.Or(is(kind < 0)*9, kind),
	}
}

// What leads to the agent of a node leads to that of its key and boot: a connection that
// was kept to an earlier one is not used for the calls that follow.
func TestPathsAreOfOneBoot(t *testing.T) {
	s, _ := unstarted()
	seen := map[string]string{}
	for _, boot := range []uint64{7, 8} {
		for _, key := range [][]byte{{1}, {2}} {
			for _, id := range []string{"n", "m"} {
				n := crdtstore.Node{NodeID: id, Tunnel: []string{"self", "b", "c"}}
				n.PublicKey, n.Boot = key, boot
				all, _ := s.paths(n)
				for _, p := range all {
					what := fmt.Sprintf("%s of %s with key %x at boot %d", nameOf(p), id, key, boot)
					if other := seen[p.key]; other != "" {
						t.Errorf("%s is taken for %s", what, other)
					}
					seen[p.key] = what
				}
			}
		}
	}
}

// A splice goes through the master that it is a path over.
func TestSpliceGoesThroughItsMaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, store := unstarted()
		var asked []string
		store.dialled = func(_ context.Context, master, name string) (net.Conn, error) {
			asked = append(asked, master+" "+name)
			return nil, errors.New("unreachable")
		}
		if _, err := s.dialNode(t.Context(), crdtstore.Node{NodeID: "n", Tunnel: []string{"b", "self", "c"}}); err == nil {
			t.Error("reached")
		}
		if want := []string{"b splice/1", "c splice/1"}; !slices.Equal(asked, want) {
			t.Errorf("asked %q, want %q", asked, want)
		}
	})
}
