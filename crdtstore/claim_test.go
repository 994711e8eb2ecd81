package crdtstore_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// Of many keys that claim one node id at the same moment one has it, and the others are
// refused.
func TestManyKeysClaimOneID(t *testing.T) {
	s := open(t, t.TempDir())
	for i := range 20 {
		id := fmt.Sprint("n", i)
		var accepted atomic.Int32
		var all sync.WaitGroup
		for range 16 {
			_, key, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			all.Go(func() {
				r := report(id, 1, 1)
				r.Sign(key)
				_, err := s.Report(t.Context(), r)
				if _, refused := errors.AsType[*crdtstore.RefusedError](err); err == nil {
					accepted.Add(1)
				} else if !refused {
					t.Error(err)
				}
			})
		}
		all.Wait()
		n, err := s.Node(id)
		if err != nil || accepted.Load() != 1 {
			t.Fatalf("%d were accepted, %+v, %v", accepted.Load(), n, err)
		}
	}
}
