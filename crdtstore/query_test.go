package crdtstore

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
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
		cfg: Config{Dir: t.TempDir(), OfflineAfter: time.Hour, Wall: time.Now}, log: slog.New(slog.DiscardHandler), id: id, text: id.ID(), since: time.Now().Add(-2 * time.Hour),
		table: table.New(), board: liveness.New(id.ID()), hub: newHub("run"), closed: make(chan struct{}),
	}
	s.replica = replica.New(replica.Options{Table: s.table})
	return s
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
	r.Location = Location{Country: pick("BE", "EG", ""), City: pick("Ghent", "Cairo")}
	r.Total = Capacity{CRU: float64(rnd.IntN(5)), MRU: uint64(rnd.IntN(5)) << 30, SRU: uint64(rnd.IntN(3)), HRU: uint64(rnd.IntN(3))}
	r.SlicesTotal = uint64(rnd.IntN(4))
	r.Usage = Usage{CRU: float64(rnd.IntN(5)), MRU: uint64(rnd.IntN(5)) << 30, SRU: uint64(rnd.IntN(3)), Slices: uint64(rnd.IntN(4))}
	r.Labels = map[string]string{"rack": pick("1", "2"), "gpu": pick("", "yes")}
	for i := range rnd.IntN(3) {
		r.VMs = append(r.VMs, VM{SID: fmt.Sprintf("%s-vm%d", pick("a", "b"), i), Name: pick("Web", "db"), State: pick("running", "stopped"), IP: pick("10.0.0.1", "")})
	}
	return r
}

// pages reads a list to its end, with something happening between the pages.
func pages(t rapid.TB, s *Store, q NodeQuery, between func()) []Node {
	t.Helper()
	var out []Node
	for range 10_000 {
		page, err := s.Nodes(q)
		if err != nil {
			t.Fatal(err)
		}
		if limit := cmp.Or(q.Limit, defaultLimit); len(page.Nodes) > limit || len(page.Nodes) < limit && page.NextCursor != "" {
			t.Fatalf("a page of %d, the limit is %d, and there is more: %v", len(page.Nodes), limit, page.NextCursor != "")
		}
		out = append(out, page.Nodes...)
		if page.NextCursor == "" {
			return out
		}
		q.Cursor = page.NextCursor
		between()
	}
	t.Fatal("the list has no end")
	return nil
}

// TestPagesCoverStableNodesOnce has nodes come, go and change between the pages.
// Each node that does not change is listed exactly once.
func TestPagesCoverStableNodesOnce(t *testing.T) {
	sorts := []string{""}
	for name := range nodeKeys {
		sorts = append(sorts, name, "-"+name)
	}
	slices.Sort(sorts)
	rapid.Check(t, func(r *rapid.T) {
		s := inMemory(t)
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
		stable := map[string]bool{}
		for i := range rapid.IntRange(0, 60).Draw(r, "nodes") {
			id := fmt.Sprintf("%c%d", "sS.-"[rnd.IntN(4)], i)
			s.tells(r, randomReport(rnd, id))
			stable[id] = true
		}
		q := NodeQuery{
			Sort:  rapid.SampledFrom(sorts).Draw(r, "sort"),
			Limit: rapid.IntRange(1, 20).Draw(r, "limit"), IncludeRemoved: rapid.Bool().Draw(r, "removed"),
		}
		seen := map[string]int{}
		for _, n := range pages(r, s, q, func() {
			for range rnd.IntN(3) {
				id := fmt.Sprintf("x%d", rnd.IntN(20))
				if rnd.IntN(3) > 0 || s.table.Get(id) == nil {
					s.tells(r, randomReport(rnd, id))
				} else {
					s.goes(id)
				}
			}
		}) {
			seen[n.NodeID]++
		}
		for id := range stable {
			if seen[id] != 1 {
				r.Errorf("sort %q, limit %d: %s is listed %d times", q.Sort, q.Limit, id, seen[id])
			}
		}
	})
}

