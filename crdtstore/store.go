package crdtstore

import (
	"context"
	"iter"
	"time"
)

// Store is one master's replica of the node records. All methods may be called
// concurrently.
type Store struct{}

// Open opens the store, creating it where there is none, and starts
// replicating. It returns when the records on disk are loaded; peers are met in
// the background, bounded by nothing but Close. ctx bounds the opening only.
func Open(ctx context.Context, cfg Config) (*Store, error) { panic("stub") }

// Close leaves the cluster, saying so to the other masters, and closes the
// files. It is idempotent and takes at most a few seconds.
func (s *Store) Close() error { panic("stub") }

// ID is this master's libp2p peer id. It is kept in Dir and never changes.
func (s *Store) ID() string { panic("stub") }

// Name is what people call this master.
func (s *Store) Name() string { panic("stub") }

// Report takes a node's account of itself. When it returns without error the
// account is on disk (see Config.NoSync). Errors: [FieldError], [RefusedError],
// ErrUnavailable, ErrClosed, the context's.
func (s *Store) Report(ctx context.Context, r Report) (Receipt, error) { panic("stub") }

// Beat takes one heartbeat. It touches memory only and never blocks.
func (s *Store) Beat(b Beat) BeatResult { panic("stub") }

// Node returns a node, removed ones too. Errors: ErrNotFound, [FieldError].
func (s *Store) Node(id string) (Node, error) { panic("stub") }

// Nodes returns a page of nodes. Errors: ErrCursor, [FieldError].
func (s *Store) Nodes(q NodeQuery) (NodePage, error) { panic("stub") }

// VM returns the VM of the given sid; nodeID may be empty where the sid is
// enough. Errors: ErrNotFound.
func (s *Store) VM(nodeID, sid string) (VM, error) { panic("stub") }

// VMs returns a page of VMs. Errors: ErrCursor, [FieldError].
func (s *Store) VMs(q VMQuery) (VMPage, error) { panic("stub") }

// Drain marks a node as drained, or takes the mark away. by says who asks, for
// the record. When it returns without error the word is on disk. Errors:
// ErrNotFound, ErrUnavailable, ErrClosed, the context's.
func (s *Store) Drain(ctx context.Context, id string, drained bool, by string) (Node, error) {
	panic("stub")
}

// Label sets labels of a node over those of its agent; a nil value takes a
// label away. Errors: as Drain, and [FieldError].
func (s *Store) Label(ctx context.Context, id string, labels map[string]*string, by string) (Node, error) {
	panic("stub")
}

// Remove removes a node: every account of its present boot and of earlier ones
// is hidden on all masters. A node that boots again registers anew. Errors: as
// Drain.
func (s *Store) Remove(ctx context.Context, id, by, reason string) (Node, error) { panic("stub") }

// Masters returns all known masters, this one first, then by name.
func (s *Store) Masters() []Master { panic("stub") }

// Master returns the master of the given id or name. Errors: ErrNotFound.
func (s *Store) Master(idOrName string) (Master, error) { panic("stub") }

// Stats sums up the grid.
func (s *Store) Stats() Stats { panic("stub") }

// Health returns nil when the store can serve and write, else why not.
func (s *Store) Health() error { panic("stub") }

// OfflineAfter is Config.OfflineAfter as it is in force.
func (s *Store) OfflineAfter() time.Duration { panic("stub") }

// Cursor is where the stream of events stands now. Take it before reading a
// snapshot, and Watch from it.
func (s *Store) Cursor() string { panic("stub") }

// Watch yields the events after the cursor, or from now on where it is empty,
// until ctx ends. A reader that falls too far behind, or a cursor of another
// run, ends the sequence with ErrCursor: read a fresh snapshot.
func (s *Store) Watch(ctx context.Context, after string) iter.Seq2[Event, error] { panic("stub") }
