package crdtstore

import (
	"context"
	"iter"
	"slices"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/watch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// change is an entry of the buffer that watchers read: what changed, not how. Readers look
// up how it is now.
type change struct {
	kind  ChangeKind
	id    string      // node or master
	vms   []record.VM // VMChange: the VMs that changed
	event *Event      // LogChange: what happened
}

// Cursor is where the stream of changes stands now. Take it before reading a
// snapshot, and [Store.Watch] from it: then nothing is missed in between.
func (s *Store) Cursor() string { return s.changes.End() }

// Watch yields the changes after a cursor, or from now on where it is empty: those of
// the given kinds, or of all where none is given. It waits for more, and ends only with
// the reader's break or with an error, which comes with a zero Change: the context's;
// ErrClosed when the store is closed; ErrCursor for a cursor of another run or another
// store, and for a reader that has fallen behind by more than 16,384 changes. After
// ErrCursor read a fresh snapshot and watch from a cursor that was taken before it.
//
// Any number of readers may watch. They look at one log of changes, each at its own
// pace, so a slow one holds up nobody. Resuming from [Change.Cursor] misses nothing;
// where several came of one write, such as VMs of one report, it may repeat some.
//
// Changes of kind LogChange come once each, in the order of [Store.Events].
func (s *Store) Watch(ctx context.Context, after string, kinds ...ChangeKind) iter.Seq2[Change, error] {
	ctx = orBackground(ctx)
	if after == "" {
		after = s.changes.End()
	}
	return func(yield func(Change, error) bool) {
		for e, err := range s.changes.Follow(ctx, after) {
			if err != nil {
				yield(Change{}, err)
				return
			}
			if len(kinds) > 0 && !slices.Contains(kinds, e.Change.kind) {
				continue
			}
			shown := s.shown(e.Change)
			for i, ch := range shown {
				ch.Cursor = s.changes.Cursor(e.At + 1)
				if i < len(shown)-1 {
					ch.Cursor = s.changes.Cursor(e.At) // who stops here has not had all of it
				}
				if !yield(ch, nil) {
					return
				}
			}
		}
	}
}

// shown is a change as it is now.
func (s *Store) shown(c change) []Change {
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

// changed publishes how an entry has changed since it was told last.
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
		s.changes.Add(change{kind: NodeChange, id: id}) // watchers are shown nothing
		s.events.NodeChanged(id, before, nil)
		return
	}
	if before == after {
		return
	}
	if before != nil && before.OnlySeen(after) {
		return // the pulses have told it, and the next checkpoint will say it of all nodes
	}
	if s.cfg.replicated() {
		s.splits.Changed(time.Now(), before, after)
	}
	s.acknowledged.Forget(time.Now(), after)
	s.changes.Add(change{kind: NodeChange, id: id})
	s.events.NodeChanged(id, before, after)
	if before != nil && before.Removed == after.Removed && before.State.SameVMs(after.State) {
		return
	}
	was, is := vmsOf(before), vmsOf(after)
	if vms := watch.VMs(was, is); len(vms) > 0 {
		s.changes.Add(change{kind: VMChange, id: id, vms: vms})
		s.events.VMsChanged(before, after, was, vms)
	}
}

// vmsOf returns the VMs of a node that is there.
func vmsOf(e *table.Entry) []VM {
	if e == nil || e.Removed {
		return nil
	}
	return e.ListVMs()
}
