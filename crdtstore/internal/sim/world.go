package sim

import (
	"container/heap"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
)

// Virtual times are milliseconds since the start of a run.
const (
	pulseEvery  = 1_000
	tickEvery   = 2_000
	retryFlush  = 1_000
	assertAfter = 4_000
	recent      = int64(membership.SuspectAfter / time.Millisecond)
	day         = 24 * 3600 * 1000
)

// start is the true time at which every run begins.
var start = time.Unix(1_700_000_000, 0)

// world is one run.
type world struct {
	plan    Plan
	rnd     *rand.Rand
	now     int64
	queue   queue
	order   uint64 // of events of one time
	masters []*master
	agents  []*agent
	cut     [][]bool // cut[a][b]: nothing that a sends reaches b
	calm    bool     // no more faults
	backups []backup
	facts   []fact
	msgs    uint64
	trace   func(line string) // nil: none
	failed  *Failure
	log     *slog.Logger
}

// event is something that happens at a time.
type event struct {
	at    int64
	order uint64
	do    func()
}

type queue []event

func (q queue) Len() int      { return len(q) }
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q *queue) Push(x any) { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}

// after has something happen in so many milliseconds.
func (w *world) after(ms int64, do func()) {
	w.order++
	heap.Push(&w.queue, event{w.now + ms, w.order, do})
}

// run lets time pass, until nothing more happens before the end or the run has
// failed.
func (w *world) run(end int64) {
	for w.failed == nil && len(w.queue) > 0 && w.queue[0].at <= end {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		e.do()
	}
	w.now = max(w.now, end)
}

func (w *world) time() time.Time { return start.Add(time.Duration(w.now) * time.Millisecond) }

func (w *world) tracef(format string, args ...any) {
	if w.trace != nil {
		w.trace(fmt.Sprintf("%9.3fs ", float64(w.now)/1000) + fmt.Sprintf(format, args...))
	}
}

// fail ends the run, for the first reason that is found.
func (w *world) fail(format string, args ...any) {
	if w.failed == nil {
		w.failed = &Failure{At: time.Duration(w.now) * time.Millisecond, What: fmt.Sprintf(format, args...)}
		w.tracef("FAILED: %s", w.failed.What)
	}
}

// linked reports whether what a sends reaches b.
func (w *world) linked(a, b *master) bool { return !w.cut[a.index][b.index] }

// broadcast sends a message to all masters, as pubsub does: those that the sender does
// not reach get it by way of others. receive is called once for each that it reaches.
func (w *world) broadcast(from *master, receive func(to *master)) {
	w.msgs++
	w.hop(from, from, w.msgs, receive)
}

func (w *world) hop(from, via *master, id uint64, receive func(to *master)) {
	for _, to := range w.masters {
		if to == from || to == via || !w.linked(via, to) {
			continue
		}
		copies := 1
		if !w.calm {
			if w.rnd.Float64() < w.plan.Loss {
				copies = 0
			} else if w.rnd.Float64() < w.plan.Duplication {
				copies = 2
			}
		}
		for range copies {
			delay := 1 + w.rnd.Int64N(w.plan.Delay)
			if w.rnd.IntN(20) == 0 {
				delay *= 10 // overtaken by others
			}
			w.after(delay, func() {
				if !to.up || !w.linked(via, to) || to.seen[id] {
					return
				}
				to.seen[id] = true
				receive(to)
				to.catchUp()
				if w.partitioned() {
					w.hop(from, to, id, receive)
				}
			})
		}
	}
}

// partitioned reports whether any two masters are cut off from each other. Else
// everybody has heard a message from its sender, and nobody passes it on.
func (w *world) partitioned() bool {
	for _, row := range w.cut {
		for _, c := range row {
			if c {
				return true
			}
		}
	}
	return false
}

// heal lets everybody reach everybody.
func (w *world) heal() {
	for _, row := range w.cut {
		clear(row)
	}
}

// split cuts all links, in both directions, for which cut is true.
func (w *world) split(cut func(a, b int) bool) {
	w.heal()
	for a := range w.masters {
		for b := range w.masters {
			w.cut[a][b] = a != b && (cut(a, b) || cut(b, a))
		}
	}
}
