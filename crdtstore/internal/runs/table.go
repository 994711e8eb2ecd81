package runs

import (
	"slices"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
)

const (
	// attempts is how long after its last sign of life a refused run is remembered. It
	// asks to be admitted every second or so.
	attempts = 10 * time.Second
	// supersede is how long a run has been silent before one that began earlier, by the
	// clock of its host, takes its place.
	supersede = 3 * time.Second
	// maxLives bounds the runs of one master that are remembered, maxMasters the masters.
	maxLives   = 8
	maxMasters = 1024
)

// Pulse is what a pulse says of the run of its sender.
type Pulse struct {
	Run  string // sorts behind those of earlier runs; empty: an earlier version, which does not say
	Seq  uint64 // its number in that run
	Echo uint64 // the number of the last pulse of this run of ours that the sender had; 0: none
}

// Verdict is what to make of a pulse.
type Verdict int

// The verdicts.
const (
	Current Verdict = iota // of the run that lives now
	Late                   // of a run that has ended, or overtaken by a later pulse
	Refused                // of a run that has the identity of another one
)

// Collision is that two runs of one master live at the same time, so two processes have
// one identity.
type Collision struct {
	Master  string
	Kept    string // the run that counts: the one that began first, of those that have not yielded
	Refused string // the run that does not
	Since   time.Time
}

// Table knows the runs of all masters. Its methods may be called concurrently.
type Table struct {
	mu   sync.Mutex // guards what follows
	sent uint64     // number of the last pulse of our own
	of   map[string]*master
}

type master struct {
	current string
	lives   []*life
	since   time.Time // of the collision; zero: there is none
}

// life is one run of a master.
type life struct {
	run     string
	first   uint64    // our last pulse when it was first heard
	seq     uint64    // of its last pulse
	at      time.Time // when that was heard, or it was met
	left    bool      // it said that it ends
	refused bool      // it lives beside the one that counts
	yielded bool      // it says so itself
	// after has, for other runs, our last pulse when a pulse of this run came that was
	// certainly sent after the other one lived.
	after map[string]uint64
}

// New returns an empty table.
func New() *Table { return &Table{of: map[string]*master{}} }

// Next returns the number of our next pulse.
func (t *Table) Next() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent++
	return t.sent
}

