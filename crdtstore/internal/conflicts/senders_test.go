package conflicts_test

import (
	"fmt"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/conflicts"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// start is when the tests begin.
var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func report(node, host string) *record.Report {
	return &record.Report{NodeID: node, Boot: 1, Seq: 1, Profile: record.Profile{Hostname: host, MachineID: "machine of " + host}}
}

// known has a table hold a node, as an unsigned report made it.
func known(t *testing.T, in *table.Table, node, host string) *table.Entry {
	t.Helper()
	s, err := record.Accept(record.State{}, *report(node, host), record.Acceptance{Now: start.UnixMilli()})
	if err != nil {
		t.Fatal(err)
	}
	in.Join(node, s)
	return in.Get(node)
}

func otherKey(before *table.Entry) conflicts.Outcome {
	return conflicts.Outcome{Before: before, Refused: &record.RefusedError{Reason: record.RefusedOtherKey}}
}

func alive() bool { return true }

// claims are the hostnames in a conflict, the prevailing one first.
func claims(s *conflicts.Senders, now time.Time, e *table.Entry) (hosts []string) {
	n := e.Node()
	if s.Mark(now, &n); n.Conflict == nil {
		return nil
	}
	for _, c := range n.Conflict.Claims {
		hosts = append(hosts, c.Hostname)
	}
	return hosts
}

// However many claim a node, and however many nodes are claimed, few are remembered: of a
// node those that came last, of nodes those that came first, until they are heard no more.
func TestSendersAreBounded(t *testing.T) {
	var s conflicts.Senders
	records := table.New()
	e := known(t, records, "n", "owner")
	now := start
	for i := range 20 {
		now = now.Add(time.Second)
		if s.Look(now, report("n", fmt.Sprint("host-", i)), otherKey(e), alive) == nil {
			t.Fatal("a new sender is not seen")
		}
	}
	if got := fmt.Sprint(claims(&s, now, e)); got != "[owner host-16 host-17 host-18 host-19]" {
		t.Errorf("claims by %s", got)
	}
	contested := func() (count int) {
		shows := s.Contested(now)
		for e := range records.All() {
			if shows(e) {
				count++
			}
		}
		return count
	}
	const bound = 1000
	for i := range bound + 100 {
		id := fmt.Sprintf("n%04d", i)
		found := s.Look(now, report(id, "other"), otherKey(known(t, records, id, "owner")), alive)
		if seen := found != nil; seen != (i < bound-1) {
			t.Fatalf("node %d: seen %v", i, seen)
		}
	}
	if got := contested(); got != bound {
		t.Errorf("%d nodes are contested, want %d", got, bound)
	}
	now = now.Add(time.Hour)
	if s.Look(now, report("later", "other"), otherKey(known(t, records, "later", "owner")), alive) == nil {
		t.Error("those that are heard no more leave no room")
	}
	if got := contested(); got != 1 {
		t.Errorf("%d nodes are contested an hour later, want 1", got)
	}
}

// A conflict is seen once, lasts as long as the other sender comes again, and is over when
// its account prevails, or the node is removed.
func TestConflictsEnd(t *testing.T) {
	var s conflicts.Senders
	e := known(t, table.New(), "n", "one")
	now := start
	for i := range 5 {
		found := s.Look(now, report("n", "two"), otherKey(e), alive)
		if first := i == 0; first != (found != nil) {
			t.Errorf("after %d reports: found %v", i, found)
		}
		if got := fmt.Sprint(claims(&s, now, e)); got != "[one two]" {
			t.Errorf("claims by %s", got)
		}
		now = now.Add(14 * time.Minute)
	}
	if got := claims(&s, now, known(t, table.New(), "n", "two")); got != nil {
		t.Errorf("the one that prevails is in conflict with itself: %s", got)
	}
	removed := table.New()
	st := e.State
	removed.Join("n", record.Join(st, st.Remove(now.UnixMilli(), "m1", "ann", "sold")))
	if got := claims(&s, now, removed.Get("n")); got != nil {
		t.Errorf("a removed node is claimed by %s", got)
	}
	now = now.Add(2 * time.Minute)
	if got := claims(&s, now, e); got != nil {
		t.Errorf("a quarter of an hour after the last report: %s", got)
	}
	found := s.Look(now, report("n", "two"), otherKey(e), alive)
	if found == nil || found.Other != "two" || found.Prevailing != "one" {
		t.Errorf("it comes again: %+v", found)
	}
}

// That two unsigned machines take turns is seen at the second one's second report, and
// only where the first may still live.
func TestTurns(t *testing.T) {
	for _, lives := range []bool{true, false} {
		var s conflicts.Senders
		one, two := known(t, table.New(), "n", "one"), known(t, table.New(), "n", "two")
		found := 0
		for range 3 {
			for _, c := range []struct {
				before *table.Entry
				host   string
			}{{one, "two"}, {two, "one"}} {
				if s.Look(start, report("n", c.host), conflicts.Outcome{Before: c.before, Prevails: true}, func() bool { return lives }) != nil {
					found++
				}
			}
		}
		if want := map[bool]int{true: 2, false: 0}[lives]; found != want {
			t.Errorf("the first lives: %v; found %d times, want %d", lives, found, want)
		}
	}
}
