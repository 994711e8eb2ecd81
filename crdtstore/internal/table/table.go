package table

import (
	"hash/fnv"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// cell is a node's place in the table. It stays until the node is dropped, so that
// the sorted order only changes when a node is new or dropped.
type cell struct {
	id        string
	entry     atomic.Pointer[Entry]
	published *Entry // see Publish
}

// Table is the set of entries. Its methods may be called concurrently. Call New.
type Table struct {
	mu      sync.RWMutex // guards what follows, and the set of cells; entries are swapped without it
	cells   map[string]*cell
	buckets [Buckets]record.Digest
	digest  record.Digest
	live    int // entries that are not removed
	bytes   int // of all encoded states

	// order holds the cells ascending by id and is immutable; fresh are those
	// that are not in it yet. A flood of new nodes so costs one merge at the
	// next read, not one insertion each.
	order []*cell
	fresh []*cell
	stale bool // cells in order or fresh were dropped
}

// New returns an empty table.
func New() *Table { return &Table{cells: map[string]*cell{}} }

// Join joins a state into the entry of a node and returns the entries before
// and after; they are the same when the state brought nothing new. before is nil
// for a node that was not known; both are where nothing is said of it.
func (t *Table) Join(id string, s record.State) (before, after *Entry) {
	before, after, _ = t.Change(id, func(*Entry) (record.State, error) { return s, nil })
	return before, after
}

// Change joins into the entry of a node what decide makes of that entry, nil where there
// is none, and returns the entries before and after, as Join does. Deciding and joining
// are one step for the node: nothing comes in between. decide may be called several
// times, the last call counts; its error ends the change, which then changes nothing.
func (t *Table) Change(id string, decide func(known *Entry) (record.State, error)) (before, after *Entry, err error) {
	for {
		before = t.Get(id)
		s, err := decide(before)
		if err != nil || s.IsZero() { // zero: such as a forged account without what was forged
			return before, before, err
		}
		joined := s
		if before != nil {
			if joined = record.Join(before.State, s); joined.Equal(before.State) {
				return before, before, nil
			}
		}
		// The view and the digest are made before the entry is published; when
		// somebody else was faster, all is done again over theirs.
		after = newEntry(id, joined, before)
		if c := t.cell(id); c.entry.CompareAndSwap(before, after) {
			t.count(c, before, after)
			return before, after, nil
		}
	}
}

func (t *Table) cell(id string) *cell {
	t.mu.RLock()
	c := t.cells[id]
	t.mu.RUnlock()
	if c != nil {
		return c
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c = t.cells[id]; c == nil {
		c = &cell{id: id}
		t.cells[id] = c
	}
	return c
}

// count brings the sums up to date. The digest is an exclusive or, so it does
// not matter in which order two changes of one entry are counted.
func (t *Table) count(c *cell, before, after *Entry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := &t.buckets[Bucket(after.ID)]
	*sum, t.digest = sum.Xor(after.digest), t.digest.Xor(after.digest)
	t.bytes += after.size
	if !after.Removed {
		t.live++
	}
	if before == nil {
		t.fresh = append(t.fresh, c)
		return
	}
	*sum, t.digest = sum.Xor(before.digest), t.digest.Xor(before.digest)
	t.bytes -= before.size
	if !before.Removed {
		t.live--
	}
}

// Get returns the entry of a node, nil where there is none.
func (t *Table) Get(id string) *Entry {
	t.mu.RLock()
	c := t.cells[id]
	t.mu.RUnlock()
	if c == nil {
		return nil
	}
	if e := c.entry.Load(); e != dropped {
		return e
	}
	return nil
}

// Publish returns the entry of a node as it was when Publish was called for it last, and
// as it is; nil where there was or is none. Only one caller at a time may use it.
func (t *Table) Publish(id string) (before, after *Entry) {
	t.mu.RLock()
	c := t.cells[id]
	t.mu.RUnlock()
	if c == nil {
		return nil, nil
	}
	before, after = c.published, c.entry.Load()
	if after == dropped {
		after = nil
	}
	c.published = after
	return before, after
}

// Digest returns the digest of all states, and how many nodes are not removed.
func (t *Table) Digest() (digest record.Digest, live int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.digest, t.live
}

// Bytes is what all states take, encoded.
func (t *Table) Bytes() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.bytes
}

// Len is the number of entries, those of removed nodes included.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return len(t.cells)
}

// Buckets is how many buckets the nodes fall into, by a hash of their id. Two
// masters compare buckets first, to find the nodes that differ.
const Buckets = 256

// Bucket returns the bucket of a node. All masters must agree on it, so it is
// part of the protocol: FNV-1a of the id, 32 bits, its four bytes xored.
func Bucket(id string) int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(id))
	sum := h.Sum32()
	return int(byte(sum ^ sum>>8 ^ sum>>16 ^ sum>>24))
}

// BucketDigests returns the digest of every bucket.
func (t *Table) BucketDigests() [Buckets]record.Digest {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.buckets
}

// All yields every entry, ascending by id. Entries that change meanwhile are
// yielded as they were or as they are.
func (t *Table) All() iter.Seq[*Entry] { return entries(t.sorted()) }

// After yields the entries whose id is greater than id, ascending.
func (t *Table) After(id string) iter.Seq[*Entry] {
	order := t.sorted()
	i, found := slices.BinarySearchFunc(order, id, func(c *cell, id string) int {
		return strings.Compare(c.id, id)
	})
	if found {
		i++
	}
	return entries(order[i:])
}

func entries(cells []*cell) iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for _, c := range cells {
			if e := c.entry.Load(); e != dropped && !yield(e) {
				return
			}
		}
	}
}

func (t *Table) sorted() []*cell {
	t.mu.RLock()
	order, current := t.order, len(t.fresh) == 0 && !t.stale
	t.mu.RUnlock()
	if current {
		return order
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	byID := func(a, b *cell) int { return strings.Compare(a.id, b.id) }
	slices.SortFunc(t.fresh, byID)
	merged := make([]*cell, 0, len(t.order)+len(t.fresh))
	a, b := t.order, t.fresh
	for len(a) > 0 && len(b) > 0 {
		if byID(a[0], b[0]) < 0 {
			merged, a = append(merged, a[0]), a[1:]
		} else {
			merged, b = append(merged, b[0]), b[1:]
		}
	}
	merged = append(append(merged, a...), b...)
	if t.stale {
		merged = slices.DeleteFunc(merged, func(c *cell) bool { return c.entry.Load() == dropped })
	}
	t.order, t.fresh, t.stale = merged, nil, false
	return merged
}
