package ops

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"
)

// MaxID is how many bytes an id may have.
const MaxID = 128

// Run carries an operation out. Its context is not that of a caller, for it goes
// on when the caller goes away; it ends by [Options].RunLimit, and when the Journal
// is closed. The answer is not to be modified afterwards. With an error the outcome
// is unknown, unless it is one of [NotRun].
type Run func(ctx context.Context) (answer []byte, err error)

// Journal is the idempotency journal: the operations whose outcome is remembered. Its methods may be called
// concurrently.
type Journal struct {
	opts    Options
	journal *journalFile
	opened  time.Time
	base    time.Duration // what the clock said then
	stop    chan struct{} // closed: operations are to end at once
	tasks   sync.WaitGroup

	mu      sync.Mutex // guards what follows
	ops     map[string]*op
	ended   []*op // by the time of their end
	bytes   int64 // of ids and answers
	changes uint64
	durable uint64        // changes up to this one are on stable storage
	next    *batch        // what is written next; nil: nothing
	writing bool          // a goroutine writes batches
	trustAt time.Duration // before, an id that is not remembered may have been lost
	damaged time.Duration // when, if trustAt is to come
	fresh   time.Duration // before, a repetition may be of what was never asked for here
	closed  bool          // no new operations
	shut    bool          // no writes either
}

// op is what is remembered of an operation.
type op struct {
	record
	change uint64  // the last one
	flight *flight // nil: it has ended, and those who waited know
}

// flight is what those who wait for an operation wait for.
type flight struct {
	done   chan struct{} // closed when answer and err are set
	answer []byte
	err    error
}

// batch is records that are written together.
type batch struct {
	records []byte
	change  uint64        // the last one in it
	done    chan struct{} // closed when err is set
	err     error
}

// Open reads the file at path, or begins one, in a directory that exists. It fails
// where the file cannot be read, or with [ErrNewer]. A disk that takes no writes
// is not an error; see the package comment.
func Open(path string, opts Options) (*Journal, error) { return open(osDisk{}, path, opts) }

func open(d disk, path string, opts Options) (*Journal, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	m := &Journal{
		opts: opts, opened: time.Now(), ops: map[string]*op{}, stop: make(chan struct{}),
		journal: &journalFile{disk: d, path: path, log: opts.Log},
	}
	file, err := d.read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if opts.Late {
			m.fresh = opts.MinAge
		}
	case err != nil:
		return nil, fmt.Errorf("read memory of operations: %w", err)
	default:
		c, err := parse(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		m.load(c)
		if c.damage != "" {
			m.journal.aside = true
			opts.Log.Error("the memory of operations is damaged; operations that it does not know are refused for a while",
				"file", path, "damage", c.damage, "for", opts.MinAge, "known", len(m.ops))
		}
	}
	// The file is always written anew, not continued. That cuts off its end, and
	// nothing depends on whether what was read had reached the disk.
	m.changes = 1
	if err := m.journal.save(nil, m.snapshot); err == nil {
		m.durable = 1
	}
	return m, nil
}

// load takes what a file holds.
func (m *Journal) load(c content) {
	latest := map[string]int{}
	for i, r := range c.records {
		m.base = max(m.base, r.at)
		latest[r.id] = i
	}
	for i, r := range c.records {
		switch {
		case r.kind == kindDamage:
			m.damaged, m.trustAt = r.at, r.at+m.opts.MinAge
		case r.kind == kindFresh:
			m.fresh = r.at + m.opts.MinAge
		case latest[r.id] == i && r.kind != kindBegun && r.kind != kindForgotten:
			m.remember(r)
		}
	}
	// The process ended before these did.
	for i, r := range c.records {
		if latest[r.id] == i && r.kind == kindBegun {
			r.kind, r.at = kindUnknown, m.base
			m.remember(r)
		}
	}
	if c.damage != "" {
		m.damaged, m.trustAt = m.base, m.base+m.opts.MinAge
	}
}

func (m *Journal) remember(r record) {
	o := &op{record: r, change: 1}
	o.answer = append([]byte(nil), r.answer...) // not to hold on to the whole file
	m.ops[r.id] = o
	m.ended = append(m.ended, o)
	m.bytes += o.size()
}

func (r *record) size() int64 { return int64(len(r.id) + len(r.answer)) }

// now is the clock of the Journal: for how long it was open, over all restarts.
func (m *Journal) now() time.Duration {
	return (m.base + time.Since(m.opened)).Truncate(time.Millisecond)
}

// snapshot returns all that is to be in the file.
func (m *Journal) snapshot() []record {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]record, 0, len(m.ops)+1)
	if m.trustAt > m.now() {
		all = append(all, record{kind: kindDamage, at: m.damaged})
	}
	if m.fresh > m.now() {
		all = append(all, record{kind: kindFresh, at: m.fresh - m.opts.MinAge})
	}
	for _, o := range m.ended {
		all = append(all, o.record)
	}
	for _, o := range m.ops {
		if o.kind == kindBegun {
			all = append(all, o.record)
		}
	}
	return all
}

