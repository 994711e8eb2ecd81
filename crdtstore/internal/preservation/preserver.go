package preservation

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const (
	// most bounds preservation to so many times Config.OfflineAfter.
	most = 10
	// looks is how often in OfflineAfter the silence of all nodes is looked at.
	looks = 10
)

// Config is what a [Preserver] needs.
type Config struct {
	// Self is this master's id.
	Self string
	// OfflineAfter is how long a node may be silent, by this master's limit.
	OfflineAfter time.Duration
	// Checkpoint is how often the records are told when nodes were last seen.
	Checkpoint time.Duration
	// Began is when this run began to listen, by the monotonic clock.
	Began time.Time
	// Wall is the wall clock, for stamps and for what is shown and kept.
	Wall func() time.Time
	// Path is the file of the latest ending.
	Path      string
	Logger    *slog.Logger
	Table     *table.Table
	Board     *liveness.Board
	Masters   Masters
	Publisher Publisher
}

// Masters is what a preserver asks about masters.
type Masters interface {
	// Observers returns all masters with the limits by which they judge silence.
	Observers(now time.Time) []membership.Observer
}

// Publisher takes what becomes of preservation. It is called with the lock of the preserver
// held, so that events are in order, and must not wait.
type Publisher interface {
	Happened(e Event)
}

// Event is that preservation begins or ends.
type Event struct {
	Type string // EventBegan or EventEnded
	By   string // who ended it; empty: nobody did
	Text string // for people
}

// The types of events.
const (
	EventBegan = "preservation"
	EventEnded = "preservation_ended"
)

// State is a preservation under way, for people.
type State struct {
	Since, EndsBy time.Time // by the wall clock
	Late          int       // nodes that should have been heard again by now
	Of            int       // nodes that were alive before
}

// Preserver decides about preservation, for this master and by what it hears. Its methods
// may be called concurrently. Only Load, End and what Learn returns wait for the disk.
type Preserver struct {
	cfg    Config
	state  atomic.Pointer[preserving] // nil: nothing is preserved
	looked atomic.Pointer[time.Time]  // when the statuses were last looked at; nil: never
	ended  atomic.Pointer[ending]     // the latest ending by an operator; nil: there was none
	// newest is when any node was last seen before this run, by the records, in Unix
	// milliseconds: those that were seen about as late were alive then. Load sets it.
	newest int64

	mu    sync.Mutex // held while preservation begins or ends and that is published; guards what follows
	muted time.Time  // until when no other begins
	next  time.Time  // when to look again
}

// preserving is a preservation under way.
type preserving struct {
	State
	began, until time.Time // by the monotonic clock
	// least is until when it lasts whoever is heard: this master stood still, and could
	// not hear anybody.
	least time.Time
}

// New returns a preserver that preserves nothing.
func New(cfg Config) *Preserver { return &Preserver{cfg: cfg} }

// Load takes what the records and the file hold of earlier runs. It is to be called when
// the records are there, and before anybody is heard and any other method is called. It
// fails on a file of a newer version.
func (p *Preserver) Load() error {
	for e := range p.cfg.Table.All() {
		p.newest = max(p.newest, e.State.LastSeen)
	}
	return p.loadEnding()
}

// Listening is by what the silence of nodes is judged now: of those that were heard in this
// run, and of those that were not, which are dead by the ending of an operator that counts.
func (p *Preserver) Listening(now time.Time) (heard, unheard record.Listening) {
	l := record.Listening{For: now.Sub(p.cfg.Began), OfflineAfter: p.cfg.OfflineAfter}
	silence, ended := p.dead(now)
	if was := p.state.Load(); was != nil {
		l.Preserving, l.Preserved = true, now.Sub(was.began)
		if ended && !now.Before(was.least) {
			l.Preserved = min(l.Preserved, silence-p.cfg.OfflineAfter)
		}
	} else if gap := p.stall(now); gap > 0 {
		l.Preserving, l.Preserved = true, gap
	}
	heard, unheard = l, l
	unheard.Preserving = l.Preserving && !ended
	return heard, unheard
}

// stall is for how long this master has stood still until now, as one does that is
// stopped or whose machine sleeps: its clock has gone on, and nobody was heard.
func (p *Preserver) stall(now time.Time) time.Duration {
	last := p.looked.Load()
	if last == nil {
		return 0
	}
	if gap := now.Sub(*last); gap > max(3*time.Second, p.cfg.OfflineAfter/4) {
		return gap
	}
	return 0
}

// silence is for how long nobody has heard a node that was not heard in this run: the
// records tell how long it was silent before, as closely as they are written.
func (p *Preserver) silence(now time.Time, e *table.Entry) time.Duration {
	before := time.Duration(p.newest-e.State.LastSeen)*time.Millisecond - 2*p.cfg.Checkpoint
	return now.Sub(p.cfg.Began) + max(before, 0)
}

