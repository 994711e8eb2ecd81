package crdtstore

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// ringSize is how many changes a reader may fall behind before it has to read a
// fresh snapshot.
const ringSize = 1 << 14

// change is an entry of the log of changes: what changed, not how. Readers look up
// how it is now.
type change struct {
	kind  ChangeKind
	id    string      // node or master
	vms   []record.VM // VMChange: the VMs that changed
	event *Event      // LogChange: what happened
}

// hub is the bounded log of changes that Watch reads from. A cursor is the run's
// own number and the position in the log, so that a cursor of an earlier run is
// told apart.
type hub struct {
	run string

	mu   sync.Mutex
	ring [ringSize]change
	end  uint64        // position behind the newest change
	more chan struct{} // closed at the next change; nil while nobody waits
	shut bool
}

func newHub(run string) *hub { return &hub{run: run} }

func (h *hub) add(c change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring[h.end%ringSize] = c
	h.end++
	h.signal()
}

// signal is called with mu held.
func (h *hub) signal() {
	if h.more != nil {
		close(h.more)
		h.more = nil
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.shut = true
	h.signal()
}

func (h *hub) cursor(at uint64) string { return fmt.Sprintf("%s-%d", h.run, at) }

func (h *hub) parse(cursor string) (uint64, error) {
	run, pos, ok := strings.Cut(cursor, "-")
	at, err := strconv.ParseUint(pos, 10, 64)
	if !ok || err != nil || run != h.run {
		return 0, ErrCursor
	}
	return at, nil
}

// next returns the change at a position, waiting for it. The error is ErrCursor
// when the log has moved past it, ErrClosed, or the context's.
func (h *hub) next(ctx context.Context, at uint64) (change, error) {
	for {
		h.mu.Lock()
		switch {
		case h.shut:
			h.mu.Unlock()
			return change{}, ErrClosed
		case at > h.end || h.end-at > ringSize:
			h.mu.Unlock()
			return change{}, ErrCursor
		case at < h.end:
			c := h.ring[at%ringSize]
			h.mu.Unlock()
			return c, nil
		}
		if h.more == nil {
			h.more = make(chan struct{})
		}
		more := h.more
		h.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
			return change{}, ctx.Err()
		}
	}
}

// since returns the changes from a position on, without waiting, and the position
// behind them; false when the log has moved past it.
func (h *hub) since(at uint64) ([]change, uint64, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at > h.end || h.end-at > ringSize {
		return nil, h.end, false
	}
	out := make([]change, 0, h.end-at)
	for ; at < h.end; at++ {
		out = append(out, h.ring[at%ringSize])
	}
	return out, at, true
}

// Cursor is where the stream of changes stands now. Take it before reading a
// snapshot, and [Store.Watch] from it: then nothing is missed in between.
func (s *Store) Cursor() string {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.hub.cursor(s.hub.end)
}

// Watch yields the changes after a cursor, or from now on where it is empty: those of
// the given kinds, or of all where none is given. It waits for more, and ends only with the reader's break or with an error, which
// comes with a zero Change: the context's; ErrClosed when the store is closed;
// ErrCursor for a cursor of another run or another store, and for a reader that has
// fallen behind by more than 16,384 changes. After ErrCursor read a fresh snapshot
// and watch from a cursor that was taken before it.
//
// Any number of readers may watch. They look at one log of changes, each at its own
// pace, so a slow one holds up nobody. Resuming from [Change.Cursor] misses nothing;
// where several came of one write, such as VMs of one report, it may repeat some.
//
// Changes of kind LogChange come once each, in the order of [Store.Events].
func (s *Store) Watch(ctx context.Context, after string, kinds ...ChangeKind) iter.Seq2[Change, error] {
	ctx = orBackground(ctx)
	if after == "" {
		after = s.Cursor()
	}
	return func(yield func(Change, error) bool) {
		at, err := s.hub.parse(after)
		for err == nil {
			var c change
			if c, err = s.hub.next(ctx, at); err != nil {
				break
			}
			at++
			if len(kinds) > 0 && !slices.Contains(kinds, c.kind) {
				continue
			}
			changes := s.changes(c)
			for i, ch := range changes {
				ch.Cursor = s.hub.cursor(at)
				if i < len(changes)-1 {
					ch.Cursor = s.hub.cursor(at - 1) // who stops here has not had all of it
				}
				if !yield(ch, nil) {
					return
				}
			}
		}
		yield(Change{}, err)
	}
}

// changes shows a change as it is now.
func (s *Store) changes(c change) []Change {
	switch c.kind {
	case NodeChange:
		n, err := s.Node(c.id)
		if err != nil {
			return nil
		}
		return []Change{{Kind: NodeChange, Node: &n}}
	case VMChange:
		out := make([]Change, len(c.vms))
		for i := range c.vms {
			out[i] = Change{Kind: VMChange, VM: &c.vms[i]}
		}
		return out
	case MasterChange:
		m, err := s.Master(c.id)
		if err != nil {
			return nil
		}
		return []Change{{Kind: MasterChange, Master: &m}}
	case LogChange:
		return []Change{{Kind: LogChange, Event: c.event}}
	}
	return nil
}

// changed notes in the log of changes how an entry has changed since it was told last.
// Two callers may come here in another order than they changed the entry; then
// the first tells both changes and the second none, so that a watcher is never
// left with the older one.
func (s *Store) changed(id string) {
	s.publishing.Lock()
	defer s.publishing.Unlock()
	before, after := s.table.Publish(id)
	if s.loading { // what was on disk is no news
		return
	}
	if after == nil { // dropped for good
		s.board.Forget(id)
		s.hub.add(change{kind: NodeChange, id: id}) // watchers are shown nothing
		s.nodeChanged(id, before, nil)
		return
	}
	if before == after {
		return
	}
	if before != nil && before.OnlySeen(after) {
		return // the pulses have told it, and the next checkpoint will say it of all nodes
	}
	if s.cfg.replicated() {
		s.splits.changed(time.Now(), id, before)
	}
	s.acknowledged.of(time.Now(), after) // which ends what the node says itself now
	s.hub.add(change{kind: NodeChange, id: id})
	s.nodeChanged(id, before, after)
	if before != nil && before.Removed == after.Removed && before.State.SameVMs(after.State) {
		return
	}
	was, is := vmsOf(before), vmsOf(after)
	if vms := changedVMs(was, is); len(vms) > 0 {
		s.hub.add(change{kind: VMChange, id: id, vms: vms})
		s.vmsChanged(before, after, was, vms)
	}
}

// vmsOf returns the VMs of a node that is there.
func vmsOf(e *table.Entry) []VM {
	if e == nil || e.Removed {
		return nil
	}
	return e.ListVMs()
}

// changedVMs returns the VMs that are new or changed, and those that are gone
// with the state "deleted".
func changedVMs(before, after []VM) []VM {
	old := make(map[string]VM, len(before))
	for _, v := range before {
		old[v.SID] = v
	}
	var out []VM
	for _, v := range after {
		was, had := old[v.SID]
		delete(old, v.SID)
		was.AsOf = v.AsOf
		if !had || was != v {
			out = append(out, v)
		}
	}
	for _, v := range before {
		if _, gone := old[v.SID]; gone {
			v.State = VMDeleted
			out = append(out, v)
		}
	}
	return out
}
