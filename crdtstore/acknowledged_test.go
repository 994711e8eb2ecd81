package crdtstore

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/query"
)

// lists returns the sids that all ways to ask for VMs agree on.
func (s *Store) lists(t *testing.T, node string) string {
	t.Helper()
	page, err := s.VMs(VMQuery{NodeID: node})
	if err != nil {
		t.Fatal(err)
	}
	n, err := s.Node(node)
	if err != nil {
		t.Fatal(err)
	}
	var listed, shown []string
	for _, vm := range page.VMs {
		listed = append(listed, vm.SID)
		if got, err := s.VM("", vm.SID); err != nil || got != vm || got.NodeID != node {
			t.Errorf("VM %s is %+v, listed as %+v, %v", vm.SID, got, vm, err)
		}
	}
	for _, vm := range n.VMs {
		shown = append(shown, vm.SID)
	}
	text := strings.Join(listed, " ")
	if other := strings.Join(shown, " "); other != text || s.count(time.Now()).VMs.Total != len(listed) || page.Total != len(listed) {
		t.Errorf("list_vms has %q, the node %q, counted are %d and %d", text, other, page.Total, s.count(time.Now()).VMs.Total)
	}
	return text
}

func TestAcknowledgedVMs(t *testing.T) {
	vm := func(sid string) VM { return VM{SID: sid, State: "running"} }
	deployed := func(s *Store, sid string) { s.Acknowledged(VM{SID: sid, NodeID: "n", State: "starting"}) }
	deleted := func(s *Store, sid string) { s.Acknowledged(VM{SID: sid, NodeID: "n", State: VMDeleted}) }
	reports := func(s *Store, sids ...string) {
		r := Report{NodeID: "n"}
		for _, sid := range sids {
			r.VMs = append(r.VMs, vm(sid))
		}
		s.tells(t, r)
		s.changed("n")
	}
	for name, c := range map[string]struct {
		do   func(s *Store)
		want string
	}{
		"deployed":                          {func(s *Store) { deployed(s, "c"); deployed(s, "a") }, "a b c"},
		"deployed twice":                    {func(s *Store) { deployed(s, "c"); deployed(s, "c") }, "b c"},
		"deleted":                           {func(s *Store) { deleted(s, "b") }, ""},
		"deployed and deleted":              {func(s *Store) { deployed(s, "c"); deleted(s, "c"); deployed(s, "d") }, "b d"},
		"deleted and made again":            {func(s *Store) { deleted(s, "b"); deployed(s, "b") }, "b"},
		"reported":                          {func(s *Store) { deployed(s, "c"); reports(s, "b", "c"); reports(s, "b") }, "b"},
		"reported as gone":                  {func(s *Store) { deleted(s, "b"); reports(s) }, ""},
		"a report was on its way":           {func(s *Store) { deployed(s, "c"); reports(s, "b"); deleted(s, "b"); reports(s, "b") }, "c"},
		"the node never had it":             {func(s *Store) { deployed(s, "c"); time.Sleep(query.ReportDelay + time.Second); reports(s, "b") }, "b"},
		"the node has it still":             {func(s *Store) { deleted(s, "b"); time.Sleep(query.ReportDelay + time.Second); reports(s, "b") }, "b"},
		"no report comes":                   {func(s *Store) { deployed(s, "c"); deleted(s, "b"); time.Sleep(30 * time.Second) }, "c"},
		"no report comes for too long":      {func(s *Store) { deployed(s, "c"); deleted(s, "b"); time.Sleep(query.AcknowledgedAge + time.Second) }, "b"},
		"of a VM that no report could have": {func(s *Store) { deployed(s, strings.Repeat("x", 1000)) }, "b"},
		"of a node that nobody knows":       {func(s *Store) { s.Acknowledged(VM{SID: "c", NodeID: "other"}) }, "b"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := inMemory(t)
				reports(s, "b")
				time.Sleep(time.Minute)
				c.do(s)
				for range 2 {
					if got := s.lists(t, "n"); got != c.want {
						t.Errorf("the VMs are %q, want %q", got, c.want)
					}
				}
			})
		})
	}
}

// What is remembered is bounded, and makes room when it has aged.
func TestAcknowledgedVMsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t)
		for node := range 5 {
			s.tells(t, Report{NodeID: fmt.Sprint("n", node)})
		}
		for i := range 2 * query.MaxAcknowledged {
			s.Acknowledged(VM{SID: fmt.Sprint(i), NodeID: fmt.Sprint("n", i%5), State: "running"})
		}
		if n := s.count(time.Now()).VMs.Total; n != query.MaxAcknowledged {
			t.Errorf("%d are remembered, want %d", n, query.MaxAcknowledged)
		}
		time.Sleep(query.AcknowledgedAge + time.Second)
		s.Acknowledged(VM{SID: "late", NodeID: "n0", State: "running"})
		if _, err := s.VM("", "late"); err != nil || s.acknowledged.Len() != 1 {
			t.Errorf("%d are remembered when all others have aged: %v", s.acknowledged.Len(), err)
		}
		time.Sleep(query.AcknowledgedAge + time.Second)
		if _, err := s.VM("", "late"); !errors.Is(err, ErrNotFound) || s.acknowledged.Len() > 0 {
			t.Errorf("it is remembered for ever: %v", err)
		}
	})
}
