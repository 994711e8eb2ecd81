package query

import (
	"iter"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/page"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// VMQuery chooses VMs of nodes that are not removed, ordered by sid, then node. The
// zero VMQuery asks for the first 50.
type VMQuery struct {
	NodeID string `json:"node_id"` // empty: of all nodes
	State  string `json:"state"`   // empty: any
	Q      string `json:"q"`       // part of the sid, the name or the address, whatever the case
	Limit  int    `json:"limit"`   // 0: 50; at most 1,000
	Cursor string `json:"cursor"`  // continues after the page that returned it
}

// VMPage is one page of VMs.
type VMPage struct {
	VMs        []record.VM `json:"vms"`
	Total      int         `json:"total"`                 // VMs that match, over all pages
	NextCursor string      `json:"next_cursor,omitempty"` // of the next page; empty: this is the last
}

// VMs returns a page of the VMs of nodes in a table. Errors: [page.ErrCursor],
// [record.FieldError].
func VMs(t *table.Table, src Source, q VMQuery) (VMPage, error) {
	limit, err := page.Limit(q.Limit)
	if err != nil {
		return VMPage{}, err
	}
	first := page.First[record.VM]{Limit: limit}
	if q.Cursor != "" {
		after, err := page.Parse("vm", q.Cursor)
		if err != nil {
			return VMPage{}, err
		}
		first.After = &after
	}
	text := strings.ToLower(q.Q)
	total := 0
	for v := range vms(t, src, q.NodeID) {
		if q.State != "" && v.State != q.State {
			continue
		}
		if text != "" && !strings.Contains(strings.ToLower(v.SID+"\x00"+v.Name+"\x00"+v.IP), text) {
			continue
		}
		total++
		first.Add(page.Place{Str: v.SID, ID: v.NodeID}, v)
	}
	items, next := first.Sorted("vm")
	out := VMPage{VMs: make([]record.VM, len(items)), Total: total, NextCursor: next}
	for i, it := range items {
		out.VMs[i] = it.Item
	}
	return out, nil
}

// WithSID returns the VMs of the given sid, of one node or, where none is given, of all.
func WithSID(t *table.Table, src Source, nodeID, sid string) (found []record.VM) {
	for v := range vms(t, src, nodeID) {
		if v.SID == sid {
			found = append(found, v)
		}
	}
	return found
}

// vms yields the VMs of one node, or of all that are not removed.
func vms(t *table.Table, src Source, nodeID string) iter.Seq[record.VM] {
	return func(yield func(record.VM) bool) {
		nodes := t.All()
		if nodeID != "" {
			nodes = func(yield func(*table.Entry) bool) {
				if e := t.Get(nodeID); e != nil {
					yield(e)
				}
			}
		}
		for e := range nodes {
			if e.Removed {
				continue
			}
			for _, v := range src.VMs(e) {
				if !yield(v) {
					return
				}
			}
		}
	}
}
