package crdtstore

import (
	"cmp"
	"container/heap"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
)

const (
	defaultLimit = 50
	maxLimit     = 1000
)

// place is where something stands in a sorted list: by its key, a number or a
// text, then by its id. A cursor is the place of the last item of a page, so it
// stays good while items come and go.
type place struct {
	Num float64 `json:"n,omitempty"`
	Str string  `json:"s,omitempty"`
	ID  string  `json:"i"`
}

// order compares places; descending turns the key around, not the id.
type order struct{ descending bool }

func (o order) compare(a, b place) int {
	c := cmp.Compare(a.Num, b.Num)
	if c == 0 {
		c = strings.Compare(a.Str, b.Str)
	}
	if o.descending {
		c = -c
	}
	if c == 0 {
		c = strings.Compare(a.ID, b.ID)
	}
	return c
}

func encodeCursor(kind string, p place) string {
	b, _ := json.Marshal(struct {
		Kind string `json:"k"`
		place
	}{kind, p}) // cannot fail: numbers here are finite
	return base64.RawURLEncoding.EncodeToString(b)
}

func decodeCursor(kind, cursor string) (place, error) {
	var c struct {
		Kind string `json:"k"`
		place
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || json.Unmarshal(b, &c) != nil || c.Kind != kind {
		return place{}, ErrCursor
	}
	return c.place, nil
}

func limitOf(limit int) (int, error) {
	switch {
	case limit == 0:
		return defaultLimit, nil
	case limit < 0 || limit > maxLimit:
		return 0, &FieldError{Field: "limit", Problem: fmt.Sprintf("is %d, must be 1 to %d", limit, maxLimit)}
	}
	return limit, nil
}

// first keeps the least k items that were added, so that a page out of many
// costs little more than looking at each once.
type first[T any] struct {
	order order
	most  int
	items []placed[T] // a heap with the greatest on top
}

type placed[T any] struct {
	at   place
	item T
}

func (f *first[T]) Len() int           { return len(f.items) }
func (f *first[T]) Less(i, j int) bool { return f.order.compare(f.items[i].at, f.items[j].at) > 0 }
func (f *first[T]) Swap(i, j int)      { f.items[i], f.items[j] = f.items[j], f.items[i] }
func (f *first[T]) Push(x any)         { f.items = append(f.items, x.(placed[T])) }
func (f *first[T]) Pop() any {
	last := f.items[len(f.items)-1]
	f.items = f.items[:len(f.items)-1]
	return last
}

func (f *first[T]) add(at place, item T) {
	switch {
	case len(f.items) < f.most:
		heap.Push(f, placed[T]{at, item})
	case f.order.compare(at, f.items[0].at) < 0:
		f.items[0] = placed[T]{at, item}
		heap.Fix(f, 0)
	}
}

func (f *first[T]) sorted() []placed[T] {
	slices.SortFunc(f.items, func(a, b placed[T]) int { return f.order.compare(a.at, b.at) })
	return f.items
}

// nodeKey is a way to sort nodes.
type nodeKey struct {
	of func(m *moment, e *table.Entry, v *vital) place
	// vital: the pulses of a node are needed for it.
	vital bool
}

var nodeKeys = map[string]nodeKey{
	"node_id":    ofEntry(func(*table.Entry) place { return place{} }),
	"hostname":   ofEntry(func(e *table.Entry) place { return place{Str: strings.ToLower(e.Hostname)} }),
	"location":   ofEntry(func(e *table.Entry) place { return place{Str: e.Country + "/" + e.City} }),
	"created_at": ofEntry(func(e *table.Entry) place { return place{Num: float64(e.Created)} }),
	"updated_at": ofEntry(func(e *table.Entry) place { return place{Num: float64(e.Updated)} }),
	"vms":        ofEntry(func(e *table.Entry) place { return place{Num: float64(vmCount(e))} }),
	"status":     {func(_ *moment, _ *table.Entry, v *vital) place { return place{Str: string(v.status)} }, true},
	"last_seen": {func(m *moment, e *table.Entry, v *vital) place {
		return place{Num: max(float64(e.State.LastSeen), millis(m.lastSeen(v)))}
	}, true},
	"free_cru":    ofFree(func(f MinFree) float64 { return f.CRU }),
	"free_mru":    ofFree(func(f MinFree) float64 { return float64(f.MRU) }),
	"free_sru":    ofFree(func(f MinFree) float64 { return float64(f.SRU) }),
	"free_hru":    ofFree(func(f MinFree) float64 { return float64(f.HRU) }),
	"free_slices": ofFree(func(f MinFree) float64 { return float64(f.Slices) }),
}

func ofEntry(of func(*table.Entry) place) nodeKey {
	return nodeKey{func(_ *moment, e *table.Entry, _ *vital) place { return of(e) }, false}
}

func ofFree(of func(MinFree) float64) nodeKey {
	return nodeKey{func(_ *moment, e *table.Entry, v *vital) place { return place{Num: of(free(e, v))} }, true}
}

// containsFold reports whether an id, which is ASCII, contains a text in lower case,
// whatever the id's.
func containsFold(id, text string) bool {
	for ; len(id) >= len(text); id = id[1:] {
		if strings.EqualFold(id[:len(text)], text) {
			return true
		}
	}
	return false
}

func vmCount(e *table.Entry) int {
	n := 0
	for _, c := range e.VMs {
		n += c.VMs
	}
	return n
}

func millis(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli())
}

