package ops

import (
	"context"
	"errors"
	"fmt"
)

// carryOut runs an operation once its beginning is on stable storage, and tells
// those who wait once its end is.
func (m *Journal) carryOut(o *op, f *flight, begun *batch, run Run) {
	<-begun.done
	if begun.err != nil {
		m.mu.Lock()
		m.forget(o)
		m.mu.Unlock()
		f.err = fmt.Errorf("%w: %w", ErrDisk, begun.err)
		close(f.done)
		return
	}
	answer, err := m.call(run)
	f.answer, f.err = answer, err

	m.mu.Lock()
	o.at = m.now()
	switch {
	case errors.Is(err, errNotRun):
		m.forget(o)
		o.kind = kindForgotten
	case err != nil:
		o.kind, f.answer, f.err = kindUnknown, nil, fmt.Errorf("%w: %w", ErrUnknown, err)
	case len(answer) > m.opts.MaxAnswer:
		o.kind = kindTooLarge
	default:
		o.kind, o.answer = kindDone, answer
		m.bytes += int64(len(answer))
	}
	if o.kind != kindForgotten {
		m.ended = append(m.ended, o)
	}
	saved := m.change(o)
	m.mu.Unlock()

	<-saved.done
	if saved.err != nil && err == nil {
		f.answer, f.err = nil, fmt.Errorf("%w: %w", ErrUnsaved, saved.err)
	}
	m.mu.Lock()
	o.flight = nil
	m.mu.Unlock()
	close(f.done)
}

// call runs an operation, bounded and apart from those who wait for it.
func (m *Journal) call(run Run) (answer []byte, err error) {
	select {
	case <-m.stop:
		return nil, NotRun(ErrClosed)
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), m.opts.RunLimit)
	defer cancel()
	go func() {
		select {
		case <-m.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	defer func() {
		if v := recover(); v != nil { // it may have done anything before
			m.opts.Log.Error("an operation panicked", "panic", v)
			answer, err = nil, fmt.Errorf("it panicked: %v", v)
		}
	}()
	return run(ctx)
}

// change notes that an operation has changed, to be written. The caller holds m.mu.
func (m *Journal) change(o *op) *batch {
	m.changes++
	o.change = m.changes
	return m.write(&o.record)
}

// write adds a record to the next batch; nil: none, only the batch. Batches are
// written one after the other, so whatever comes in while one is written shares the
// next fsync. The caller holds m.mu.
func (m *Journal) write(r *record) *batch {
	if m.shut {
		b := &batch{done: make(chan struct{}), err: ErrClosed}
		close(b.done)
		return b
	}
	if m.next == nil {
		m.next = &batch{done: make(chan struct{})}
	}
	if r != nil {
		m.next.records = r.append(m.next.records)
	}
	m.next.change = m.changes
	if !m.writing {
		m.writing = true
		m.tasks.Go(m.writeBatches)
	}
	return m.next
}

// writeBatches writes batches until there are no more.
func (m *Journal) writeBatches() {
	for {
		m.mu.Lock()
		b := m.next
		if m.next = nil; b == nil {
			m.writing = false
			m.mu.Unlock()
			return
		}
		shut := m.shut
		m.mu.Unlock()

		err := ErrClosed
		if !shut {
			err = m.journal.save(b.records, m.snapshot)
		}
		m.mu.Lock()
		if err == nil {
			m.durable = max(m.durable, b.change)
		}
		b.err = err
		close(b.done)
		m.mu.Unlock()
	}
}
