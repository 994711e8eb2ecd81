package sim

import (
	"context"
	"fmt"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/antientropy"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dag"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/dagsync"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// master is one master: a disk and a clock that stay, and a process that comes
// and goes.
type master struct {
	w      *world
	index  int
	id     string
	disk   *disk
	skew   int64           // how far its clock is ahead, in milliseconds
	known  map[string]bool // masters that it has met ever
	rotten bool            // its disk has lost something by itself

	up bool
	// What follows belongs to the running process.
	life       uint64 // counts processes, so that timers of a dead one do nothing
	table      *table.Table
	replica    *replica.Replica
	seen       map[uint64]bool
	busy       map[string]bool // transfers that are on their way
	fetching   int             // those of blocks, to this master
	began      int64           // when the process started
	observedAt map[string]int64
	met        map[string]bool // masters that were heard, and to which streams could be opened
	// before is what the others held that ran when this process started, while it joins.
	before   map[*master]snapshot
	flushing bool
	waiting  []promise
}

// promise is a write whose caller waits for it to be on disk.
type promise struct {
	flush *replica.Flush
	fact  fact
}

func newMaster(w *world, index int) *master {
	m := &master{w: w, index: index, id: fmt.Sprintf("m%d", index), known: map[string]bool{}}
	m.disk = newDisk(m.id, w.rnd, w.time)
	m.disk.announce = m.announce
	return m
}

func (m *master) wall() int64 { return m.w.time().UnixMilli() + m.skew }

// start runs the process.
func (m *master) start() {
	m.up, m.life = true, m.life+1
	m.table, m.seen, m.busy, m.fetching = table.New(), map[uint64]bool{}, map[string]bool{}, 0
	m.flushing, m.waiting = false, nil
	m.began, m.met, m.before = m.w.now, map[string]bool{}, nil
	m.observedAt = map[string]int64{}
	m.replica = replica.New(replica.Options{
		Self: m.id, Table: m.table, Grid: m,
		Now: m.w.time, Wall: m.wall,
		AssertDelay: assertAfter * time.Millisecond,
		EpochBytes:  m.w.plan.EpochBytes, EpochAge: 24 * time.Hour, Retention: m.w.plan.Retention,
		Logger: m.w.log,
	})
	m.disk.apply = m.replica.Arrived
	m.disk.open()
	m.replica.Use(checked{m.disk, m})
	if m.disk.joining {
		m.replica.BeginJoining(m.rotten)
		m.before = m.w.snapshots(m)
	}
	m.w.rebuilt(m)
	m.every(pulseEvery, func() { m.pulse(); m.endJoining() })
	m.every(tickEvery, func() { _ = m.replica.Tick(context.Background()) })
	m.catchUp()
}

// every has the process do something again and again.
func (m *master) every(ms int64, do func()) {
	life := m.life
	var again func()
	again = func() {
		if m.up && m.life == life {
			do()
			m.catchUp()
			m.w.after(ms, again)
		}
	}
	m.w.after(m.w.rnd.Int64N(ms), again)
}

// stop ends the process; a clean end writes what is marked.
func (m *master) stop(clean bool) {
	if !m.up {
		return
	}
	if clean {
		for _, o := range m.w.masters {
			if o != m && o.up && m.w.linked(m, o) {
				o.replica.Left(m.id)
				delete(o.observedAt, m.id)
			}
		}
		m.publish()
	}
	m.up = false
	m.disk.dead = false
	m.waiting = nil
	if !clean {
		m.disk.crash()
	}
}

// catchUp is called after everything that the process does.
func (m *master) catchUp() {
	if m.up && m.disk.dead {
		m.w.tracef("%s dies while it writes", m.id)
		m.stop(false)
		m.w.after(1_000+m.w.rnd.Int64N(8_000), func() {
			if !m.up {
				m.start()
			}
		})
	}
	if m.up && !m.flushing && m.replica.Pending() {
		m.flushing = true
		m.in(m.w.rnd.Int64N(15), m.publish)
	}
}

// in has the process do something later, if it still runs then.
func (m *master) in(ms int64, do func()) {
	life := m.life
	m.w.after(ms, func() {
		if m.up && m.life == life {
			do()
			m.catchUp()
		}
	})
}

func (m *master) publish() {
	err := m.replica.Publish()
	m.collect()
	if m.flushing = err != nil; m.flushing {
		m.in(retryFlush, m.publish)
	}
}

// collect turns promises that were kept into facts.
func (m *master) collect() {
	var left []promise
	for _, p := range m.waiting {
		select {
		case <-p.flush.Done():
			if p.flush.Err() == nil {
				m.w.acknowledge(p.fact)
			}
		default:
			left = append(left, p)
		}
	}
	m.waiting = left
}

// as decides on what was made up already: there is only one thread here.
func as(st record.State) replica.Decide {
	return func(record.State) (record.State, error) { return st, nil }
}

// assert writes a state as an API call does.
func (m *master) assert(node string, st record.State) bool {
	f, err := m.replica.Begin(node, as(st))
	if err != nil {
		m.w.tracef("%s refuses to write: %v", m.id, err)
		return false
	}
	m.promise(f, fact{node: node, state: st, by: m})
	return true
}

// promise has a fact acknowledged when a flush has ended; nil has ended.
func (m *master) promise(f *replica.Flush, it fact) {
	if f == nil {
		m.w.acknowledge(it)
		return
	}
	m.waiting = append(m.waiting, promise{f, it})
}

// Heard is the time of a node's last sign of life: agents that live are heard by
// every master at any time.
func (m *master) Heard(node string) int64 {
	for _, a := range m.w.agents {
		if a.node == node && a.alive {
			return m.wall()
		}
	}
	return 0
}

// IDs returns the masters that were met ever.
func (m *master) IDs() []string {
	var out []string
	for _, o := range m.w.masters {
		if m.known[o.id] {
			out = append(out, o.id)
		}
	}
	return out
}

// announce floods new blocks, in the message that real masters send.
func (m *master) announce(number uint64, blocks []dag.Block) {
	for _, msg := range dagsync.Announcements(number, blocks, 1<<20) {
		m.w.broadcast(m, func(to *master) {
			step, _ := to.replica.Announced(context.Background(), m.id, msg)
			to.do(step, m)
		})
	}
}

// pulse floods what a master says of itself.
func (m *master) pulse() {
	digest, _ := m.table.Digest()
	s := replica.Summary{
		Epoch: m.disk.Number(), Cutoff: m.disk.Cutoff(), Wall: m.wall(), Digest: digest, Heads: m.disk.Heads(),
		Fetching: m.fetching > 0,
	}
	if _, joining := m.replica.Joining(); joining {
		s.Holds = m.replica.Holds()
	} else {
		s.Holds = m.Alive(m.w.time())
	}
	_, s.Nodes = m.table.Digest()
	m.w.broadcast(m, func(to *master) {
		to.known[m.id] = true
		to.observedAt[m.id] = m.w.now
		to.met[m.id] = to.met[m.id] || to.talks(m)
		step, _ := to.replica.Observe(context.Background(), m.id, s)
		to.do(step, m)
		to.endJoining()
	})
}

// Alive returns the masters that were heard just now and have not left.
func (m *master) Alive(time.Time) []string {
	var out []string
	for _, o := range m.w.masters {
		if at, heard := m.observedAt[o.id]; heard && m.w.now-at <= recent {
			out = append(out, o.id)
		}
	}
	return out
}

// endJoining ends the joining of a master that is whole. The list of its peers names all.
func (m *master) endJoining() {
	peers := replica.AllMet
	for _, o := range m.w.masters {
		if o != m && !m.met[o.id] {
			peers = replica.SomeMissing
		}
	}
	if ended, _ := m.replica.EndJoining(peers); ended {
		m.disk.joining = false
		m.w.whole(m)
	}
}

func (m *master) Direct(id string) bool {
	for _, o := range m.w.masters {
		if o.id == id {
			return m.talks(o)
		}
	}
	return false
}

// do takes a step about another master. One that is only heard through others is
// not asked, they are.
func (m *master) do(step replica.Step, about *master) {
	if step == replica.Rest {
		return
	}
	if m.talks(about) {
		m.exchange(step, about)
		return
	}
	for _, o := range m.w.masters {
		if step == replica.Pull && o != m && m.talks(o) {
			m.exchange(step, o)
		}
	}
}

// talks reports whether a stream to another master can be opened.
func (m *master) talks(o *master) bool { return o.up && m.w.linked(m, o) && m.w.linked(o, m) }

// exchange runs one of the stream protocols with another master, soon. It may
// break off in the middle.
func (m *master) exchange(step replica.Step, with *master) {
	key := fmt.Sprint(step, with.id)
	if m.busy[key] {
		return
	}
	m.busy[key] = true
	if step == replica.Pull {
		m.fetching++
	}
	m.in(1+m.w.rnd.Int64N(m.w.plan.Delay), func() {
		delete(m.busy, key)
		if step == replica.Pull {
			m.fetching--
		}
		if !m.talks(with) {
			return
		}
		writes := 1 << 30
		if !m.w.calm && m.w.rnd.Float64() < 5*m.w.plan.Loss {
			writes = m.w.rnd.IntN(12)
		}
		here, there := newStream(writes)
		done := make(chan struct{})
		ctx := context.Background()
		if step == replica.Pull {
			go func() {
				defer close(done)
				_, _ = dagsync.Serve(ctx, there, with.disk)
			}()
			number := m.disk.Number()
			n, err := dagsync.Pull(ctx, here, m.disk, func(blocks []dag.Block) error {
				return m.disk.Deliver(ctx, number, blocks)
			})
			<-done
			m.w.tracef("%s pulls %d blocks from %s: %v", m.id, n, with.id, err)
			m.do(m.replica.Pulled(with.id, n, err), with)
			return
		}
		m.replica.Comparing(with.id)
		learned := func(r *replica.Replica) antientropy.Take {
			return func(node string, s record.State) { r.Learned(node, s) }
		}
		go func() {
			defer close(done)
			_ = antientropy.Serve(ctx, there, with.table, learned(with.replica))
		}()
		n, err := antientropy.Merge(ctx, here, m.table, learned(m.replica))
		<-done
		m.replica.Compared(with.id, n, err)
		m.w.tracef("%s compares with %s, %d nodes differ: %v", m.id, with.id, n, err)
		m.endJoining()
		with.catchUp()
	})
}

// digest is what the master's table comes to, and whether the master has nothing
// more to do by itself.
func (m *master) digest() (d record.Digest, quiet bool) {
	d, _ = m.table.Digest()
	return d, m.up && !m.replica.Pending() && len(m.disk.epochs) == 1
}
