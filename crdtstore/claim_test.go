package crdtstore_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// Of many keys that claim one node id at the same moment one has it, and the others are
// refused.
func TestManyKeysClaimOneID(t *testing.T) {
	s := open(t, t.TempDir())
	for i := range 5 {
		id := fmt.Sprint("n", i)
		var accepted atomic.Int32
		var all sync.WaitGroup
		start := make(chan struct{})
		for range 16 {
			_, key, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			r := report(id, 1, 1)
			for i := range 500 { // to decide takes a while
				r.VMs = append(r.VMs, crdtstore.VM{SID: fmt.Sprint("vm", i), Name: strings.Repeat("x", 200)})
			}
			r.Sign(key)
			all.Go(func() {
				<-start
				_, err := s.Report(t.Context(), r)
				if _, refused := errors.AsType[*crdtstore.RefusedError](err); err == nil {
					accepted.Add(1)
				} else if !refused {
					t.Error(err)
				}
			})
		}
		close(start)
		all.Wait()
		if _, err := s.Node(id); err != nil || accepted.Load() != 1 {
			t.Fatalf("%d were accepted, %v", accepted.Load(), err)
		}
	}
}