// limits returns how long each master lets a node be silent.
func (p *Preserver) limits(now time.Time) func(master string) time.Duration {
	observers := p.cfg.Masters.Observers(now)
	return func(master string) time.Duration {
		for i := range observers {
			if observers[i].ID == master {
				return observers[i].OfflineAfter
			}
		}
		return p.cfg.OfflineAfter
	}
}

// silent counts the nodes that were alive a moment ago, or when silence began to be
// doubted, and those of them that should have been heard again by now.
func (p *Preserver) silent(now time.Time, doubted time.Duration) (late, alive int) {
	q := liveness.Silence{Now: now, Since: doubted, Limit: p.limits(now)}
	dead, ended := p.dead(now)
	q.Dead = dead
	if now.Sub(p.cfg.Began) > q.Window(p.cfg.OfflineAfter) {
		// What was not heard in this run was not alive, and the rest is on the board,
		// where a hundred thousand are counted in 11 milliseconds.
		return p.cfg.Board.Silent(q, func(id string) bool {
			e := p.cfg.Table.Get(id)
			return e != nil && !e.Removed
		})
	}
	var heard []liveness.Observation
	for e := range p.cfg.Table.All() {
		if e.Removed || ended && p.cfg.Board.LastHeard(e.ID).IsZero() {
			continue
		}
		v, _ := p.cfg.Board.Vital(e.ID, heard)
		heard = v.Observation
		isAlive, isLate := q.Of(heard)
		if len(heard) == 0 {
			silence := p.silence(now, e)
			isAlive = silence <= q.Window(p.cfg.OfflineAfter)
			isLate = isAlive && silence > p.cfg.OfflineAfter/2
		}
		if isAlive {
			alive++
		}
		if isLate {
			late++
		}
	}
	return late, alive
}

// Look has preservation begin or end where it is time. It is to be called every second or
// so: that it was not is how a master knows that it stood still.
func (p *Preserver) Look(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	gap := p.stall(now)
	p.looked.Store(&now)
	was := p.state.Load()
	if gap > 0 {
		began := now.Add(-gap)
		if was != nil && was.began.Before(began) {
			began = was.began
		}
		late, alive := p.silent(now, now.Sub(began))
		p.begin(now, began, now.Add(p.cfg.OfflineAfter), late, alive,
			fmt.Sprintf("this master stood still for %v; nodes that it does not hear are suspect for now", gap.Round(time.Second)))
		return
	}
	if now.Before(p.next) {
		return
	}
	p.next = now.Add(p.cfg.OfflineAfter / looks)
	var doubted time.Duration
	if was != nil {
		doubted = now.Sub(was.began)
	}
	late, alive := p.silent(now, doubted)
	switch {
	case was == nil:
		if e := p.ended.Load(); e != nil && now.Sub(e.at) < 2*p.cfg.OfflineAfter {
			return // who is about to be late may well be part of what was ended
		}
		if !now.Before(p.muted) && record.Preserve(late, alive, false) {
			p.begin(now, now, now, late, alive,
				fmt.Sprintf("%d of %d nodes are silent, which is likelier a fault of the network or of this master; they are suspect and not offline for now", late, alive))
		}
	case !now.Before(was.until):
		p.end(now, late, alive, "the time is over", "")
	case !now.Before(was.least) && !record.Preserve(late, alive, true):
		p.end(now, late, alive, "most nodes are heard again", "")
	default:
		still := *was
		still.Late, still.Of = late, alive
		p.state.Store(&still)
	}
}

// begin has silence count as doubtful from began on. The caller holds mu.
func (p *Preserver) begin(now, began, least time.Time, late, alive int, text string) {
	atMost := most * p.cfg.OfflineAfter
	wall := p.cfg.Wall().UTC().Round(0)
	p.state.Store(&preserving{
		State: State{Since: wall, EndsBy: wall.Add(atMost), Late: late, Of: alive},
		began: began, until: now.Add(atMost), least: least,
	})
	p.cfg.Logger.Warn(text, "late", late, "of", alive, "at_most", atMost)
	p.cfg.Publisher.Happened(Event{Type: EventBegan, Text: text})
}

// end has silent nodes be offline again. The caller holds mu.
func (p *Preserver) end(now time.Time, late, alive int, why, by string) {
	p.state.Store(nil)
	p.muted = now.Add(2 * p.cfg.OfflineAfter) // the same nodes do not begin it again
	p.cfg.Logger.Warn("silent nodes are offline again: "+why, "late", late, "of", alive, "by", by)
	p.cfg.Publisher.Happened(Event{Type: EventEnded, By: by,
		Text: fmt.Sprintf("silent nodes are offline again, for %s; %d of %d are silent", why, late, alive)})
}

// Current returns the preservation that is under way, if one is.
func (p *Preserver) Current() (State, bool) {
	if was := p.state.Load(); was != nil {
		return was.State, true
	}
	return State{}, false
}
