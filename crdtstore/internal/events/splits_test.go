package events

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// grid is a master that sees two others, a and b.
type grid struct {
	*Splits
	t       *testing.T
	records *table.Table
	now     time.Time
	masters []Master
}

func newGrid(t *testing.T) *grid {
	g := &grid{t: t, records: table.New(), now: time.Unix(1000, 0)}
	g.Splits = NewSplits(func(id string) string { return id }, func(node string) record.State {
		if e := g.records.Get(node); e != nil {
			return e.State
		}
		return record.State{}
	})
	g.masters = []Master{{ID: "a", Heard: g.now, Apart: g.now}, {ID: "b", Heard: g.now, Apart: g.now}}
	g.passes(time.Second, "a", "b")
	return g
}

// passes lets time pass, in which the given masters are heard and hold the same.
func (g *grid) passes(d time.Duration, same ...string) (told []string) {
	for end := g.now.Add(d); g.now.Before(end); {
		g.now = g.now.Add(time.Second)
		for i := range g.masters {
			m := &g.masters[i]
			m.Silent, m.InSync = !slices.Contains(same, m.ID), slices.Contains(same, m.ID)
			if m.InSync {
				m.Heard, m.Same, m.Apart = g.now, g.now, g.now
				g.Heard(g.now, m.ID)
			}
		}
		told = append(told, g.look()...)
	}
	return told
}

func (g *grid) look() (told []string) {
	for _, e := range g.Look(g.now, g.masters) {
		told = append(told, e.Type+" "+e.Text)
	}
	return told
}

// hear has a silent master be heard, which holds something else.
func (g *grid) hear(id string) {
	for i := range g.masters {
		if m := &g.masters[i]; m.ID == id {
			m.Silent, m.Heard = false, g.now
			g.Heard(g.now, id)
		}
	}
}

// drain sets a node to be drained or not, on this side or on the other.
func (g *grid) drain(node, by, value string, there bool) {
	g.now = g.now.Add(time.Millisecond)
	base := accountOf(1, 1, "x")
	st := record.Join(base, base.Set(g.now.UnixMilli(), by, by, record.FieldDrain, value))
	if there {
		g.Arrives(g.now, node, st)
	}
	if before, after := g.records.Join(node, st); before != after {
		g.Changed(g.now, before, after)
	}
}

func (g *grid) wants(told []string, want ...string) {
	g.t.Helper()
	if !slices.Equal(told, want) {
		g.t.Errorf("told %q, want %q", told, want)
	}
}

func TestSplitIsTold(t *testing.T) {
	g := newGrid(t)
	g.drain("n0", "me", "1", false)
	g.wants(g.passes(3*time.Second, "a", "b"))
	if len(g.nodes) != 0 {
		t.Errorf("%d nodes are remembered that all masters know", len(g.nodes))
	}
	g.drain("n1", "me", "1", false)
	g.wants(g.passes(6*time.Second, "a"), "split b cannot be reached, and what it holds is unknown")
	g.drain("n2", "me", "1", false)
	open := g.Open(g.now)
	if len(open) != 1 || open[0].Master != "b" || open[0].Nodes != 2 || !open[0].Silent || open[0].Age < 6*time.Second || open[0].Age > 7*time.Second {
		t.Errorf("open are %+v", open)
	}
	g.hear("b")
	g.drain("n2", "you", "", true)
	g.drain("n3", "you", "1", true)
	g.wants(g.passes(time.Second, "a", "b"),
		"merged b and this master hold the same again, after 7s; nodes changed here: 2, there: 2; overrides that gave way: 1, n2: drained by me through me gave way to no longer drained by you through you")
	g.passes(time.Second, "a", "b")
	if open := g.Open(g.now); len(open) != 0 || len(g.nodes) != 0 {
		t.Errorf("open are %+v, and %d nodes are remembered", open, len(g.nodes))
	}
}

// What comes by two masters of the other side is counted once.
func TestSplitFromTwoIsCountedOnce(t *testing.T) {
	g := newGrid(t)
	g.drain("n1", "me", "1", false)
	g.passes(6 * time.Second)
	g.hear("a")
	g.hear("b")
	g.drain("n1", "you", "", true)
	g.drain("n1", "you", "", true)
	g.wants(g.passes(time.Second, "a", "b"),
		"merged a and this master hold the same again, after 7s; nodes changed here: 1, there: 1; overrides that gave way: 1, n1: drained by me through me gave way to no longer drained by you through you",
		"merged b and this master hold the same again, after 7s; nodes changed here: 1, there: 0")
}

// The other side is heard for a moment, and again later: what came in that moment counts,
// and what this side changes in between is not taken for the other's.
func TestSplitThatHealsInTwoSteps(t *testing.T) {
	g := newGrid(t)
	g.drain("n1", "me", "1", false)
	g.passes(6*time.Second, "a")
	g.hear("b")
	g.drain("n1", "you", "", true)
	g.passes(10*time.Second, "a")
	g.drain("n2", "me", "1", true) // by a, which is on this side
	g.hear("b")
	g.drain("n3", "you", "1", true)
	told := g.passes(time.Second, "a", "b")
	g.wants(told, "merged b and this master hold the same again, after 17s; nodes changed here: 2, there: 2; overrides that gave way: 1, n1: drained by me through me gave way to no longer drained by you through you")
}

// Masters that can talk and hold something else are split too, unless one is joining.
func TestSplitOfMastersThatTalk(t *testing.T) {
	g := newGrid(t)
	b := &g.masters[1]
	b.InSync, b.Differs, b.Joining = false, 3, true
	g.now = g.now.Add(splitAfter)
	g.wants(g.look())
	b.Joining = false
	g.wants(g.look(), "split b has held something else for 5s; nodes that differed when they were compared: 3")
	b.Differs = 2
	g.wants(g.look())
	if open := g.Open(g.now); len(open) != 1 || open[0].Nodes != 3 || open[0].Silent {
		t.Errorf("open are %+v", open)
	}
	b.Left = true
	g.wants(g.look())
	if open := g.Open(g.now); len(open) != 0 {
		t.Errorf("open are %+v", open)
	}
}

// However much changes, what is remembered is bounded, and so is what is told.
func TestSplitIsBounded(t *testing.T) {
	g := newGrid(t)
	for i := range maxSplitNodes + 10 {
		g.drain(fmt.Sprint("n", i), "me", "1", false)
	}
	g.passes(6*time.Second, "a")
	g.hear("b")
	for i := range maxSplitNodes + 10 {
		g.drain(fmt.Sprint("n", i), "you", "", true)
	}
	g.drain("new", "you", "1", true)
	told := g.passes(time.Second, "a", "b")
	if len(told) != 1 || len(told[0]) > 1000 {
		t.Errorf("told %q", told)
	}
	if want := fmt.Sprintf("nodes changed here: %d, there: %[1]d; overrides that gave way: %[1]d, n0: ", maxSplitNodes); len(told) == 1 && !strings.Contains(told[0], want) {
		t.Errorf("told %q, without %q", told[0], want)
	}
}
