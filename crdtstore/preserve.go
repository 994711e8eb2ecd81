package crdtstore

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/liveness"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const (
	// preserveTimes bounds preservation to so many times Config.OfflineAfter.
	preserveTimes = 10
	// preserveLooks is how often in OfflineAfter the silence of all nodes is looked at.
	preserveLooks = 10
	// endPreservation is what masters tell each other an operator's word by.
	endPreservation = "end-preservation/1"
)

// What happens to all of the grid when much of it is silent.
const (
	EventPreservation      = "preservation"       // it is doubted that the silent nodes are dead
	EventPreservationEnded = "preservation_ended" // it is no more
)

// Preservation is the doubt that all the nodes are dead that fell silent together: for
// the time being they are suspect and not offline. It ends when most of them are heard
// again, when an operator says so, or by EndsBy.
type Preservation struct {
	Since  time.Time `json:"since"`
	EndsBy time.Time `json:"ends_by"`
	Late   int       `json:"late"` // nodes that should have been heard again by now
	Of     int       `json:"of"`   // nodes that were alive before
}

// preserver decides about preservation, for this master and by what it hears.
type preserver struct {
	state  atomic.Pointer[preserving] // nil: nothing is preserved
	looked atomic.Pointer[time.Time]  // when the statuses were last looked at; nil: never
	ended  atomic.Pointer[ending]     // the latest ending by an operator; nil: there was none

	mu    sync.Mutex // guards what follows
	muted time.Time  // until when no other begins
	next  time.Time  // when to look again
	// newest is when any node was last seen before this run, by the records: those that
	// were seen about as late were alive then.
	newest int64
}

// preserving is a preservation under way.
type preserving struct {
	Preservation
	began, until time.Time // by the monotonic clock
	// least is until when it lasts whoever is heard: this master stood still, and could
	// not hear anybody.
	least time.Time
}

// listening is by what the silence of nodes is judged now.
func (s *Store) listening(now time.Time) record.Listening {
	l := record.Listening{For: now.Sub(s.since), OfflineAfter: s.cfg.OfflineAfter}
	if p := s.preserver.state.Load(); p != nil {
		l.Preserving, l.Preserved = true, now.Sub(p.began)
		if silence, ok := s.dead(now); ok && !now.Before(p.least) {
			l.Preserved = min(l.Preserved, silence-s.cfg.OfflineAfter)
		}
	} else if gap := s.stall(now); gap > 0 {
		l.Preserving, l.Preserved = true, gap
	}
	return l
}

// stall is for how long this master has stood still until now, as one does that is
// stopped or whose machine sleeps: its clock has gone on, and nobody was heard.
func (s *Store) stall(now time.Time) time.Duration {
	last := s.preserver.looked.Load()
	if last == nil {
		return 0
	}
	if gap := now.Sub(*last); gap > max(3*time.Second, s.cfg.OfflineAfter/4) {
		return gap
	}
	return 0
}

// recall notes which nodes were alive before this run. It is to be called when the
// records are there and before anybody is heard.
func (s *Store) recall() {
	for e := range s.table.All() {
		s.preserver.newest = max(s.preserver.newest, e.State.LastSeen)
	}
}

// silence is for how long nobody has heard a node that was not heard in this run: the
// records tell how long it was silent before, as closely as they are written.
func (s *Store) silence(now time.Time, e *table.Entry) time.Duration {
	before := time.Duration(s.preserver.newest-e.State.LastSeen)*time.Millisecond - 2*s.cfg.Checkpoint
	return now.Sub(s.since) + max(before, 0)
}

