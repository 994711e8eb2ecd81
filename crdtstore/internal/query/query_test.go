package query

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/page"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// grid is a table, and what is told of its nodes beside it.
type grid struct {
	*table.Table
	vitals map[string]Vital
}

func newGrid() *grid { return &grid{table.New(), map[string]Vital{}} }

func (g *grid) Vital(e *table.Entry, v *Vital) { *v = g.vitals[e.ID] }

func (g *grid) Conflict(e *table.Entry) bool { return strings.HasSuffix(e.ID, "7") }

func (g *grid) Node(e *table.Entry) record.Node {
	n, v := e.Node(), g.vitals[e.ID]
	n.Status, n.Usage = v.Status, v.Usage
	if n.LastSeen.Before(v.LastSeen) {
		n.LastSeen = v.LastSeen
	}
	return n
}

func (g *grid) VMs(e *table.Entry) []record.VM { return e.ListVMs() }

// tells has a node say something new of itself.
func (g *grid) tells(t rapid.TB, rnd *rand.Rand, r record.Report) {
	t.Helper()
	known := g.state(r.NodeID)
	r.Boot, r.Seq = known.Boot(), 1
	if known.Removed() {
		r.Boot++
	}
	if owner, ok := known.Owner(); ok {
		r.Seq = owner.Latest().Seq + 1
	}
	news, err := record.Accept(known, r, record.Acceptance{Now: 1 + rnd.Int64N(1000)})
	if err != nil {
		t.Fatal(err)
	}
	g.Join(r.NodeID, news)
	g.vitals[r.NodeID] = Vital{
		Status: []record.Status{record.Online, record.Suspect, record.Offline}[rnd.IntN(3)], Usage: r.Usage, LastSeen: time.UnixMilli(rnd.Int64N(1000)),
	}
}

func (g *grid) goes(id string) {
	g.Join(id, g.state(id).Remove(1000, "m", "", ""))
	g.vitals[id] = Vital{Status: record.Offline}
}

func (g *grid) state(id string) record.State {
	if e := g.Get(id); e != nil {
		return e.State
	}
	return record.State{}
}

func randomReport(rnd *rand.Rand, id string) record.Report {
	pick := func(of ...string) string { return of[rnd.IntN(len(of))] }
	r := record.Report{NodeID: id}
	r.Hostname = pick("alpha", "Beta", "gamma", "")
	r.Location = record.Location{Country: pick("BE", "EG", ""), City: pick("Ghent", "Cairo")}
	r.Total = record.Capacity{CRU: float64(rnd.IntN(5)), MRU: uint64(rnd.IntN(5)) << 30, SRU: uint64(rnd.IntN(3)), HRU: uint64(rnd.IntN(3))}
	r.SlicesTotal = uint64(rnd.IntN(4))
	r.Usage = record.Usage{CRU: float64(rnd.IntN(5)), MRU: uint64(rnd.IntN(5)) << 30, SRU: uint64(rnd.IntN(3)), Slices: uint64(rnd.IntN(4))}
	r.Labels = map[string]string{"rack": pick("1", "2"), "gpu": pick("", "yes")}
	for i := range rnd.IntN(3) {
		r.VMs = append(r.VMs, record.VM{SID: fmt.Sprintf("%s-vm%d", pick("a", "b"), i), Name: pick("Web", "db"), State: pick("running", "stopped"), IP: pick("10.0.0.1", "")})
	}
	return r
}

// pages reads a list to its end, with something happening between the pages.
func pages(t rapid.TB, s *grid, q NodeQuery, between func()) []record.Node {
	t.Helper()
	var out []record.Node
	for range 10_000 {
		got, err := Nodes(s.Table, s, q)
		if err != nil {
			t.Fatal(err)
		}
		if limit := cmp.Or(q.Limit, page.DefaultLimit); len(got.Nodes) > limit || len(got.Nodes) < limit && got.NextCursor != "" {
			t.Fatalf("a page of %d, the limit is %d, and there is more: %v", len(got.Nodes), limit, got.NextCursor != "")
		}
		out = append(out, got.Nodes...)
		if got.NextCursor == "" {
			return out
		}
		q.Cursor = got.NextCursor
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
		s := newGrid()
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
		stable := map[string]bool{}
		for i := range rapid.IntRange(0, 60).Draw(r, "nodes") {
			id := fmt.Sprintf("%c%d", "sS.-"[rnd.IntN(4)], i)
			s.tells(r, rnd, randomReport(rnd, id))
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
				if rnd.IntN(3) > 0 || s.Get(id) == nil {
					s.tells(r, rnd, randomReport(rnd, id))
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
		s := newGrid()
		rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed"), 1))
		for i := range rapid.IntRange(0, 40).Draw(r, "nodes") {
			id := fmt.Sprintf("n%d", i)
			s.tells(r, rnd, randomReport(rnd, id))
			switch rnd.IntN(8) {
			case 0:
				s.goes(id)
			case 1:
				s.vitals[id] = Vital{Status: record.Offline} // not heard in this run
			case 2:
				s.Join("silent"+id, record.State{LastSeen: 1})
			}
		}
		q := NodeQuery{
			Status:   rapid.SampledFrom([]record.Status{"", "", record.Online, record.Suspect, record.Offline}).Draw(r, "status"),
			Q:        rapid.SampledFrom([]string{"", "ALPHA", "beta", "n1", "rack=1", "web", "10.0.0"}).Draw(r, "q"),
			Location: rapid.SampledFrom([]string{"", "be", "CAIRO", "nowhere"}).Draw(r, "location"),
			Labels:   rapid.SampledFrom([]map[string]string{nil, {"rack": "1"}, {"rack": "2", "gpu": ""}, {"none": ""}}).Draw(r, "labels"),
			MinFree:  rapid.SampledFrom([]MinFree{{}, {CRU: 2}, {MRU: 1 << 30}, {Slices: 2, SRU: 1}, {HRU: 1}}).Draw(r, "free"),
			Sort:     rapid.SampledFrom([]string{"", "-node_id", "hostname", "-free_cru", "vms", "status", "-last_seen"}).Draw(r, "sort"),
			Conflict: rapid.SampledFrom([]bool{false, false, false, true}).Draw(r, "conflict"),
			Limit:    page.MaxLimit, IncludeRemoved: rapid.Bool().Draw(r, "removed"),
		}
		got, err := Nodes(s.Table, s, q)
		if err != nil {
			r.Fatal(err)
		}
		var want []record.Node
		for e := range s.All() {
			if n := s.Node(e); naiveMatch(n, q) {
				want = append(want, n)
			}
		}
		slices.SortStableFunc(want, func(a, b record.Node) int { return naiveOrder(a, b, q.Sort) })
		if ids(got.Nodes) != ids(want) || got.Total != len(want) || got.NextCursor != "" {
			r.Fatalf("%+v gives %s, total %d, want %s", q, ids(got.Nodes), got.Total, ids(want))
		}
	})
}

func ids(nodes []record.Node) string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.NodeID)
	}
	return strings.Join(out, " ")
}

