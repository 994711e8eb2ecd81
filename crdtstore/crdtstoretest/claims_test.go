package crdtstoretest_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// claimant is the i-th machine of those that were installed with one node id.
func claimant(i int) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{byte(i + 1)}, ed25519.SeedSize))
}

// maximal is the largest report that is taken.
func maximal(t *testing.T, id string, boot uint64, key ed25519.PrivateKey) crdtstore.Report {
	t.Helper()
	r := crdtstore.Report{NodeID: id, Boot: boot, Seq: 1, Profile: record.Profile{Labels: map[string]string{}}}
	for i := range 64 {
		r.Labels[fmt.Sprintf("%0128d", i)] = fmt.Sprintf("%0256d", i)
	}
	for i := range 1000 {
		r.VMs = append(r.VMs, crdtstore.VM{SID: fmt.Sprintf("%0100d", i), Name: fmt.Sprintf("%0150d", i)})
	}
	r.Sign(key)
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestOneIDManyKeys has many machines register one node id in the same moment, at all
// masters, each with a key of its own and as large a report as is taken.
func TestOneIDManyKeys(t *testing.T) {
	const masters, machines = 2, 64
	c := crdtstoretest.Start(t, masters, nil)
	reports := make([]crdtstore.Report, machines)
	for i := range reports {
		reports[i] = maximal(t, "same", uint64(100+i), claimant(i))
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	taken := make([]int, masters)
	start := make(chan struct{})
	for i, r := range reports {
		all.Go(func() {
			<-start
			_, err := c.Store(i%masters).Report(t.Context(), r)
			if _, refused := errors.AsType[*crdtstore.RefusedError](err); refused {
				return
			}
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			taken[i%masters]++
		})
	}
	close(start)
	all.Wait()
	for m, n := range taken {
		if n > 1 {
			t.Errorf("master %d took the reports of %d keys as the first", m, n)
		}
	}
	healthy := func(when string) {
		t.Helper()
		c.WaitEqual()
		for m := range masters {
			if err := c.Store(m).Health(); err != nil {
				t.Fatalf("%s: master %d: %v", when, m, err)
			}
			report(t, c.Store(m), fmt.Sprintf("%s-%d", when, m), 1)
		}
		c.WaitEqual()
	}
	healthy("claimed")
	v, err := c.Store(0).Node("same")
	if err != nil || len(v.VMs) != 1000 {
		t.Fatalf("the node is shown as %+v, %v", v.Boot, err)
	}
	for m := range masters {
		c.Stop(m)
	}
	for m := range masters {
		c.Open(m)
	}
	c.WaitConnected()
	healthy("restarted")
	if again, err := c.Store(1).Node("same"); err != nil || !bytes.Equal(again.PublicKey, v.PublicKey) {
		t.Errorf("after the restart the owner is %x, was %x; %v", again.PublicKey, v.PublicKey, err)
	}

	if _, err := c.Store(1).Remove(t.Context(), "same", "ann", "one image"); err != nil {
		t.Fatalf("the node cannot be removed: %v", err)
	}
	healthy("removed")
	for m := range masters {
		c.Stop(m)
	}
	for m := range masters {
		c.Open(m)
		if v, err := c.Store(m).Node("same"); err != nil || v.RemovedAt == nil {
			t.Errorf("master %d forgot the removal: %v, %v", m, v.RemovedAt, err)
		}
	}
	c.WaitConnected()
	// Whichever of the machines boots again first has the id.
	if _, err := c.Store(0).Report(t.Context(), maximal(t, "same", 1000, claimant(70))); err != nil {
		t.Errorf("the id cannot be taken anew: %v", err)
	}
	healthy("taken")
}

func report(t *testing.T, s *crdtstore.Store, id string, boot uint64) {
	t.Helper()
	r := crdtstore.Report{NodeID: id, Boot: boot, Seq: 1}
	r.Hostname = id
	if _, err := s.Report(t.Context(), r); err != nil {
		t.Fatalf("report of %s: %v", id, err)
	}
}
