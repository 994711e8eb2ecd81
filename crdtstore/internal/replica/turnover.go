package replica

import (
	"context"
	"errors"
	"iter"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// An epoch that was just opened holds what the records take, and is cut when so
// much was written to it as they take 2.2 times: later, and while it is copied into
// the next, both would take too much disk; earlier, and most of what is written is
// copies. One that is old is cut where half as much again as the records take was
// written to it.
const (
	epochGrowth    = 2.2
	epochGrowthOld = 1.5
)

// damagePause is the least time between two epochs that are opened because the one
// before was damaged: a disk that spoils all that it is given must not have the whole
// grid write its records again and again.
const damagePause = 10 * time.Minute

// Tick does what the passing of time asks for; it is to be called every few
// seconds. It keeps the history in proportion to the records: it opens a new epoch
// when the present one has grown too much, sees that the new one holds everything
// that this master knows, and then deletes the old ones. And it lets nodes expire.
// See docs/design/history.md.
func (r *Replica) Tick(ctx context.Context) error {
	r.forget()
	health := r.history.Health()
	if health == nil {
		if err := r.expire(); err != nil {
			return err
		}
	}
	switch h := r.history.Stats(); {
	case errors.Is(health, epoch.ErrDamaged):
		now := r.opts.Now()
		if !r.damaged.IsZero() && now.Sub(r.damaged) < damagePause {
			return nil
		}
		r.damaged = now
		r.log.Error("the history is damaged, writing the records to a new epoch", "epoch", h.Number+1, "err", health)
		return r.adopt(ctx, h.Number+1, r.history.Cutoff())
	case health != nil: // nothing can be written now
		return nil
	case r.lost():
		return r.complete(ctx)
	case h.Old > 0:
		return r.retire(ctx)
	case h.Large:
		r.log.Warn("the history has a block that is too large to be sent, writing the records to a new epoch", "epoch", h.Number+1)
		return r.adopt(ctx, h.Number+1, r.history.Cutoff())
	case r.outgrown(h.Written, r.opts.Now().Sub(h.Created)):
		r.log.Info("opening a new epoch", "epoch", h.Number+1, "written", h.Written, "records", r.table.Bytes(), "disk", h.Bytes)
		return r.adopt(ctx, h.Number+1, r.nextCutoff())
	}
	return nil
}

// lost reports whether the disk may have lost something that the table holds: the
// history had to be opened again, and was not looked through since.
func (r *Replica) lost() bool { return r.history.Reopened() != r.reopenedWhenComplete.Load() }

// complete asserts what the disk has lost of all that this master knows, after the
// history had to be opened again: what came from other masters, and what was refused
// when the disk had failed. What was acknowledged it has.
func (r *Replica) complete(ctx context.Context) error {
	r.adopting.Lock()
	defer r.adopting.Unlock()
	opened := r.history.Reopened()
	missing, err := r.history.Missing(ctx, r.states())
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		r.log.Info("asserting records that the disk has lost", "records", len(missing))
		r.Mark(missing...) // looked for again at the next tick
		return nil
	}
	r.reopenedWhenComplete.Store(opened)
	return nil
}

// outgrown decides whether an epoch to which so many bytes were written has to end.
func (r *Replica) outgrown(written uint64, age time.Duration) bool {
	growth := float64(written) / float64(max(r.table.Bytes(), 1))
	return growth > epochGrowth && written >= uint64(r.opts.EpochBytes) ||
		growth > epochGrowthOld && age > r.opts.EpochAge
}

// Follow adopts the epoch that another master is in, if it is greater than ours.
// It reports whether both are in the same: blocks of another epoch are of no use,
// and their author asserts what is missing when it comes to ours.
func (r *Replica) Follow(ctx context.Context, from string, number uint64, cutoff int64) (bool, error) {
	if r.contradicted(cutoff) {
		cutoff = 0
	}
	if number > r.history.Number() || number == r.history.Number() && cutoff > r.history.Cutoff() {
		r.log.Info("adopting the epoch of another master", "epoch", number, "master", from)
		if err := r.adopt(ctx, number, cutoff); err != nil {
			return false, err
		}
	}
	return number == r.history.Number(), nil
}

// adopt moves to a greater epoch, by our own decision or because another master
// is there, and asserts in it the records that this master is responsible for.
func (r *Replica) adopt(ctx context.Context, number uint64, cutoff int64) error {
	r.adopting.Lock()
	defer r.adopting.Unlock()
	before := r.history.Number()
	if err := r.history.Adopt(ctx, number, cutoff); err != nil {
		return err
	}
	r.forget()
	if number <= before {
		return nil
	}
	r.adopted = r.opts.Now()
	living := r.living()
	var mine []string
	for e := range r.table.All() {
		if membership.Rendezvous(e.ID, living) == r.opts.Self {
			mine = append(mine, e.ID)
		}
	}
	r.Mark(mine...)
	return nil
}

// Responsible returns the master that does for a node what need be done only once, out of
// those that live as this one sees it: its record in a new epoch, its last sign of life on
// disk, its expiry. While masters see different ones alive they may name different ones,
// which does no harm.
func (r *Replica) Responsible(node string) string { return membership.Rendezvous(node, r.living()) }

// retire asserts what the new epoch still lacks of all that this master knows,
// and deletes the old epochs when it lacks nothing.
func (r *Replica) retire(ctx context.Context) error {
	r.adopting.Lock()
	defer r.adopting.Unlock()
	if len(r.living()) > 1 && r.opts.Now().Sub(r.adopted) < r.opts.AssertDelay {
		return nil
	}
	missing, err := r.history.Missing(ctx, r.states())
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		r.log.Info("asserting records that the new epoch lacks", "epoch", r.history.Number(), "records", len(missing))
		r.Mark(missing...) // looked for again at the next tick
		return nil
	}
	if err := r.history.Retire(ctx); err != nil {
		return err
	}
	r.log.Info("the new epoch holds everything, old ones are deleted", "epoch", r.history.Number())
	return nil
}

func (r *Replica) states() iter.Seq2[string, record.State] {
	return func(yield func(string, record.State) bool) {
		for e := range r.table.All() {
			if !yield(e.ID, e.State) {
				return
			}
		}
	}
}