// TestNodesAgreeWithANaiveFilter compares whole lists.
func TestNodesAgreeWithANaiveFilter(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		s := inMemory(t)
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
		for i := range rapid.IntRange(0, 40).Draw(r, "nodes") {
			id := fmt.Sprintf("n%d", i)
			s.tells(r, randomReport(rnd, id))
			switch rnd.IntN(8) {
			case 0:
				s.goes(id)
			case 1:
				s.board.Forget(id) // has still to be told, so it stays
			case 2:
				s.table.Join("silent"+id, record.State{LastSeen: 1})
			}
		}
		q := NodeQuery{
			Status:   rapid.SampledFrom([]Status{"", "", Online, Suspect, Offline}).Draw(r, "status"),
			Q:        rapid.SampledFrom([]string{"", "ALPHA", "beta", "n1", "rack=1", "web", "10.0.0"}).Draw(r, "q"),
			Location: rapid.SampledFrom([]string{"", "be", "CAIRO", "nowhere"}).Draw(r, "location"),
			Labels:   rapid.SampledFrom([]map[string]string{nil, {"rack": "1"}, {"rack": "2", "gpu": ""}, {"none": ""}}).Draw(r, "labels"),
			MinFree:  rapid.SampledFrom([]MinFree{{}, {CRU: 2}, {MRU: 1 << 30}, {Slices: 2, SRU: 1}, {HRU: 1}}).Draw(r, "free"),
			Sort:     rapid.SampledFrom([]string{"", "-node_id", "hostname", "-free_cru", "vms", "status"}).Draw(r, "sort"),
			Limit:    maxLimit, IncludeRemoved: rapid.Bool().Draw(r, "removed"),
		}
		got, err := s.Nodes(q)
		if err != nil {
			r.Fatal(err)
		}
		var want []Node
		for e := range s.table.All() {
			if n, err := s.Node(e.ID); err != nil {
				r.Fatal(err)
			} else if naiveMatch(n, q) {
				want = append(want, n)
			}
		}
		slices.SortStableFunc(want, func(a, b Node) int { return naiveOrder(a, b, q.Sort) })
		if ids(got.Nodes) != ids(want) || got.Total != len(want) || got.NextCursor != "" {
			r.Fatalf("%+v gives %s, total %d, want %s", q, ids(got.Nodes), got.Total, ids(want))
		}
	})
}

func ids(nodes []Node) string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.NodeID)
	}
	return strings.Join(out, " ")
}

func naiveMatch(n Node, q NodeQuery) bool {
	text := []string{n.NodeID, n.Hostname, n.SocketPath, n.MyceliumIP}
	for k, v := range n.Labels {
		text = append(text, k+"="+v)
	}
	for _, v := range n.VMs {
		text = append(text, v.SID, v.Name)
	}
	found := slices.ContainsFunc(text, func(s string) bool { return strings.Contains(strings.ToLower(s), strings.ToLower(q.Q)) })
	for k, v := range q.Labels {
		if have, ok := n.Labels[k]; !ok || have != v {
			return false
		}
	}
	enough := func(total, used, least uint64) bool { return least == 0 || total >= used && total-used >= least }
	return (n.RemovedAt == nil || q.IncludeRemoved) && (q.Status == "" || n.Status == q.Status) &&
		(q.Q == "" || found) &&
		(q.Location == "" || strings.EqualFold(q.Location, n.Location.Country) || strings.EqualFold(q.Location, n.Location.City)) &&
		(q.MinFree.CRU == 0 || n.Total.CRU-n.Usage.CRU >= q.MinFree.CRU) &&
		enough(n.Total.MRU, n.Usage.MRU, q.MinFree.MRU) && enough(n.Total.SRU, n.Usage.SRU, q.MinFree.SRU) &&
		enough(n.Total.HRU, n.Usage.HRU, q.MinFree.HRU) && enough(n.SlicesTotal, n.Usage.Slices, q.MinFree.Slices)
}

