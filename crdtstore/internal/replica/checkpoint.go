package replica

import (
	"context"
	"maps"
	"slices"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Checkpoint has it written down when nodes were last seen, for display and
// retention after all masters have been down. It is to be called every few
// minutes. Each bucket of nodes is written by the master that is responsible for
// it, if there is news of any node in it.
func (r *Replica) Checkpoint() {
	living := r.living()
	var mine, news [table.Buckets]bool
	for b := range mine {
		mine[b] = membership.Rendezvous(epoch.BucketName(byte(b)), living) == r.opts.Self
	}
	for e := range r.table.All() {
		b := table.Bucket(e.ID)
		if e.Removed || !mine[b] {
			continue
		}
		if seen := r.opts.Grid.Heard(e.ID); seen > e.State.LastSeen && r.join(e.ID, record.State{LastSeen: seen}) {
			news[b] = true
		}
	}
	for b, is := range news {
		if is {
			r.Mark(epoch.BucketName(byte(b)))
		}
	}
}

// publishSeen writes what the table knows of buckets, by their names.
func (r *Replica) publishSeen(ctx context.Context, names []string) error {
	lists := make(map[byte][]epoch.Seen, len(names))
	for _, name := range names {
		if b, ok := epoch.BucketNumber(name); ok {
			lists[b] = nil
		}
	}
	for e := range r.table.All() {
		b := byte(table.Bucket(e.ID))
		if list, ok := lists[b]; ok && e.State.LastSeen > 0 {
			lists[b] = append(list, epoch.Seen{Node: e.ID, At: e.State.LastSeen})
		}
	}
	var buckets []epoch.Bucket
	for _, b := range slices.Sorted(maps.Keys(lists)) {
		if len(lists[b]) > 0 {
			buckets = append(buckets, epoch.Bucket{Number: b, Seen: lists[b]})
		}
	}
	if len(buckets) == 0 {
		return nil
	}
	return r.history.PutSeen(ctx, buckets)
}
