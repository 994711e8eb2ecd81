package crdtstore_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// claimant is a machine that speaks as the node "n".
type claimant struct {
	host, machine string
	key           ed25519.PrivateKey // nil: it does not sign
	boot, seq     uint64
}

func (c *claimant) says(t *testing.T, s *crdtstore.Store) (accepted bool, err error) {
	t.Helper()
	r := crdtstore.Report{NodeID: "n", Profile: record.Profile{Hostname: c.host, MachineID: c.machine}}
	if c.boot > 0 {
		c.seq++
		r.Boot, r.Seq = c.boot, c.seq
	}
	if c.key != nil {
		r.Sign(c.key)
	}
	got, err := s.Report(t.Context(), r)
	return got.Accepted, err
}

func newKey(t *testing.T) ed25519.PrivateKey {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// hosts are those of the claims of a conflict, the one that stands first.
func hosts(t *testing.T, s *crdtstore.Store) (list string) {
	t.Helper()
	n, err := s.Node("n")
	if err != nil {
		t.Fatal(err)
	}
	if n.Conflict == nil {
		return ""
	}
	for _, c := range n.Conflict.Claims {
		mark := ""
		if c.Shown {
			mark = "*"
		}
		list += c.Hostname + mark + " "
	}
	return list + "| " + n.Conflict.Reason
}

// Two machines that claim one id are shown, both of them, and what stands goes on
// standing.
func TestTwoMachinesClaimOneID(t *testing.T) {
	key := newKey(t)
	for name, c := range map[string]struct {
		first, second claimant
		conflict      string
		prevailing    string
		refused       bool
	}{
		"another key": {
			claimant{"one", "m1", key, 1, 0}, claimant{"two", "m2", newKey(t), 2, 0},
			"one* two | another key claims this node id", "one", true,
		},
		"unsigned": {
			claimant{"one", "m1", key, 1, 0}, claimant{"two", "m2", nil, 2, 0},
			"one* two | an unsigned sender claims this node id", "one", true,
		},
		"a copied key": {
			claimant{"one", "m1", key, 2, 0}, claimant{"two", "m2", key, 1, 0},
			"one* two | another machine speaks with the key of this node", "one", false,
		},
		"the key of a machine that was renamed": {
			claimant{"one", "m1", key, 1, 0}, claimant{"two", "m1", key, 2, 0}, "", "two", false,
		},
		"a report that is late": {
			claimant{"one", "m1", key, 2, 0}, claimant{"one", "m1", key, 1, 0}, "", "one", false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			if _, err := s.Report(t.Context(), report("undisputed", 1, 1)); err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if _, err := c.first.says(t, s); err != nil {
					t.Fatal(err)
				}
				_, err := c.second.says(t, s)
				var refused *crdtstore.RefusedError
				if errors.As(err, &refused) != c.refused {
					t.Fatal(err)
				}
				if got := hosts(t, s); got != c.conflict {
					t.Errorf("conflict %q, want %q", got, c.conflict)
				}
				want := min(1, len(c.conflict))
				page, err := s.Nodes(crdtstore.NodeQuery{Conflict: true})
				if err != nil || page.Total != want || len(page.Nodes) != want || s.Stats().Conflicts != want {
					t.Errorf("%d listed, %d counted, want %d: %v", page.Total, s.Stats().Conflicts, want, err)
				}
				if n, _ := s.Node("n"); n.Hostname != c.prevailing {
					t.Errorf("%s stands, want %s", n.Hostname, c.prevailing)
				}
				if name == "the key of a machine that was renamed" {
					return
				}
			}
		})
	}
}

// Without keys nobody can say who is right, but that two machines take turns is seen.
func TestTwoMachinesTakeTurns(t *testing.T) {
	s := open(t, t.TempDir())
	one, two := claimant{host: "one"}, claimant{host: "two"}
	for i := range 4 {
		for _, c := range []*claimant{&one, &two} {
			if _, err := c.says(t, s); err != nil {
				t.Fatal(err)
			}
		}
		if got := hosts(t, s); i == 0 && got != "" {
			t.Errorf("a machine that got another name once: %s", got)
		} else if want := "two* one | two machines take turns as this node"; i > 1 && got != want {
			t.Errorf("conflict %q, want %q", got, want)
		}
	}
}
