package replica

import (
	"slices"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const (
	// lonely is how long a master that began with nothing looks for others before it
	// serves what it has: they may all be gone.
	lonely = 5 * time.Second
	// seeking is how long it waits for the configured masters that it has not met yet,
	// although it holds what all others hold.
	seeking = 3 * time.Second
	// unable is how long a master that is heard, and with which no exchange ends well,
	// holds up the joining.
	unable = time.Minute
	// maxFailed is how many exchanges with a master have to fail at least until then.
	maxFailed = 3
	// maxSources bounds the masters that are remembered while joining.
	maxSources = 256
)

// Joining is how far a master that began with nothing is with holding what the others
// hold.
type Joining struct {
	Of      int      // nodes, the most that another master says it holds
	Missing []string // ids of masters whose records are not all here yet, ascending
	Damaged bool     // it began with a damaged history rather than with nothing
}

// Sought is what has become of the configured masters.
type Sought int

// What may have become of them.
const (
	SomeMissing Sought = iota // not all were met
	AllMet
	OnlySelf // the list names nobody but this master
	Replaced // one lives and refuses this master, for it knows another one in its place
)

// joining decides when a master that began with nothing is whole: when it holds what
// each master that it can reach held at some moment since it began. Such a moment ends
// an exchange with that master: a comparison of states that ran to its end, or a pulse
// with this master's own digest. A master waits for exchanges that it runs itself, and
// never for another to be whole, so no masters wait for each other; see "Joining" in
// docs/design/replication.md.
type joining struct {
	grid Grid

	mu      sync.Mutex // guards what follows
	active  bool
	damaged bool
	began   time.Time
	sources map[string]*source
}

// source is another master whose records are to be had.
type source struct {
	first, heard time.Time // when it was first and last heard
	nodes        int
	holds        []string // masters whose records it has, as it said last
	pulled       bool     // its blocks were fetched, as far as it gives them
	exchanged    bool     // its records are here, as they were at some moment
	held         []string // holds, when the exchange began
	asked        []string // holds, when the exchange that runs now began
	failed       int      // exchanges in a row
}

// BeginJoining has this master join: it began with nothing, or what it began with is
// damaged. To be called before anything is heard.
func (r *Replica) BeginJoining(damaged bool) {
	j := &r.joining
	j.mu.Lock()
	defer j.mu.Unlock()
	j.active, j.damaged, j.began, j.sources = true, damaged, r.opts.Now(), map[string]*source{}
}

// Met notes that streams to a master can be opened from now on.
func (r *Replica) Met(id string) {
	j := &r.joining
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.active {
		j.source(id, r.opts.Now())
	}
}

// Comparing notes that a comparison of states with another master begins.
func (r *Replica) Comparing(with string) {
	j := &r.joining
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.sources[with]; s != nil {
		s.asked = s.holds
	}
}

// EndJoining ends the joining when this master is whole, and reports whether it just
// did, and whether any other master was reached.
func (r *Replica) EndJoining(peers Sought) (ended, reached bool) {
	j := &r.joining
	j.mu.Lock()
	defer j.mu.Unlock()
	now := r.opts.Now()
	since := now.Sub(j.began)
	if !j.active || (peers == SomeMissing || peers == Replaced) && since < seeking || len(j.missing(now)) > 0 {
		return false, false
	}
	for _, s := range j.sources {
		reached = reached || s.exchanged
	}
	if !reached && (j.damaged || peers == Replaced || since < lonely && peers != OnlySelf) {
		return false, false
	}
	j.active, j.sources = false, nil
	return true, reached
}

// Joining returns how far this master is, and whether it is joining at all.
func (r *Replica) Joining() (Joining, bool) {
	j := &r.joining
	j.mu.Lock()
	defer j.mu.Unlock()
	out := Joining{Damaged: j.damaged}
	if !j.active {
		return out, false
	}
	out.Missing = j.missing(r.opts.Now())
	for _, s := range j.sources {
		out.Of = max(out.Of, s.nodes)
	}
	return out, true
}

// Holds returns the masters whose records this master has had at some moment since it
// began, ascending: what a joining master says of itself.
func (r *Replica) Holds() []string {
	j := &r.joining
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.holds()
}

// joiningStep is what a joining master does about another: it fetches its blocks, as
// long as that brings any, and compares states then.
func (r *Replica) joiningStep(id string, step Step) Step {
	j := &r.joining
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.active || !j.wants(id, r.opts.Now()) {
		return step
	}
	if step == Pull && !j.sources[id].pulled {
		return Pull
	}
	return Compare
}

// observe takes what another master says of itself.
func (j *joining) observe(now time.Time, id string, s Summary, digest record.Digest) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.active {
		return
	}
	if from := j.source(id, now); from != nil {
		from.nodes, from.holds = s.Nodes, s.Holds
		if s.Digest == digest {
			from.exchanged, from.held = true, s.Holds
		}
	}
}

// source returns what is remembered of a master that was heard just now, nil where
// there is no room. It is called with mu held, as are those below.
func (j *joining) source(id string, now time.Time) *source {
	s := j.sources[id]
	if s == nil && len(j.sources) < maxSources {
		s = &source{first: now}
		j.sources[id] = s
	}
	if s != nil {
		s.heard = now
	}
	return s
}

// pulled notes the end of a transfer of blocks, and reports whether to go on with states:
// a transfer that broke off with something is taken up again by the next pulse.
func (j *joining) pulled(from string, blocks int, err error) (done bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.sources[from]; s != nil && (err == nil || blocks == 0) {
		s.pulled, done = true, true
	}
	return done
}

// compared notes the end of a comparison of states.
func (j *joining) compared(with string, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch s := j.sources[with]; {
	case s == nil:
	case err != nil:
		s.failed++
	default:
		s.exchanged, s.held, s.failed = true, s.asked, 0
	}
}

// left forgets a master that has gone on purpose.
func (j *joining) left(id string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	delete(j.sources, id)
}

// holds is every master with which there was an exchange, and those whose records it
// had by then.
func (j *joining) holds() []string {
	var out []string
	for id, s := range j.sources {
		if s.exchanged {
			out = append(append(out, id), s.held...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// missing returns the masters that are heard and whose records are not all here. With
// one to which streams can be opened there has to be an exchange; of one that is heard
// by way of others it is enough that they had its records.
func (j *joining) missing(now time.Time) []string {
	holds := j.holds()
	var out []string
	for id, s := range j.sources {
		if s.exchanged || now.Sub(s.heard) > membership.SuspectAfter {
			continue
		}
		if now.Sub(s.first) > unable && (s.failed >= maxFailed || !j.grid.Direct(id)) {
			continue
		}
		if _, has := slices.BinarySearch(holds, id); !has || j.grid.Direct(id) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// wants reports whether an exchange with a master is of use: for its own records, or
// for those that it has of a master that cannot be asked.
func (j *joining) wants(id string, now time.Time) bool {
	s := j.sources[id]
	if s == nil || !j.grid.Direct(id) {
		return false
	}
	return !s.exchanged || slices.ContainsFunc(j.missing(now), func(m string) bool {
		return slices.Contains(s.holds, m)
	})
}
