package crdtstore_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// accepted is the state that a report asserts over nothing.
func accepted(t *testing.T, r crdtstore.Report) record.State {
	t.Helper()
	s, err := record.Accept(record.State{}, r, record.Acceptance{Now: 1_700_000_000_000})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Masters whose histories are equal and whose records are not, in both
// directions, become equal all the same, and stay so over a restart: what was
// learned is on disk.
func TestStatesMergeWithoutTheHistory(t *testing.T) {
	c := crdtstoretest.Start(t, 2, nil)
	for i := range 50 {
		if _, err := c.Store(0).Report(t.Context(), report(fmt.Sprintf("n%02d", i), 1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	c.WaitEqual()
	c.Store(0).Inject("only-a", accepted(t, report("only-a", 1, 1)))
	c.Store(1).Inject("only-b", accepted(t, report("only-b", 1, 1)))
	newer := report("n07", 1, 9)
	newer.Hostname = "newer"
	c.Store(1).Inject("n07", accepted(t, newer))

	diff, err := c.Store(0).Diff(t.Context(), "m1")
	if err != nil || diff.Equal || diff.Total != 3 || diff.Digest.Self == diff.Digest.Other {
		t.Fatalf("diff %+v, %v", diff, err)
	}
	if diff.Digest.Other != c.Store(1).Masters()[0].Digest {
		t.Errorf("diff says the other digest is %s, it is %s", diff.Digest.Other, c.Store(1).Masters()[0].Digest)
	}
	want := []crdtstore.NodeDiff{
		{NodeID: "n07", Fields: []string{"seq", "hostname"}},
		{NodeID: "only-a", Fields: []string{"missing_there"}},
		{NodeID: "only-b", Fields: []string{"missing_here"}},
	}
	for i, w := range want {
		got := diff.Nodes[i]
		if got.NodeID != w.NodeID || !containsAll(got.Fields, w.Fields) {
			t.Errorf("diff of %s names %q, want %q", got.NodeID, got.Fields, w.Fields)
		}
	}

	c.WaitEqual()
	if diff, err := c.Store(0).Diff(t.Context(), "m1"); err != nil || !diff.Equal || len(diff.Nodes) != 0 {
		t.Errorf("diff %+v, %v", diff, err)
	}
	digest := c.Store(0).Masters()[0].Digest
	for i := range 2 {
		c.Stop(i)
	}
	for i := range 2 {
		c.Open(i)
	}
	c.WaitEqual()
	if got := c.Store(0).Masters()[0].Digest; got != digest {
		t.Errorf("digest %s after a restart of both, was %s", got, digest)
	}
}

func containsAll(have, want []string) bool {
	for _, w := range want {
		if !slices.Contains(have, w) {
			return false
		}
	}
	return true
}

func TestDiffOfNobody(t *testing.T) {
	s := open(t, t.TempDir())
	if _, err := s.Diff(t.Context(), "nobody"); !errors.Is(err, crdtstore.ErrNotFound) {
		t.Errorf("diff with an unknown master gave %v", err)
	}
	if d, err := s.Diff(t.Context(), s.ID()); err != nil || !d.Equal {
		t.Errorf("diff with itself: %+v, %v", d, err)
	}
}
