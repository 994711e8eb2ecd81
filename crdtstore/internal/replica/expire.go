package replica

import (
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// keepFactor is how many times longer than retention the masters remember that a
// node was removed. A master that was cut off for less cannot bring it back.
const keepFactor = 10

// maxExpireEvery bounds how often it is looked for nodes that have been silent for
// longer than retention, and after which time of running at the earliest: nodes
// that were silent only because all masters were down come back first.
const maxExpireEvery = time.Hour

// forgetEvery is how often it is looked again for what the cutoff drops.
const forgetEvery = time.Minute

func (r *Replica) keep() int64 { return keepFactor * r.opts.Retention.Milliseconds() }

// expire removes the nodes that have been silent for longer than retention, of
// those that this master is responsible for. What time decides is decided once and
// written down: it becomes a removal like an operator's.
func (r *Replica) expire() error {
	now, every := r.opts.Now(), min(maxExpireEvery, r.opts.Retention/10)
	if now.Sub(r.began) < every || now.Sub(r.expired) < every || r.Health() != nil {
		return nil
	}
	r.expired = now
	living, clock := r.living(), r.earliest()
	for e := range r.table.All() {
		if e.Removed {
			continue
		}
		silent := func(s record.State) bool {
			seen := max(s.Seen(), r.opts.Grid.Heard(e.ID))
			return clock-seen > r.opts.Retention.Milliseconds()
		}
		if !silent(e.State) || membership.Rendezvous(e.ID, living) != r.opts.Self {
			continue
		}
		r.log.Info("node expires", "node", e.ID, "silent since", time.UnixMilli(max(e.State.Seen(), r.opts.Grid.Heard(e.ID))))
		_, err := r.Begin(e.ID, func(known record.State) (record.State, error) {
			if known.Removed() || !silent(known) { // it has spoken meanwhile
				return record.State{}, nil
			}
			return known.Remove(r.Wall(), r.opts.Self, "", record.ReasonExpired), nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// The cutoff is the moment before which nothing is remembered: a state of which
// nobody has said anything since is dropped by all masters, and not taken again.
// All that is so old is removed nodes, for what is silent for longer than
// retention expires. It stands in the epoch's header and only grows, so all drop
// the same. A cutoff that one of the clocks around contradicts has no effect: then
// a clock is wrong, and what it would drop may be needed.

// nextCutoff returns the cutoff of an epoch that this master opens. It stays where
// it is as long as one of the known masters was not heard: its clock is needed.
func (r *Replica) nextCutoff() int64 {
	if !r.met(r.opts.Grid.IDs()) {
		return r.history.Cutoff()
	}
	return max(r.history.Cutoff(), r.earliest()-r.keep())
}

// contradicted reports whether one of the clocks around says that it is too early
// for a cutoff.
func (r *Replica) contradicted(cutoff int64) bool { return cutoff > r.earliest()-r.keep()/2 }

// forget drops what the cutoff says.
func (r *Replica) forget() {
	c := r.history.Cutoff()
	if r.contradicted(c) {
		c = 0
	}
	// What is older than that is not taken any more, so looking once is enough, but
	// for what came in just then.
	now := int64(r.opts.Now().Sub(r.began))
	if was := r.floor.Swap(c); c == 0 || c == was && now-r.forgot.Load() < int64(forgetEvery) {
		return
	}
	r.forgot.Store(now)
	for e := range r.table.All() {
		if e.State.Newest() < c && r.table.Drop(e) {
			r.opts.Publisher.Changed(e.ID)
		}
	}
}

// Wall is the time to stamp what is said now, in Unix milliseconds. A clock that is
// far behind does not make what is said older than what is dropped.
func (r *Replica) Wall() int64 { return max(r.opts.Wall(), r.floor.Load()) }

// forgotten reports whether a state is too old to be taken: nothing is known of
// the node, and all that it says is from before the cutoff.
func (r *Replica) forgotten(node string, st record.State) bool {
	return st.Newest() < r.floor.Load() && r.table.Get(node) == nil
}
