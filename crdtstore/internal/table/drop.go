package table

// dropped stands in the cell of a node that was dropped, so that who holds on to
// the cell looks for the node's next one.
var dropped = &Entry{}

// Drop takes an entry out of the table, unless it has changed since it was read.
// It reports whether it did.
func (t *Table) Drop(e *Entry) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.cells[e.ID]
	if c == nil || !c.entry.CompareAndSwap(e, dropped) {
		return false
	}
	delete(t.cells, e.ID)
	t.stale = true
	// The entry may not have been counted yet; the sums come out the same.
	sum := &t.buckets[Bucket(e.ID)]
	*sum, t.digest = sum.Xor(e.digest), t.digest.Xor(e.digest)
	t.bytes -= e.size
	if !e.Removed {
		t.live--
	}
	return true
}