func naiveMatch(n record.Node, q NodeQuery) bool {
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
		(q.Q == "" || found) && (!q.Conflict || strings.HasSuffix(n.NodeID, "7")) &&
		(q.Location == "" || strings.EqualFold(q.Location, n.Location.Country) || strings.EqualFold(q.Location, n.Location.City)) &&
		(q.MinFree.CRU == 0 || n.Total.CRU-n.Usage.CRU >= q.MinFree.CRU) &&
		enough(n.Total.MRU, n.Usage.MRU, q.MinFree.MRU) && enough(n.Total.SRU, n.Usage.SRU, q.MinFree.SRU) &&
		enough(n.Total.HRU, n.Usage.HRU, q.MinFree.HRU) && enough(n.SlicesTotal, n.Usage.Slices, q.MinFree.Slices)
}

func naiveOrder(a, b record.Node, by string) int {
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
	case "-last_seen":
		c = -a.LastSeen.Compare(b.LastSeen)
	case "status":
		c = cmp.Compare(a.Status, b.Status)
	}
	return cmp.Or(c, cmp.Compare(a.NodeID, b.NodeID))
}

// TestVMPages reads all VMs page by page, and compares with the nodes' lists.
func TestVMPages(t *testing.T) {
	for seed := range uint64(30) {
		s := newGrid()
		rnd := rand.New(rand.NewPCG(seed, 7))
		for i := range rnd.IntN(40) {
			id := fmt.Sprintf("n%d", i)
			s.tells(t, rnd, randomReport(rnd, id))
			if rnd.IntN(6) == 0 {
				s.goes(id)
			}
		}
		for _, q := range []VMQuery{{}, {State: "running"}, {Q: "WEB"}, {Q: "10.0"}, {NodeID: "n3"}, {NodeID: "nobody"}} {
			var want, have []string
			for e := range s.All() {
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
				got, err := VMs(s.Table, s, q)
				if err != nil || got.Total != len(want) || got.VMs == nil {
					t.Fatalf("%+v: total %d, want %d, %v", q, got.Total, len(want), err)
				}
				for _, v := range got.VMs {
					have = append(have, v.SID+" "+v.NodeID)
				}
				if q.Cursor = got.NextCursor; q.Cursor == "" {
					break
				}
			}
			if !slices.Equal(have, want) {
				t.Errorf("seed %d, %+v: %v, want %v", seed, q, have, want)
			}
		}
	}
}

func isField(err error, field string) bool {
	f, ok := errors.AsType[*record.FieldError](err)
	return ok && f.Field == field
}

func TestQueriesRefuse(t *testing.T) {
	s := newGrid()
	for field, q := range map[string]NodeQuery{
		"limit": {Limit: page.MaxLimit + 1}, "status": {Status: "dead"}, "sort": {Sort: "age"},
	} {
		if _, err := Nodes(s.Table, s, q); !isField(err, field) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if _, err := Nodes(s.Table, s, NodeQuery{Limit: -1}); !isField(err, "limit") {
		t.Error(err)
	}
	if _, err := VMs(s.Table, s, VMQuery{Limit: -1}); !isField(err, "limit") {
		t.Error(err)
	}
	byHost, vm := page.Cursor("node/hostname", page.Place{Str: "x"}), page.Cursor("vm", page.Place{})
	for _, q := range []NodeQuery{
		{Cursor: "nonsense"}, {Cursor: "e30"}, {Cursor: vm}, {Cursor: byHost}, {Cursor: byHost, Sort: "-hostname"},
		{Cursor: page.Cursor("node/", page.Place{})[:6]},
	} {
		if _, err := Nodes(s.Table, s, q); !errors.Is(err, page.ErrCursor) {
			t.Errorf("%+v: %v", q, err)
		}
	}
	if _, err := VMs(s.Table, s, VMQuery{Cursor: byHost}); !errors.Is(err, page.ErrCursor) {
		t.Error(err)
	}
	if _, err := Nodes(s.Table, s, NodeQuery{Cursor: byHost, Sort: "hostname"}); err != nil {
		t.Error(err)
	}
}
