package query

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/page"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Source is what a list needs to know beside the table, all of it as of one instant. It is
// used by one goroutine.
type Source interface {
	// Vital looks up what pulses tell of a node.
	Vital(e *table.Entry, v *Vital)
	// Conflict reports whether several machines claim to be a node.
	Conflict(e *table.Entry) bool
	// Node is all that is known of a node.
	Node(e *table.Entry) record.Node
	// VMs are those of a node that is not removed, ordered by sid.
	VMs(e *table.Entry) []record.VM
}

// Vital is what pulses tell of a node.
type Vital struct {
	Status   record.Status
	Usage    record.Usage
	LastSeen time.Time // zero: no master has heard it in this run
}

// NodeQuery chooses nodes: those that match all that is set. The zero NodeQuery asks
// for the first 50 by id.
type NodeQuery struct {
	Status record.Status     `json:"status"` // empty: any
	Labels map[string]string `json:"labels"` // all must match
	// Q matches, whatever the case, a part of the id, the hostname, an address,
	// a label or the name or sid of a VM.
	Q        string  `json:"q"`
	Location string  `json:"location"` // country or city, whatever the case
	MinFree  MinFree `json:"min_free"`
	// Sort is one of node_id (the default), hostname, status, location,
	// last_seen, created_at, updated_at, free_cru, free_mru, free_sru, free_hru,
	// free_slices, vms; with "-" before it, descending. Ties go by node id.
	Sort  string `json:"sort"`
	Limit int    `json:"limit"` // 0: 50; at most 1,000
	// Cursor continues after the page that returned it, with the same Sort. It
	// stays valid while nodes come and go.
	Cursor string `json:"cursor"`
	// IncludeRemoved shows nodes that were removed too, as long as they are
	// remembered.
	IncludeRemoved bool `json:"include_removed"`
	// Conflict asks for the nodes whose id several machines claim.
	Conflict bool `json:"conflict"`
}

// MinFree is the least free capacity that a node must have, in cores (CRU), bytes of
// memory (MRU), SSD (SRU) and HDD (HRU), and slices. Zero: any.
type MinFree struct {
	CRU    float64 `json:"cru"`
	MRU    uint64  `json:"mru"`
	SRU    uint64  `json:"sru"`
	HRU    uint64  `json:"hru"`
	Slices uint64  `json:"slices"`
}

// NodePage is one page of nodes.
type NodePage struct {
	Nodes      []record.Node `json:"nodes"`
	Total      int           `json:"total"`                 // nodes that match, over all pages
	NextCursor string        `json:"next_cursor,omitempty"` // of the next page; empty: this is the last
}

// Nodes returns a page of the nodes in a table. Errors: [page.ErrCursor],
// [record.FieldError].
func Nodes(t *table.Table, src Source, q NodeQuery) (NodePage, error) {
	limit, err := page.Limit(q.Limit)
	if err != nil {
		return NodePage{}, err
	}
	switch q.Status {
	case "", record.Online, record.Suspect, record.Offline:
	default:
		return NodePage{}, &record.FieldError{Field: "status", Problem: fmt.Sprintf("is %q, must be online, suspect or offline", q.Status)}
	}
	name, descending := strings.CutPrefix(q.Sort, "-")
	if name == "" {
		name = "node_id"
	}
	key, ok := nodeKeys[name]
	if !ok {
		return NodePage{}, &record.FieldError{Field: "sort", Problem: fmt.Sprintf("is %q, must be one of %s, with - before it to turn it around", q.Sort, sortNames())}
	}
	kind := "node/" + name
	if descending {
		kind = "node/-" + name
	}
	first := page.First[*table.Entry]{Order: page.Order{Descending: descending}, Limit: limit}
	if q.Cursor != "" {
		after, err := page.Parse(kind, q.Cursor)
		if err != nil {
			return NodePage{}, err
		}
		first.After = &after
	}
	if name == "node_id" && descending {
		// The id is the key here, so that it turns around too.
		key = ofEntry(func(e *table.Entry) page.Place { return page.Place{Str: e.ID} })
	}
	total := 0
	if name == "node_id" && !descending && q.takesAll() {
		total = inOrder(t, &q, &first)
	} else {
		match, alive := q.entries(), q.vitals()
		needed := key.vital || alive != nil
		var v Vital
		for e := range t.All() {
			if e.Removed && !q.IncludeRemoved || !match(e) || q.Conflict && !src.Conflict(e) {
				continue
			}
			if needed {
				src.Vital(e, &v)
			}
			if alive != nil && !alive(e, &v) {
				continue
			}
			total++
			at := key.of(e, &v)
			at.ID = e.ID
			first.Add(at, e)
		}
	}
	items, next := first.Sorted(kind)
	out := NodePage{Nodes: make([]record.Node, len(items)), Total: total, NextCursor: next}
	for i, it := range items {
		out.Nodes[i] = src.Node(it.Item)
	}
	return out, nil
}