// Observe says what to make of a pulse of a master, and whether it shows a collision that
// was not known. Two runs collide when a pulse of one was sent between two of the other:
// a run ends before the next one of the same directory begins, so with a restart, pulses
// that are late included, that cannot be.
func (t *Table) Observe(now time.Time, id string, p Pulse) (Verdict, *Collision) {
	if p.Run == "" {
		return Current, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.master(id)
	if m == nil {
		return Current, nil
	}
	l := m.life(now, p.Run, t.sent)
	if l.left || p.Seq <= l.seq {
		return Late, nil
	}
	l.seq, l.at = p.Seq, now
	var news *Collision
	for _, o := range m.lives {
		if o == l {
			continue
		}
		if between, ok := o.after[l.run]; ok && p.Echo > between && !o.left {
			if c := m.clash(now, id, l, o); c != nil {
				news = c
			}
		}
		if _, ok := l.after[o.run]; !ok && p.Echo > o.first {
			l.after[o.run] = t.sent
		}
	}
	switch cur := m.find(m.current); {
	case l.refused:
		return Refused, news
	case l == cur:
	case cur == nil, cur.refused, cur.left, l.run > cur.run, p.Echo > l.first && now.Sub(cur.at) > supersede:
		m.current = l.run
	default:
		return Late, news
	}
	return Current, news
}

// Met notes that a run was met itself, so it lives now.
func (t *Table) Met(now time.Time, id, run string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.master(id); m != nil && run != "" {
		if l := m.life(now, run, t.sent); !l.refused {
			l.at, m.current = now, run
		}
	}
}

// Both notes that two runs of a master were seen to live at the same moment. It returns
// the collision if it was not known.
func (t *Table) Both(now time.Time, id, run, other string) *Collision {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.master(id)
	if m == nil || run == other || run == "" || other == "" {
		return nil
	}
	a, b := m.life(now, run, t.sent), m.life(now, other, t.sent)
	a.at, b.at = now, now
	return m.clash(now, id, a, b)
}

// Asks returns the collision for which a run that asks to be admitted is refused; nil: it
// is not. yielded is whether it says itself that it has yielded to another run.
func (t *Table) Asks(now time.Time, id, run string, yielded bool) *Collision {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.master(id)
	if m == nil || run == "" {
		return nil
	}
	l := m.life(now, run, t.sent)
	l.yielded = yielded
	cur := m.find(m.current)
	if !l.refused && !yielded || cur == nil || cur == l || cur.left || now.Sub(cur.at) > membership.SuspectAfter {
		return nil
	}
	l.at = now
	if c := m.clash(now, id, cur, l); c != nil {
		return c
	}
	return &Collision{Master: id, Kept: cur.run, Refused: run, Since: m.since}
}

// Left notes that a run has ended, and reports whether it was the one that lives.
func (t *Table) Left(id, run string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	m := t.of[id]
	if m == nil || run == "" {
		return true
	}
	if l := m.find(run); l != nil {
		l.left = true
	}
	return run == m.current
}

// Look returns the collisions that there are, and the masters of those that are over:
// one of the two has not been heard for a while.
func (t *Table) Look(now time.Time) (open []Collision, over []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, m := range t.of {
		if m.since.IsZero() {
			continue
		}
		cur := m.find(m.current)
		lives := cur != nil && !cur.left && now.Sub(cur.at) <= membership.SuspectAfter
		any := false
		for _, l := range m.lives {
			if l.refused = l.refused && lives && !l.left && now.Sub(l.at) <= attempts; l.refused {
				any = true
				open = append(open, Collision{id, m.current, l.run, m.since})
			}
		}
		if !any {
			m.since = time.Time{}
			over = append(over, id)
		}
	}
	return open, over
}

// Echoes returns the run that lives of each master that is heard, and the number of its
// last pulse.
func (t *Table) Echoes(now time.Time) map[string]Pulse {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := map[string]Pulse{}
	for id, m := range t.of {
		if l := m.find(m.current); l != nil && l.seq > 0 && now.Sub(l.at) <= membership.SuspectAfter {
			out[id] = Pulse{Run: l.run, Seq: l.seq}
		}
	}
	return out
}

// Forget drops a master that is gone for good.
func (t *Table) Forget(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.of, id)
}

// master returns nil where there are too many.
func (t *Table) master(id string) *master {
	m := t.of[id]
	if m == nil && len(t.of) < maxMasters {
		m = &master{}
		t.of[id] = m
	}
	return m
}

func (m *master) find(run string) *life {
	if i := slices.IndexFunc(m.lives, func(l *life) bool { return l.run == run }); i >= 0 {
		return m.lives[i]
	}
	return nil
}

// life returns what is known of a run. Of too many, the one is forgotten that was silent
// for the longest.
func (m *master) life(now time.Time, run string, sent uint64) *life {
	if l := m.find(run); l != nil {
		return l
	}
	l := &life{run: run, first: sent, at: now, after: map[string]uint64{}}
	m.lives = append(m.lives, l)
	if len(m.lives) > maxLives {
		oldest := slices.MinFunc(m.lives, func(a, b *life) int {
			if a.run == m.current {
				return 1
			}
			if b.run == m.current {
				return -1
			}
			return a.at.Compare(b.at)
		})
		m.lives = slices.DeleteFunc(m.lives, func(l *life) bool { return l == oldest })
		for _, l := range m.lives {
			delete(l.after, oldest.run)
		}
	}
	return l
}

// clash refuses the run that has yielded, else the one that began later. All masters
// decide the same, whichever of the two they have met.
func (m *master) clash(now time.Time, id string, a, b *life) *Collision {
	if a.yielded != b.yielded && a.yielded || a.yielded == b.yielded && a.run > b.run {
		a, b = b, a
	}
	if b.refused && !m.since.IsZero() {
		return nil
	}
	if m.since.IsZero() {
		m.since = now
	}
	b.refused = true
	if !a.refused {
		m.current = a.run
	}
	return &Collision{id, a.run, b.run, m.since}
}
