package table

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Entry is what is known of one node. Entries are immutable: a change makes a
// new one. Of the view of its state it holds only what lists are filtered, sorted
// and summed up by; the rest takes three times as much memory, and is made when it
// is asked for.
type Entry struct {
	ID       string
	Removed  bool
	Drained  bool
	Boot     uint64
	Total    record.Capacity
	Slices   uint64
	Hostname string
	Country  string
	City     string
	Created  int64 // Unix milliseconds; 0: not known
	Updated  int64
	VMs      []Count // by state
	labels   []label // ascending
	State    record.State
	// Search is what a free-text query looks through, in lower case, beside the id.
	Search string
	digest record.Digest
	size   int // of the encoded state, in bytes
}

// Count is how many VMs are in a state.
type Count struct {
	State string
	VMs   int
}

// CountVMs counts VMs by state.
func CountVMs(vms []record.VM) (counts []Count) {
	for _, v := range vms {
		at := slices.IndexFunc(counts, func(c Count) bool { return c.State == v.State })
		if at < 0 {
			at = len(counts)
			counts = append(counts, Count{State: v.State})
		}
		counts[at].VMs++
	}
	return counts
}

type label struct{ name, value string }

// newEntry makes an entry. Where nothing but the time at which the node was last
// seen has changed since before, it shares the rest.
func newEntry(id string, s record.State, before *Entry) *Entry {
	e := &Entry{}
	if before.onlySeen(s) {
		*e = *before
	} else {
		e.ID, e.Removed = id, s.Removed()
		e.view(record.View(id, s))
	}
	e.State = s
	e.digest, e.size = s.Measure(id)
	return e
}

// view takes over what is needed of a node's view.
func (e *Entry) view(n record.Node) {
	e.Drained, e.Boot, e.Total, e.Slices = n.Drained, n.Boot, n.Total, n.SlicesTotal
	e.Hostname, e.Country, e.City = n.Hostname, n.Location.Country, n.Location.City
	e.Created, e.Updated = millis(n.CreatedAt), millis(n.UpdatedAt)
	e.labels = make([]label, 0, len(n.Labels))
	for k, v := range n.Labels {
		e.labels = append(e.labels, label{k, v})
	}
	slices.SortFunc(e.labels, func(a, b label) int { return cmp.Compare(a.name, b.name) })
	e.VMs = CountVMs(n.VMs)
	e.Search = searchText(n)
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// Node returns the view of the entry's state; its pulse fields are empty.
func (e *Entry) Node() record.Node { return record.View(e.ID, e.State) }

// ListVMs returns the VMs of the view.
func (e *Entry) ListVMs() []record.VM {
	if len(e.VMs) == 0 {
		return nil
	}
	return e.State.VMs(e.ID)
}

// Label returns the value of a label of the view.
func (e *Entry) Label(name string) (string, bool) {
	i, ok := slices.BinarySearchFunc(e.labels, name, func(l label, name string) int { return cmp.Compare(l.name, name) })
	if !ok {
		return "", false
	}
	return e.labels[i].value, true
}

// onlySeen reports whether a state differs from the entry's in no more than when
// the node was last seen.
func (e *Entry) onlySeen(s record.State) bool {
	if e == nil {
		return false
	}
	s.LastSeen = e.State.LastSeen
	return s.Equal(e.State)
}

// OnlySeen reports whether two entries of a node differ in no more than when it
// was last seen.
func (e *Entry) OnlySeen(f *Entry) bool { return e.onlySeen(f.State) }

// Digest returns the digest of the entry's state.
func (e *Entry) Digest() record.Digest { return e.digest }

// searchText joins the texts of a node by a byte that no query contains.
func searchText(n record.Node) string {
	texts := []string{n.Hostname, n.SocketPath, n.MyceliumIP}
	for k, v := range n.Labels {
		texts = append(texts, k+"="+v)
	}
	for _, v := range n.VMs {
		texts = append(texts, v.SID, v.Name)
	}
	size := 0
	for _, s := range texts {
		size += len(s) + 1
	}
	var b strings.Builder
	b.Grow(size)
	for _, s := range texts {
		if s != "" {
			b.WriteString(s)
			b.WriteByte(0)
		}
	}
	return strings.ToLower(b.String())
}