func laterOf(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// free is what of a node is not in use.
func free(e *table.Entry, v *vital) MinFree {
	t, u := e.Total, v.Usage
	return MinFree{
		CRU: max(t.CRU-u.CRU, 0),
		MRU: less(t.MRU, u.MRU), SRU: less(t.SRU, u.SRU), HRU: less(t.HRU, u.HRU),
		Slices: less(e.Slices, u.Slices),
	}
}

func less(a, b uint64) uint64 { return a - min(a, b) }

// Nodes returns a page of nodes. Errors: ErrCursor, [FieldError].
func (s *Store) Nodes(q NodeQuery) (NodePage, error) {
	limit, err := limitOf(q.Limit)
	if err != nil {
		return NodePage{}, err
	}
	switch q.Status {
	case "", Online, Suspect, Offline:
	default:
		return NodePage{}, &FieldError{Field: "status", Problem: fmt.Sprintf("is %q, must be online, suspect or offline", q.Status)}
	}
	name, descending := strings.CutPrefix(q.Sort, "-")
	if name == "" {
		name = "node_id"
	}
	key, ok := nodeKeys[name]
	if !ok {
		return NodePage{}, &FieldError{Field: "sort", Problem: fmt.Sprintf("is %q, must be one of %s, with - before it to turn it around", q.Sort, sortNames())}
	}
	kind := "node/" + name
	if descending {
		kind = "node/-" + name
	}
	var after place
	if q.Cursor != "" {
		if after, err = decodeCursor(kind, q.Cursor); err != nil {
			return NodePage{}, err
		}
	}
	if name == "node_id" && descending {
		// The id is the key here, so that it turns around too.
		key = ofEntry(func(e *table.Entry) place { return place{Str: e.ID} })
	}

	m := s.at(time.Now())
	page := first[*table.Entry]{order: order{descending}, most: limit}
	total, rest := 0, 0
	add := func(e *table.Entry, v *vital) {
		at := key.of(m, e, v)
		at.ID = e.ID
		if q.Cursor != "" && page.order.compare(at, after) <= 0 {
			return
		}
		rest++
		page.add(at, e)
	}
	if name == "node_id" && !descending && q.takesAll() {
		// Nodes lie in this order, and are counted.
		if _, total = s.table.Digest(); q.IncludeRemoved {
			total = s.table.Len()
		}
		for e := range s.table.After(after.ID) {
			if e.Removed && !q.IncludeRemoved {
				continue
			}
			if add(e, nil); rest > limit {
				break
			}
		}
	} else {
		match, alive, contested := q.entries(), q.vitals(), s.contested(m.now)
		needed := key.vital || alive != nil
		var v vital
		for e := range s.table.All() {
			if e.Removed && !q.IncludeRemoved || !match(e) || q.Conflict && !contested(e) {
				continue
			}
			if needed {
				m.vital(e, &v)
			}
			if alive != nil && !alive(e, &v) {
				continue
			}
			total++
			add(e, &v)
		}
	}
	items := page.sorted()
	out := NodePage{Nodes: make([]Node, len(items)), Total: total}
	for i, it := range items {
		out.Nodes[i] = m.show(it.item)
	}
	if rest > len(items) {
		out.NextCursor = encodeCursor(kind, items[len(items)-1].at)
	}
	return out, nil
}

func sortNames() string {
	names := make([]string, 0, len(nodeKeys))
	for n := range nodeKeys {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// takesAll reports whether a query asks for all nodes, but for removed ones.
func (q *NodeQuery) takesAll() bool {
	return q.Q == "" && q.Location == "" && len(q.Labels) == 0 && !q.Conflict && q.vitals() == nil
}

// entries returns whether a node is asked for, as far as its record tells.
func (q *NodeQuery) entries() func(*table.Entry) bool {
	text := strings.ToLower(q.Q)
	return func(e *table.Entry) bool {
		if text != "" && !strings.Contains(e.Search, text) && !containsFold(e.ID, text) {
			return false
		}
		if q.Location != "" && !strings.EqualFold(e.Country, q.Location) &&
			!strings.EqualFold(e.City, q.Location) {
			return false
		}
		for k, want := range q.Labels {
			if have, ok := e.Label(k); !ok || have != want {
				return false
			}
		}
		return true
	}
}

// vitals returns whether a node is asked for, as far as its pulses tell; nil: they do
// not matter.
func (q *NodeQuery) vitals() func(*table.Entry, *vital) bool {
	if q.Status == "" && q.MinFree == (MinFree{}) {
		return nil
	}
	return func(e *table.Entry, v *vital) bool {
		if q.Status != "" && v.status != q.Status {
			return false
		}
		f := free(e, v)
		return f.CRU >= q.MinFree.CRU && f.MRU >= q.MinFree.MRU && f.SRU >= q.MinFree.SRU &&
			f.HRU >= q.MinFree.HRU && f.Slices >= q.MinFree.Slices
	}
}

// VM returns the VM of the given sid; nodeID may be empty where the sid is
// enough: where several nodes have a VM of that sid, it is an error. Errors:
// ErrNotFound, [FieldError].
func (s *Store) VM(nodeID, sid string) (VM, error) {
	var found []VM
	for v := range s.vms(nodeID) {
		if v.SID == sid {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 0:
		return VM{}, ErrNotFound
	case 1:
		return found[0], nil
	}
	return VM{}, &FieldError{Field: "node_id", Problem: fmt.Sprintf("is needed: %d nodes have a VM %q", len(found), sid)}
}

// vms yields the VMs of one node, or of all that are not removed.
func (s *Store) vms(nodeID string) func(func(VM) bool) {
	now := time.Now()
	return func(yield func(VM) bool) {
		if nodeID != "" {
			if e := s.table.Get(nodeID); e != nil && !e.Removed {
				for _, v := range s.vmsOf(now, e) {
					if !yield(v) {
						return
					}
				}
			}
			return
		}
		for e := range s.table.All() {
			if e.Removed {
				continue
			}
			for _, v := range s.vmsOf(now, e) {
				if !yield(v) {
					return
				}
			}
		}
	}
}

// VMs returns a page of VMs. Errors: ErrCursor, [FieldError].
func (s *Store) VMs(q VMQuery) (VMPage, error) {
	limit, err := limitOf(q.Limit)
	if err != nil {
		return VMPage{}, err
	}
	var after place
	if q.Cursor != "" {
		if after, err = decodeCursor("vm", q.Cursor); err != nil {
			return VMPage{}, err
		}
	}
	text := strings.ToLower(q.Q)
	page := first[VM]{most: limit}
	total, rest := 0, 0
	for v := range s.vms(q.NodeID) {
		if q.State != "" && v.State != q.State {
			continue
		}
		if text != "" && !strings.Contains(strings.ToLower(v.SID+"\x00"+v.Name+"\x00"+v.IP), text) {
			continue
		}
		total++
		at := place{Str: v.SID, ID: v.NodeID}
		if q.Cursor != "" && page.order.compare(at, after) <= 0 {
			continue
		}
		rest++
		page.add(at, v)
	}
	out := VMPage{VMs: make([]VM, 0, limit), Total: total}
	items := page.sorted()
	for _, it := range items {
		out.VMs = append(out.VMs, it.item)
	}
	if rest > len(items) {
		out.NextCursor = encodeCursor("vm", items[len(items)-1].at)
	}
	return out, nil
}
