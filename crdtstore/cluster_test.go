package crdtstore_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
)

func TestWritesReachAllMasters(t *testing.T) {
	c := crdtstoretest.Start(t, 3, nil)
	for i := range 60 {
		if _, err := c.Store(i%3).Report(t.Context(), report(fmt.Sprintf("n%02d", i), 1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	c.WaitEqual()
	for i := range c.Len() {
		page, err := c.Store(i).Nodes(crdtstore.NodeQuery{Limit: 1000, Status: crdtstore.Online})
		if err != nil || page.Total < 20 {
			t.Errorf("master %d lists %d online nodes, %v", i, page.Total, err)
		}
	}
}

func TestSplitMerges(t *testing.T) {
	c := crdtstoretest.Start(t, 2, nil)
	a, b := c.Store(0), c.Store(1)
	for i := range 20 {
		if _, err := a.Report(t.Context(), report(fmt.Sprintf("n%02d", i), 1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	c.WaitEqual()
	c.Split(1)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	// A writes often and old accounts, B once and the newest.
	for seq := uint64(2); seq < 30; seq++ {
		must(a.Report(t.Context(), report("n00", 1, seq)))
	}
	r := report("n00", 2, 1)
	r.Hostname = "rebooted"
	must(b.Report(t.Context(), r))
	must(a.Drain(t.Context(), "n01", true, "a"))
	must(b.Drain(t.Context(), "n02", true, "b"))
	must(a.Remove(t.Context(), "n03", "a", ""))
	must(b.Remove(t.Context(), "n04", "b", ""))
	must(b.Report(t.Context(), report("n03", 1, 9))) // of the boot that A removed
	must(a.Report(t.Context(), report("only-a", 1, 1)))
	must(b.Report(t.Context(), report("only-b", 1, 1)))

	c.Heal()
	c.WaitEqual()
	for i := range 2 {
		s := c.Store(i)
		if n, _ := s.Node("n00"); n.Hostname != "rebooted" || n.Boot != 2 {
			t.Errorf("master %d: n00 is %q at boot %d", i, n.Hostname, n.Boot)
		}
		for _, id := range []string{"n01", "n02"} {
			if n, _ := s.Node(id); !n.Drained {
				t.Errorf("master %d: %s is not drained", i, id)
			}
		}
		page, err := s.Nodes(crdtstore.NodeQuery{Limit: 1000})
		if err != nil || page.Total != 20 {
			t.Errorf("master %d lists %d nodes, want 20 (22 known, 2 removed): %v", i, page.Total, err)
		}
	}
}

func TestReturningMasterCatchesUp(t *testing.T) {
	c := crdtstoretest.Start(t, 2, nil)
	c.Stop(1)
	for i := range 500 {
		if _, err := c.Store(0).Report(t.Context(), report(fmt.Sprintf("n%03d", i), 1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	c.Open(1)
	began := time.Now()
	c.WaitEqual()
	t.Logf("caught up in %s", time.Since(began))
	if m, err := c.Store(0).Master("m1"); err != nil {
		t.Errorf("m1 is %+v, %v", m, err)
	}
}

// The master that saw a node's answer finds the VM at once; the others find it when the
// node reports it.
func TestAcknowledgedVMsAreOfOneMaster(t *testing.T) {
	c := crdtstoretest.Start(t, 2, nil)
	r := report("n", 1, 1)
	if _, err := c.Store(0).Report(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	c.WaitEqual()
	c.Store(0).Acknowledged(crdtstore.VM{SID: "new", NodeID: "n", State: "running"})
	if vm, err := c.Store(0).VM("", "new"); err != nil || vm.NodeID != "n" {
		t.Errorf("who saw the answer does not find the VM: %v", err)
	}
	if _, err := c.Store(1).VM("", "new"); !errors.Is(err, crdtstore.ErrNotFound) {
		t.Errorf("the other master: %v", err)
	}
	r.Seq, r.VMs = 2, append(r.VMs, crdtstore.VM{SID: "new", State: "running", IP: "10.0.0.9"})
	if _, err := c.Store(1).Report(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	c.WaitEqual()
	for i := range 2 {
		if vm, err := c.Store(i).VM("", "new"); err != nil || vm.IP != "10.0.0.9" {
			t.Errorf("master %d, after the report: %+v, %v", i, vm, err)
		}
	}
}