// silent counts the nodes that were alive a moment ago, or when silence began to be
// doubted, and those of them that should have been heard again by now.
func (s *Store) silent(now time.Time, doubted time.Duration) (late, alive int) {
	q := liveness.Silence{Now: now, Since: doubted, Limit: s.at(now).limit}
	dead, ended := s.dead(now)
	q.Dead = dead
	if now.Sub(s.since) > q.Window(s.cfg.OfflineAfter) {
		// What was not heard in this run was not alive, and the rest is on the board,
		// where a hundred thousand are counted in 11 milliseconds.
		return s.board.Silent(q, func(id string) bool {
			e := s.table.Get(id)
			return e != nil && !e.Removed
		})
	}
	var heard []liveness.Observation
	for e := range s.table.All() {
		if e.Removed || ended && s.board.LastHeard(e.ID).IsZero() {
			continue
		}
		v, _ := s.board.Vital(e.ID, heard)
		heard = v.Observation
		isAlive, isLate := q.Of(heard)
		if len(heard) == 0 {
			silence := s.silence(now, e)
			isAlive = silence <= q.Window(s.cfg.OfflineAfter)
			isLate = isAlive && silence > s.cfg.OfflineAfter/2
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

// preserve looks whether preservation is to begin or to end.
func (s *Store) preserve(now time.Time) {
	p := &s.preserver
	p.mu.Lock()
	defer p.mu.Unlock()
	gap := s.stall(now)
	p.looked.Store(&now)
	was := p.state.Load()
	if gap > 0 {
		began := now.Add(-gap)
		if was != nil && was.began.Before(began) {
			began = was.began
		}
		late, alive := s.silent(now, now.Sub(began))
		s.beginPreserving(now, began, now.Add(s.cfg.OfflineAfter), late, alive,
			fmt.Sprintf("this master stood still for %v; nodes that it does not hear are suspect for now", gap.Round(time.Second)))
		return
	}
	if now.Before(p.next) {
		return
	}
	p.next = now.Add(s.cfg.OfflineAfter / preserveLooks)
	var doubted time.Duration
	if was != nil {
		doubted = now.Sub(was.began)
	}
	late, alive := s.silent(now, doubted)
	switch {
	case was == nil:
		if e := p.ended.Load(); e != nil && now.Sub(e.at) < 2*s.cfg.OfflineAfter {
			return // who is about to be late may well be part of what was ended
		}
		if !now.Before(p.muted) && record.Preserve(late, alive, false) {
			s.beginPreserving(now, now, now, late, alive,
				fmt.Sprintf("%d of %d nodes are silent, which is likelier a fault of the network or of this master; they are suspect and not offline for now", late, alive))
		}
	case !now.Before(was.until):
		s.endPreserving(now, late, alive, "the time is over", "")
	case !now.Before(was.least) && !record.Preserve(late, alive, true):
		s.endPreserving(now, late, alive, "most nodes are heard again", "")
	default:
		still := *was
		still.Late, still.Of = late, alive
		p.state.Store(&still)
	}
}

// beginPreserving is called with the preserver's mutex held. Silence counts as doubtful
// from began on.
func (s *Store) beginPreserving(now, began, least time.Time, late, alive int, text string) {
	most := preserveTimes * s.cfg.OfflineAfter
	wall := s.cfg.seams.Wall().UTC().Round(0)
	s.preserver.state.Store(&preserving{
		Preservation: Preservation{Since: wall, EndsBy: wall.Add(most), Late: late, Of: alive},
		began:        began, until: now.Add(most), least: least,
	})
	s.log.Warn(text, "late", late, "of", alive, "at_most", most)
	s.logEvent(Event{Kind: GridEvent, Type: EventPreservation, Text: text})
}

// endPreserving is called with the preserver's mutex held.
func (s *Store) endPreserving(now time.Time, late, alive int, why, by string) {
	s.preserver.state.Store(nil)
	s.preserver.muted = now.Add(2 * s.cfg.OfflineAfter) // the same nodes do not begin it again
	s.log.Warn("silent nodes are offline again: "+why, "late", late, "of", alive, "by", by)
	s.logEvent(Event{Kind: GridEvent, Type: EventPreservationEnded, By: by,
		Text: fmt.Sprintf("silent nodes are offline again, for %s; %d of %d are silent", why, late, alive)})
}

// preservation returns the preservation that is under way, if one is.
func (s *Store) preservation() (Preservation, bool) {
	if p := s.preserver.state.Load(); p != nil {
		return p.Preservation, true
	}
	return Preservation{}, false
}

// EndPreservation is an operator's word that the silent nodes are dead: it ends what
// Stats.Preservation shows, on this master and on those that it can reach. by says
// who asks. It returns how many masters have heard it, those that preserve nothing
// included.
func (s *Store) EndPreservation(ctx context.Context, by string) int {
	ctx = orBackground(ctx)
	s.endHere(by, "")
	if s.cluster == nil {
		return 1
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var published atomic.Int32
	var all sync.WaitGroup
	for _, id := range s.cluster.Mesh().Peers() {
		all.Go(func() {
			conn, err := s.Streams().Dial(ctx, id.String(), endPreservation)
			if err != nil {
				return
			}
			defer conn.Close()
			deadline, _ := ctx.Deadline()
			_ = conn.SetDeadline(deadline)
			if _, err = fmt.Fprintln(conn, strings.Join(strings.Fields(by), " ")); err == nil {
				_, err = io.ReadFull(conn, make([]byte, 1))
			}
			if err == nil {
				published.Add(1)
			}
		})
	}
	all.Wait()
	return 1 + int(published.Load())
}

func (s *Store) endHere(by, through string) {
	now := time.Now()
	e := s.endNow(now, by)
	if s.end(now, e, by+through) {
		s.saveEnding(e)
	}
}

// preservationEnded takes an operator's word from another master.
func (s *Store) preservationEnded(from string, conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	by, err := bufio.NewReader(io.LimitReader(conn, 1<<10)).ReadString('\n')
	if by = strings.TrimSpace(by); err != nil || by == "" {
		by = "an operator"
	}
	s.endHere(by, " through "+from)
	_, _ = conn.Write([]byte{1})
}