func naiveOrder(a, b Node, by string) int {
	c := 0
	switch by {
	case "-node_id":
		c = -cmp.Compare(a.NodeID, b.NodeID)
	case "hostname":
		c = cmp.Compare(strings.ToLower(a.Hostname), strings.ToLower(b.Hostname))
	case "-free_cru":
		c = -cmp.Compare(max(a.Total.CRU-a.Usage.CRU, 0), max(b.Total.CRU-b.Usage.CRU, 0))
	case "vms":
		c = cmp.Compare(len(a.VMs), len(b.VMs))
	case "status":
		c = cmp.Compare(a.Status, b.Status)
	}
	return cmp.Or(c, cmp.Compare(a.NodeID, b.NodeID))
}

// TestVMPages reads all VMs page by page, and compares with the nodes' lists.
func TestVMPages(t *testing.T) {
	for seed := range uint64(30) {
		s := inMemory(t)
		rnd := rand.New(rand.NewPCG(seed, 7))
		for i := range rnd.IntN(40) {
			id := fmt.Sprintf("n%d", i)
			s.tells(t, randomReport(rnd, id))
			if rnd.IntN(6) == 0 {
				s.goes(id)
			}
		}
		for _, q := range []VMQuery{{}, {State: "running"}, {Q: "WEB"}, {Q: "10.0"}, {NodeID: "n3"}, {NodeID: "nobody"}} {
			var want, got []string
			for e := range s.table.All() {
				for _, v := range e.ListVMs() {
					text := strings.ToLower(v.SID + " " + v.Name + " " + v.IP)
					if !e.Removed && (q.State == "" || v.State == q.State) && (q.NodeID == "" || q.NodeID == v.NodeID) &&
						strings.Contains(text, strings.ToLower(q.Q)) {
						want = append(want, v.SID+" "+v.NodeID)
					}
				}
			}
			slices.Sort(want)
			q.Limit = 1 + rnd.IntN(7)
			for {
				page, err := s.VMs(q)
				if err != nil || page.Total != len(want) || page.VMs == nil {
					t.Fatalf("%+v: total %d, want %d, %v", q, page.Total, len(want), err)
				}
				for _, v := range page.VMs {
					got = append(got, v.SID+" "+v.NodeID)
				}
				if q.Cursor = page.NextCursor; q.Cursor == "" {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("seed %d, %+v: %v, want %v", seed, q, got, want)
			}
		}
	}
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

func TestQueriesRefuse(t *testing.T) {
	s := inMemory(t)
	for field, q := range map[string]NodeQuery{
		"limit": {Limit: maxLimit + 1}, "status": {Status: "dead"}, "sort": {Sort: "age"},
	} {
		if _, err := s.Nodes(q); !isField(err, field) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if _, err := s.Nodes(NodeQuery{Limit: -1}); !isField(err, "limit") {
		t.Error(err)
	}
	if _, err := s.VMs(VMQuery{Limit: -1}); !isField(err, "limit") {
		t.Error(err)
	}
	byHost, vm := encodeCursor("node/hostname", place{Str: "x"}), encodeCursor("vm", place{})
	for _, q := range []NodeQuery{
		{Cursor: "nonsense"}, {Cursor: "e30"}, {Cursor: vm}, {Cursor: byHost}, {Cursor: byHost, Sort: "-hostname"},
		{Cursor: encodeCursor("node/", place{})[:6]},
	} {
		if _, err := s.Nodes(q); !errors.Is(err, ErrCursor) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if _, err := s.VMs(VMQuery{Cursor: byHost}); !errors.Is(err, ErrCursor) {
		t.Error(err)
	}
	if _, err := s.Nodes(NodeQuery{Cursor: byHost, Sort: "hostname"}); err != nil {
		t.Error(err)
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("node/", encodeCursor("node/", place{1.5, "x", "y"}))
	f.Add("vm", "")
	f.Add("vm", "bnVsbA")
	f.Fuzz(func(t *testing.T, kind, cursor string) {
		p, err := decodeCursor(kind, cursor)
		if err != nil {
			if !errors.Is(err, ErrCursor) {
				t.Fatal(err)
			}
			return
		}
		if again, err := decodeCursor(kind, encodeCursor(kind, p)); err != nil || again != p {
			t.Errorf("%+v comes back as %+v, %v", p, again, err)
		}
	})
}
