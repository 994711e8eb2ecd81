package crdtstore

import (
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

func init() {
	turnoverTick, assertSettle = 200*time.Millisecond, time.Second
}

// Inject lets a store hold a state that its history knows nothing of, as if the
// block with it had been lost elsewhere.
func (s *Store) Inject(node string, st record.State) { s.table.Join(node, st) }
