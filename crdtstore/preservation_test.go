package crdtstore

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/watch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Nodes that fall silent together are shown as suspect until an operator ends it, and the
// event log says both.
func TestSilentNodesAreSuspectUntilAnOperatorEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := inMemory(t)
		s.since = time.Now()
		s.setOfflineAfter(30 * time.Second)
		for i := range 3 {
			s.knows(fmt.Sprint("n", i))
			s.board.Beat(time.Now(), fmt.Sprint("n", i), record.Version{}, nil, nil)
		}
		w := newStatuses(s)
		for range 40 * time.Second / watch.Tick {
			time.Sleep(watch.Tick)
			w.Step(time.Now(), func(string, Status) {})
		}
		if n, err := s.Node("n0"); err != nil || n.Status != Suspect || n.Reason == "" {
			t.Errorf("%s, %q, %v", n.Status, n.Reason, err)
		}
		if n := s.EndPreservation(t.Context(), "ann"); n != 1 {
			t.Errorf("%d masters heard it", n)
		}
		if n, err := s.Node("n0"); err != nil || n.Status != Offline {
			t.Errorf("%s after the end, %v", n.Status, err)
		}
		var happened []string
		for _, e := range s.AllEvents() {
			if e.Kind == GridEvent {
				happened = append(happened, e.Type+" "+e.By)
			}
		}
		if want := []string{EventPreservation + " ", EventPreservationEnded + " ann"}; !slices.Equal(happened, want) {
			t.Errorf("logged are %q, want %q", happened, want)
		}
	})
}