// inOrder takes nodes in the order in which they lie in the table, until the page is full.
// It returns how many there are, which the table has counted.
func inOrder(t *table.Table, q *NodeQuery, first *page.First[*table.Entry]) (total int) {
	if _, total = t.Digest(); q.IncludeRemoved {
		total = t.Len()
	}
	after := ""
	if first.After != nil {
		after = first.After.ID
	}
	for e := range t.After(after) {
		if e.Removed && !q.IncludeRemoved {
			continue
		}
		if first.Add(page.Place{ID: e.ID}, e); first.More() {
			break
		}
	}
	return total
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
		if text != "" && !strings.Contains(e.Search, text) && !page.ContainsFold(e.ID, text) {
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
func (q *NodeQuery) vitals() func(*table.Entry, *Vital) bool {
	if q.Status == "" && q.MinFree == (MinFree{}) {
		return nil
	}
	return func(e *table.Entry, v *Vital) bool {
		if q.Status != "" && v.Status != q.Status {
			return false
		}
		f := Free(e, v.Usage)
		return f.CRU >= q.MinFree.CRU && f.MRU >= q.MinFree.MRU && f.SRU >= q.MinFree.SRU &&
			f.HRU >= q.MinFree.HRU && f.Slices >= q.MinFree.Slices
	}
}

// nodeKey is a way to sort nodes.
type nodeKey struct {
	of func(e *table.Entry, v *Vital) page.Place
	// vital: the pulses of a node are needed for it.
	vital bool
}

var nodeKeys = map[string]nodeKey{
	"node_id":    ofEntry(func(*table.Entry) page.Place { return page.Place{} }),
	"hostname":   ofEntry(func(e *table.Entry) page.Place { return page.Place{Str: strings.ToLower(e.Hostname)} }),
	"location":   ofEntry(func(e *table.Entry) page.Place { return page.Place{Str: e.Country + "/" + e.City} }),
	"created_at": ofEntry(func(e *table.Entry) page.Place { return page.Place{Num: float64(e.Created)} }),
	"updated_at": ofEntry(func(e *table.Entry) page.Place { return page.Place{Num: float64(e.Updated)} }),
	"vms":        ofEntry(func(e *table.Entry) page.Place { return page.Place{Num: float64(vmCount(e))} }),
	"status":     {func(_ *table.Entry, v *Vital) page.Place { return page.Place{Str: string(v.Status)} }, true},
	"last_seen": {func(e *table.Entry, v *Vital) page.Place {
		return page.Place{Num: max(float64(e.State.LastSeen), millis(v.LastSeen))}
	}, true},
	"free_cru":    ofFree(func(f MinFree) float64 { return f.CRU }),
	"free_mru":    ofFree(func(f MinFree) float64 { return float64(f.MRU) }),
	"free_sru":    ofFree(func(f MinFree) float64 { return float64(f.SRU) }),
	"free_hru":    ofFree(func(f MinFree) float64 { return float64(f.HRU) }),
	"free_slices": ofFree(func(f MinFree) float64 { return float64(f.Slices) }),
}

func ofEntry(of func(*table.Entry) page.Place) nodeKey {
	return nodeKey{func(e *table.Entry, _ *Vital) page.Place { return of(e) }, false}
}

func ofFree(of func(MinFree) float64) nodeKey {
	return nodeKey{func(e *table.Entry, v *Vital) page.Place { return page.Place{Num: of(Free(e, v.Usage))} }, true}
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

// Free is what of a node is not in use.
func Free(e *table.Entry, u record.Usage) MinFree {
	t := e.Total
	return MinFree{
		CRU: max(t.CRU-u.CRU, 0),
		MRU: less(t.MRU, u.MRU), SRU: less(t.SRU, u.SRU), HRU: less(t.HRU, u.HRU),
		Slices: less(e.Slices, u.Slices),
	}
}

func less(a, b uint64) uint64 { return a - min(a, b) }
