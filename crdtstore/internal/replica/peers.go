package replica

import (
	"context"
	"sync"
	"time"

	"github.com/ipfs/go-cid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const (
	// compareAfter is how long another master may hold something else before states are
	// compared. Until then the history is given time to do it.
	compareAfter = 3 * time.Second
	// fetchGrace is how long a master may fetch blocks until states are compared with it
	// all the same: what it is about to get need not be sent twice, and what it learned
	// from states it would write once more.
	fetchGrace = time.Minute
	// maxBroken is how many transfers from one master may break off with nothing,
	// one after the other, until states are compared instead.
	maxBroken = 3
)

// Summary is what another master says about once a second of what it holds.
type Summary struct {
	Epoch  uint64
	Cutoff int64 // see expire.go
	Wall   int64 // its wall clock, Unix milliseconds
	Digest record.Digest
	Heads  []cid.Cid
	// Fetching: blocks of others are on their way to it.
	Fetching bool
	Nodes    int
	// Holds are the ids of the masters whose records it has.
	Holds []string
}

// Step is what to do about another master's summary.
type Step int

// What there is to do.
const (
	Rest    Step = iota
	Pull         // fetch the blocks that it has and this one has not
	Compare      // compare states with it
)

// Agreement is how far another master's records and ours are alike.
type Agreement struct {
	InSync  bool      // as of its last summary
	Equal   time.Time // when they were last, or when it was first heard
	Differs int       // nodes that differed when states were last compared
}

// peer is another master, as far as the protocol cares.
type peer struct {
	Agreement
	heard time.Time
	wall  int64 // its clock when it was heard
	// broken counts the transfers of blocks in a row that broke off with nothing.
	broken int
}

// peers are the other masters that were heard in this run.
type peers struct {
	mu sync.Mutex // guards what follows
	of map[string]*peer
}

// Observe takes another master's summary and says what to do about it. It may wait for the
// disk; who must not calls Note and Next instead.
func (r *Replica) Observe(ctx context.Context, from string, s Summary) (Step, error) {
	return r.Next(ctx, from, s, r.Note(from, s))
}

// Note remembers another master's summary, and returns for how long that master has held
// something else than this one. It never waits for the disk.
func (r *Replica) Note(from string, s Summary) (apart time.Duration) {
	now := r.opts.Now()
	digest, _ := r.table.Digest()
	r.joining.observe(now, from, s, digest)
	return r.peers.observe(now, from, s, digest)
}

// Next says what to do about another master's summary, with what Note returned of it.
// It follows the other to its epoch, so it may wait for the disk. Where that fails there is
// an error and, after a while, a step all the same.
func (r *Replica) Next(ctx context.Context, from string, s Summary, apart time.Duration) (Step, error) {
	step, err := r.next(ctx, from, s, apart)
	if err != nil {
		return step, err
	}
	return r.joiningStep(from, step), nil
}

// next is what a master that is whole does about another, of which the digest has
// differed for a while.
func (r *Replica) next(ctx context.Context, from string, s Summary, apart time.Duration) (Step, error) {
	same, err := r.Follow(ctx, from, s.Epoch, s.Cutoff)
	if err != nil && apart > compareAfter {
		return Compare, err // a disk without room for the next epoch keeps nobody from learning
	}
	if !same {
		return Rest, err
	}
	lacks := false
	for _, h := range s.Heads {
		has, err := r.history.Has(ctx, h)
		if err != nil {
			return Rest, err
		}
		lacks = lacks || !has
	}
	// All blocks it has are here, or it does not give them, for its disk has lost
	// some. If it holds something else all the same, and not only for the moment that
	// things take on their way, compare states.
	switch {
	case lacks && !(apart > compareAfter && r.peers.stuck(from)):
		return Pull, nil
	case apart > compareAfter && (!s.Fetching || apart > fetchGrace):
		return Compare, nil
	}
	return Rest, nil
}

// Pulled notes how a transfer of blocks from another master went, and says what to do
// about that master then.
func (r *Replica) Pulled(from string, blocks int, err error) Step {
	r.peers.pulled(from, blocks, err)
	if !r.joining.pulled(from, blocks, err) {
		return Rest
	}
	return r.joiningStep(from, Rest)
}

func (p *peers) pulled(from string, blocks int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch known := p.of[from]; {
	case known == nil:
	case err == nil || blocks > 0:
		known.broken = 0
	default:
		known.broken++
	}
}

// stuck reports whether a master does not give the blocks that it says it has. Then
// it is asked for them anew before it is called stuck again.
func (p *peers) stuck(id string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.of[id] // nil: it was forgotten meanwhile
	if known == nil || known.broken < maxBroken {
		return false
	}
	known.broken = 0
	return true
}

// observe notes a summary and returns for how long that master has held something
// else than this one.
func (p *peers) observe(now time.Time, id string, s Summary, digest record.Digest) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.of[id]
	if known == nil {
		known = &peer{Agreement: Agreement{Equal: now}}
		if p.of == nil {
			p.of = map[string]*peer{}
		}
		p.of[id] = known
	}
	known.heard, known.wall = now, s.Wall
	if known.InSync = s.Digest == digest; known.InSync {
		known.Equal, known.Differs = now, 0
	}
	return now.Sub(known.Equal)
}

// Compared notes how a comparison of states with another master ended, and how many
// nodes it found to differ.
func (r *Replica) Compared(with string, differ int, err error) {
	r.joining.compared(with, err)
	r.peers.mu.Lock()
	defer r.peers.mu.Unlock()
	if p := r.peers.of[with]; p != nil {
		p.Differs = differ
	}
}

// Left notes that another master has gone on purpose.
func (r *Replica) Left(id string) { r.joining.left(id) }

// Forget drops a master that is gone for good: its clock does not count any more.
func (r *Replica) Forget(id string) {
	r.peers.mu.Lock()
	defer r.peers.mu.Unlock()
	delete(r.peers.of, id)
}

// Agreement returns how far another master's records and ours are alike; the zero
// Agreement for one that was not heard in this run.
func (r *Replica) Agreement(with string) Agreement {
	r.peers.mu.Lock()
	defer r.peers.mu.Unlock()
	if p := r.peers.of[with]; p != nil {
		return p.Agreement
	}
	return Agreement{}
}

// living returns the masters that are alive, this one first.
func (r *Replica) living() []string {
	return append([]string{r.opts.Self}, r.opts.Grid.Alive(r.opts.Now())...)
}

// earliest returns what the clock that is most behind says now, of this master's
// and those of the masters that were heard in this run and are not forgotten. A clock that was read
// earlier is taken to have run on since.
func (r *Replica) earliest() int64 {
	now, least := r.opts.Now(), r.opts.Wall()
	r.peers.mu.Lock()
	defer r.peers.mu.Unlock()
	for _, p := range r.peers.of {
		least = min(least, p.wall+now.Sub(p.heard).Milliseconds())
	}
	return least
}

// met reports whether each of the masters was heard in this run.
func (r *Replica) met(masters []string) bool {
	r.peers.mu.Lock()
	defer r.peers.mu.Unlock()
	for _, id := range masters {
		if r.peers.of[id] == nil && id != r.opts.Self {
			return false
		}
	}
	return true
}