// Do returns the answer of an operation, which it runs if that never began. It
// waits until ctx ends; the operation goes on then. The answer is not to be
// modified.
//
// Errors are those of this package, that of [NotRun], and that of ctx. An id has 1
// to [MaxID] bytes.
func (m *Journal) Do(ctx context.Context, id string, fingerprint [32]byte, run Run) ([]byte, error) {
	return m.do(ctx, id, fingerprint, false, run)
}

// Repeat is Do for a caller that has asked before and got no answer. While a Journal
// that began late (see [Options]) is younger than MinAge, what it does not know may have
// been asked for when it was not there yet, and is refused with [ErrFresh].
func (m *Journal) Repeat(ctx context.Context, id string, fingerprint [32]byte, run Run) ([]byte, error) {
	return m.do(ctx, id, fingerprint, true, run)
}

func (m *Journal) do(ctx context.Context, id string, fingerprint [32]byte, again bool, run Run) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if id == "" || len(id) > MaxID {
		return nil, fmt.Errorf("the id has %d bytes; give 1 to %d", len(id), MaxID)
	}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil, ErrClosed
	}
	m.drop(m.opts.Age)
	o := m.ops[id]
	switch {
	case o == nil && again && m.now() < m.fresh:
		after := m.fresh - m.now()
		m.mu.Unlock()
		return nil, &WaitError{ErrFresh, after}
	case o == nil:
		var err error
		if o, err = m.begin(id, fingerprint, run); err != nil {
			m.mu.Unlock()
			return nil, err
		}
	case o.fingerprint != fingerprint:
		m.mu.Unlock()
		return nil, ErrOtherCall
	}
	f := o.flight
	if f == nil {
		return m.kept(ctx, o)
	}
	m.mu.Unlock()
	select {
	case <-f.done:
		return f.answer, f.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// kept returns the answer of an operation that has ended. It is called with m.mu
// held, and unlocks it.
func (m *Journal) kept(ctx context.Context, o *op) ([]byte, error) {
	r, saved := o.record, o.change <= m.durable
	var b *batch
	if r.kind == kindDone && !saved {
		b = m.write(nil) // perhaps the disk is well again
	}
	m.mu.Unlock()
	switch r.kind {
	case kindTooLarge:
		return nil, ErrTooLarge
	case kindUnknown:
		return nil, ErrUnknown
	}
	if b != nil {
		select {
		case <-b.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if b.err != nil {
			return nil, fmt.Errorf("%w: %w", ErrUnsaved, b.err)
		}
	}
	return r.answer, nil
}

// begin makes an operation, where there is room. The caller holds m.mu.
func (m *Journal) begin(id string, fingerprint [32]byte, run Run) (*op, error) {
	now := m.now()
	if now < m.trustAt {
		return nil, &WaitError{ErrDamaged, m.trustAt - now}
	}
	full := func() bool { return len(m.ops) >= m.opts.MaxOps || m.bytes >= m.opts.MaxBytes }
	if full() {
		m.drop(m.opts.MinAge, full)
	}
	if full() {
		after := time.Second // until one that runs has ended
		if len(m.ended) > 0 {
			after = max(after, m.ended[0].at+m.opts.MinAge-now)
		}
		return nil, &WaitError{ErrFull, after}
	}
	o := &op{
		record: record{kind: kindBegun, at: now, id: id, fingerprint: fingerprint},
		flight: &flight{done: make(chan struct{})},
	}
	m.ops[id] = o
	m.bytes += o.size()
	begun := m.change(o)
	m.tasks.Go(func() { m.carryOut(o, o.flight, begun, run) })
	return o, nil
}

// drop forgets operations that ended as long ago as age, the first first, while all
// conditions hold. The caller holds m.mu.
func (m *Journal) drop(age time.Duration, while ...func() bool) {
	now := m.now()
	for len(m.ended) > 0 && now-m.ended[0].at >= age {
		for _, holds := range while {
			if !holds() {
				return
			}
		}
		o := m.ended[0]
		m.ended[0] = nil
		m.ended = m.ended[1:]
		m.forget(o)
	}
}

func (m *Journal) forget(o *op) {
	delete(m.ops, o.id)
	m.bytes -= o.size()
}

// Close takes no new operations and waits for those that run until ctx ends. Then
// it ends their contexts; what they do after that is unknown. Where it returns an
// error the file is not to be opened again by this process.
func (m *Journal) Close(ctx context.Context) error {
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return nil
	}
	m.closed = true
	m.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		m.tasks.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return m.journal.close()
	case <-ctx.Done():
	}
	close(m.stop)
	select {
	case <-ended:
		return m.journal.close()
	case <-time.After(stopGrace):
	}
	m.mu.Lock()
	m.shut = true
	m.mu.Unlock()
	return errors.New("operations, or the disk, did not end in time")
}

// stopGrace is how long operations have to end once they were told to.
const stopGrace = 200 * time.Millisecond
