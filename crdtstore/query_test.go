package crdtstore

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/query"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/seam"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/watch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// inMemory is a store with a table and a board and nothing below them.
func inMemory(t testing.TB) *Store {
	t.Helper()
	id, err := identity.Load(t.TempDir() + "/key")
	if err != nil {
		t.Fatal(err)
	}
	s := &Store{
		cfg: Config{Dir: t.TempDir(), OfflineAfter: time.Hour, seams: seam.Seams{Wall: time.Now}}, log: slog.New(slog.DiscardHandler), id: id, text: id.ID(), since: time.Now().Add(-2 * time.Hour),
		table: table.New(), board: liveness.New(id.ID()), changes: watch.New[change]("run"), closed: make(chan struct{}),
	}
	s.replica = replica.New(replica.Options{Table: s.table})
	s.setOfflineAfter(s.cfg.OfflineAfter)
	s.makeEvents()
	return s
}

// setOfflineAfter has a store that is made for a test judge by another limit.
func (s *Store) setOfflineAfter(limit time.Duration) {
	s.cfg.OfflineAfter = limit
	s.settings = s.cfg.ownSettings()
	s.members = s.newMembers()
	s.preserver = s.newPreserver()
}

// tells has a node say something, as Report does, but without a disk.
func (s *Store) tells(t rapid.TB, r Report) {
	t.Helper()
	known := s.replica.State(r.NodeID)
	r.Boot, r.Seq = known.Boot(), 1
	if known.Removed() {
		r.Boot++
	}
	if owner, ok := known.Owner(); ok {
		r.Seq = owner.Latest().Seq + 1
	}
	news, err := record.Accept(known, r, record.Acceptance{Now: time.Now().UnixMilli()})
	if err != nil {
		t.Fatal(err)
	}
	s.table.Join(r.NodeID, news)
	s.board.Beat(time.Now(), r.NodeID, r.AccountVersion(), &r.Usage, &r.UptimeS)
}

func (s *Store) goes(id string) {
	s.table.Join(id, s.replica.State(id).Remove(time.Now().UnixMilli(), s.ID(), "", ""))
}

func randomReport(rnd *rand.Rand, id string) Report {
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	r := Report{NodeID: id}
	r.Hostname = pick("alpha", "Beta", "gamma", "")
	r.Location = record.Location{Country: pick("BE", "EG", ""), City: pick("Ghent", "Cairo")}
	r.Total = record.Capacity{CRU: float64(rnd.IntN(5)), MRU: uint64(rnd.IntN(5)) << 30, SRU: uint64(rnd.IntN(3)), HRU: uint64(rnd.IntN(3))}
	r.SlicesTotal = uint64(rnd.IntN(4))
	r.Usage = record.Usage{CRU: float64(rnd.IntN(5)), MRU: uint64(rnd.IntN(5)) << 30, SRU: uint64(rnd.IntN(3)), Slices: uint64(rnd.IntN(4))}
	r.Labels = map[string]string{"rack": pick("1", "2"), "gpu": pick("", "yes")}
	for i := range rnd.IntN(3) {
		r.VMs = append(r.VMs, VM{SID: fmt.Sprintf("%s-vm%d", pick("a", "b"), i), Name: pick("Web", "db"), State: pick("running", "stopped"), IP: pick("10.0.0.1", "")})
	}
	return r
}

func TestVMBySID(t *testing.T) {
	s := inMemory(t)
	for _, id := range []string{"a", "b"} {
		s.tells(t, Report{NodeID: id, VMs: []VM{{SID: "both"}, {SID: "only-" + id}}})
	}
	if v, err := s.VM("", "only-b"); err != nil || v.NodeID != "b" {
		t.Errorf("%+v, %v", v, err)
	}
	if v, err := s.VM("a", "both"); err != nil || v.NodeID != "a" {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := s.VM("", "both"); !isField(err, "node_id") {
		t.Errorf("two nodes have it: %v", err)
	}
	for _, c := range [][2]string{{"", "none"}, {"a", "only-b"}, {"nobody", "both"}} {
		if _, err := s.VM(c[0], c[1]); !errors.Is(err, ErrNotFound) {
			t.Errorf("%q: %v", c, err)
		}
	}
	s.goes("b")
	if v, err := s.VM("", "both"); err != nil || v.NodeID != "a" {
		t.Errorf("after b was removed: %+v, %v", v, err)
	}
}

func isField(err error, field string) bool {
	f, ok := errors.AsType[*FieldError](err)
	return ok && f.Field == field
}

// TestListsAgreeWithTheStore: what lists are made from is what the store shows of each
// node.
func TestListsAgreeWithTheStore(t *testing.T) {
	rnd := rand.New(rand.NewPCG(8, 9))
	s := inMemory(t)
	for i := range 40 {
		id := fmt.Sprint("n", i)
		s.tells(t, randomReport(rnd, id))
		switch rnd.IntN(6) {
		case 0:
			s.goes(id)
		case 1:
			s.table.Join("silent"+id, record.State{LastSeen: 1})
		}
	}
	removed, statuses := 0, map[Status]int{}
	l := s.listing()
	for e := range s.table.All() {
		n, err := s.Node(e.ID)
		if err != nil {
			t.Fatal(err)
		}
		var v query.Vital
		l.Vital(e, &v)
		shown := l.Node(e)
		if v.Status != n.Status || v.Usage != n.Usage || shown.Status != n.Status || shown.NodeID != n.NodeID || !e.Removed && n.LastSeen.Before(v.LastSeen.Add(-time.Minute)) {
			t.Errorf("%s is listed as %+v, %+v, and is %+v", e.ID, v, shown, n)
		}
		if statuses[n.Status]++; e.Removed {
			removed++
			continue
		}
		if got := l.VMs(e); fmt.Sprint(got) != fmt.Sprint(n.VMs) {
			t.Errorf("%s has the VMs %+v, listed are %+v", e.ID, n.VMs, got)
		}
	}
	if removed == 0 || statuses[Online] == 0 || statuses[Offline] == 0 {
		t.Errorf("%d removed, %v", removed, statuses)
	}
}
