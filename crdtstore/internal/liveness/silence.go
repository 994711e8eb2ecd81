package liveness

import "time"

// Silence tells which nodes are silent at a moment. Each master's observation counts by that
// master's own limit: what is late to a strict one may be in time to the one that hears
// the node.
type Silence struct {
	Now   time.Time
	Since time.Duration                     // for how long silence is doubted already
	Limit func(master string) time.Duration // the offline-after of a master
	// Dead is from how long a silence on a node is known to be dead, and does not count as
	// one that was alive; 0: of none that is known.
	Dead time.Duration

	last  string // the master that was asked for last: nodes are many, masters few
	limit time.Duration
}

func (q *Silence) limitOf(master string) time.Duration {
	if q.limit == 0 || q.last != master {
		q.last, q.limit = master, q.Limit(master)
	}
	return q.limit
}

// Of reports whether a node was alive a moment ago, or when silence began to be doubted,
// and whether it should have been heard again by now, half of the limit being over.
func (q *Silence) Of(observations []Observation) (alive, late bool) {
	late = true
	for i := range observations {
		age, limit := q.Now.Sub(observations[i].At), q.limitOf(observations[i].Master)
		if age <= q.Window(limit) {
			alive = true
		}
		if age <= limit/2 {
			late = false
		}
	}
	return alive, alive && late
}

// Window is how long ago a node may have been heard, by a limit, to count as one that was
// alive.
func (q *Silence) Window(limit time.Duration) time.Duration {
	window := max(2*limit, limit+q.Since)
	if q.Dead > 0 {
		window = min(window, q.Dead)
	}
	return window
}

// Silent counts the nodes that were alive a moment ago, and those of them that should have
// been heard again by now. Late ones that are not missed do not count.
func (b *Board) Silent(q Silence, missed func(id string) bool) (late, alive int) {
	for i := range b.part {
		s := &b.part[i]
		s.mu.Lock()
		for _, l := range s.lives {
			switch is, isLate := q.Of(l.observations); {
			case isLate && missed(l.id):
				alive++
				late++
			case is && !isLate:
				alive++
			}
		}
		s.mu.Unlock()
	}
	return late, alive
}
