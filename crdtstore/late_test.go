package crdtstore

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
)

// TestLatePulse has what a master said before it left arrive long after its farewell, by
// way of others, and what an earlier run said arrive behind the next one.
func TestLatePulse(t *testing.T) {
	s, err := Open(t.Context(), Config{Dir: t.TempDir(), Secret: "s", Listen: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	other, err := identity.Load(filepath.Join(t.TempDir(), "identity.key"))
	if err != nil {
		t.Fatal(err)
	}
	from := other.PeerID()
	pulse := func(run string, seq uint64, name string) {
		m := liveness.MasterInfo{Name: name, Run: run, Seq: seq, Wall: time.Now().UnixMilli(), Digest: make([]byte, 16)}
		s.cluster.Pulsed(from, liveness.Encode(&m, []liveness.Pulse{{NodeID: "node-" + name}})[0])
	}
	sees := func(want MasterStatus, name string) {
		t.Helper()
		if m, err := s.Master(from.String()); err != nil || m.Status != want || m.Name != name {
			t.Errorf("it is %s and %q, want %s and %q (%v)", m.Status, m.Name, want, name, err)
		}
	}
	pulse("1", 1, "first")
	sees(MasterAlive, "first")
	s.cluster.Left(from.String(), "1")
	sees(MasterLeft, "first")
	pulse("1", 2, "late")
	sees(MasterLeft, "first")
	for i := range 64 {
		if who := s.replica.Responsible(fmt.Sprint("node-", i)); who != s.ID() {
			t.Fatalf("%s is responsible, which has left", who)
		}
	}
	if _, heard := s.board.Vital("node-late", nil); heard {
		t.Error("a late pulse tells of nodes")
	}
	pulse("2", 1, "second")
	sees(MasterAlive, "second")
	pulse("1", 3, "late")
	sees(MasterAlive, "second")
	s.cluster.Left(from.String(), "1") // nor does a late farewell end the next run
	sees(MasterAlive, "second")
}
