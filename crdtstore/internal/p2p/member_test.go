package p2p

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
)

// again makes a mesh of the same identity on another host, as a master that was started
// anew elsewhere.
func again(t *testing.T, old *node, run string) *node {
	t.Helper()
	h := hostOf(t, old.host.Peerstore().PrivKey(old.host.ID()), "/ip4/127.0.0.1/tcp/0")
	n := stillOn(t, h, filepath.Join(t.TempDir(), "pins.json"), "s")
	n.cfg.Run = run
	return n
}

// freeze has a host not answer any more, though its connections stand.
func freeze(h host.Host) {
	h.SetStreamHandler(ping.ID, func(s network.Stream) { <-make(chan struct{}) })
}

// TestComesBackElsewhere has a master come back while the connection to where it was has
// not been noticed to be dead. It is admitted at once, and nothing goes by the old one.
func TestComesBackElsewhere(t *testing.T) {
	for name, run := range map[string]string{"restarted": "2", "the same run at another address": "1"} {
		t.Run(name, func(t *testing.T) {
			a, b := still(t, "s"), still(t, "s")
			a.cfg.Run, b.cfg.Run = "0", "1"
			if err := b.finds(t, a); err != nil {
				t.Fatal(err)
			}
			await(t, "the first admission", a.joined)
			freeze(b.host)
			moved := again(t, b, run)
			if err := moved.finds(t, a); err != nil {
				t.Fatal(err)
			}
			await(t, "that the old member left", a.left)
			await(t, "the second admission", a.joined)
			got := make(chan bool, 1)
			moved.Host().SetStreamHandler("/test/1", func(network.Stream) { got <- true })
			s, err := a.Host().NewStream(t.Context(), b.host.ID(), "/test/1")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = s.Write([]byte{0}) // so that the name of the protocol is sent
			await(t, "a stream to where it is now", got)
			if run := a.Run(s.Conn()); run != moved.cfg.Run {
				t.Errorf("the stream leads to run %q, want %q", run, moved.cfg.Run)
			}
		})
	}
}

// TestReleasedFirst has a member be admitted anew only when the protocols above have let
// go of what it was.
func TestReleasedFirst(t *testing.T) {
	a, b := still(t, "s"), still(t, "s")
	holds := make(chan bool, 3)
	holds <- true
	holds <- true
	holds <- false
	a.cfg.Held = func(id peer.ID) bool {
		if a.Admitted(id) {
			t.Error("admitted while it was held")
		}
		return <-holds
	}
	if err := b.finds(t, a); err != nil {
		t.Fatal(err)
	}
	await(t, "the admission", a.joined)
	if len(holds) != 0 {
		t.Error("nobody waited for the release")
	}
}

// TestLastingStreamEnds has a stream end that lasts as long as its connection. Whichever
// side it ends on, both then are strangers, and meet anew.
func TestLastingStreamEnds(t *testing.T) {
	const lasts = protocol.ID("/test/lasts/1")
	for name, ends := range map[string]func(mine, theirs network.Stream){
		"closed by who opened it": func(mine, _ network.Stream) { _ = mine.Close() },
		"reset by who opened it":  func(mine, _ network.Stream) { _ = mine.Reset() },
		"broken off by the other": func(_, theirs network.Stream) { _ = theirs.Reset() },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := still(t, "s"), still(t, "s")
			for _, n := range []*node{a, b} {
				n.cfg.Lasting = func(id protocol.ID) bool { return id == lasts }
			}
			appeared := make(chan network.Stream, 1)
			b.Host().SetStreamHandler(lasts, func(s network.Stream) {
				appeared <- s
				_, _ = s.Read([]byte{0}) // the name of the protocol, and then until it ends
				_, _ = s.Read([]byte{0})
			})
			if err := a.finds(t, b); err != nil {
				t.Fatal(err)
			}
			await(t, "the listener", b.joined)
			mine, err := a.Host().NewStream(context.Background(), b.host.ID(), lasts)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = mine.Write([]byte{0})
			ends(mine, await(t, "the stream", appeared))
			await(t, "the opener to notice", a.left)
			await(t, "the other to notice", b.left)
			if err := a.finds(t, b); err != nil {
				t.Fatal(err)
			}
			await(t, "the next admission", b.joined)
		})
	}
}

// oneRun keeps the first run of every master, and notes what it is told.
type oneRun struct {
	anyRun
	both, yield chan string
}

func (r oneRun) Asks(_ peer.ID, run string, _ bool) *CollisionError {
	if run == "2" {
		return &CollisionError{Kept: "1", Refused: "2"}
	}
	return nil
}
func (r oneRun) Both(_ peer.ID, a, b Party)        { r.both <- a.Run + b.Run }
func (r oneRun) Yield(_ peer.ID, c CollisionError) { r.yield <- c.Kept + c.Refused + c.At }

// TestTwoRunsOfOneIdentity has a copy of a master ask to be admitted while the master is a
// member, from either side. That both live is found by asking the member, and the copy is
// told who is kept, and where.
func TestTwoRunsOfOneIdentity(t *testing.T) {
	for name, meets := range map[string]func(a, dup *node) error{
		"the copy dials":     func(a, dup *node) error { return dup.finds(t, a) },
		"the copy is dialed": func(a, dup *node) error { return a.admitTo(t, dup) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := still(t, "s"), still(t, "s")
			runs := oneRun{both: make(chan string, 4), yield: make(chan string, 4)}
			a.cfg.Runs, a.cfg.Run, b.cfg.Run = runs, "0", "1"
			if err := b.finds(t, a); err != nil {
				t.Fatal(err)
			}
			await(t, "the admission", a.joined)
			dup := again(t, b, "2")
			dup.cfg.Runs = runs
			if err := meets(a, dup); err == nil {
				t.Error("the copy is admitted")
			}
			if len(runs.both) == 0 {
				t.Fatal("nobody has found that both live")
			}
			if both := <-runs.both; both != "12" {
				t.Errorf("the runs that live are %q", both)
			}
			if told := await(t, "what the copy is told", runs.yield); len(told) < 4 || told[:2] != "12" {
				t.Errorf("the copy is told %q", told)
			}
			if run, _ := a.MemberRun(b.host.ID()); run != "1" || len(a.left) != 0 {
				t.Errorf("the member is run %q, and %d left", run, len(a.left))
			}
		})
	}
}

// admitTo dials another mesh although somebody of its identity is a member.
func (n *node) admitTo(t *testing.T, other *node) error {
	t.Helper()
	if err := other.host.Connect(t.Context(), peer.AddrInfo{ID: n.host.ID(), Addrs: n.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	return n.admit(t.Context(), newest(n.host.Network().ConnsToPeer(other.host.ID())))
}
