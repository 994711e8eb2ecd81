package events

import (
	"fmt"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/page"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Query chooses events. The fields are documented at crdtstore.EventQuery; Master must be an
// id.
type Query struct {
	Kind   Kind
	NodeID string
	Master string
	Q      string
	Limit  int
	Cursor string
}

const (
	cursorKind = "events"
	// chunk is how many events are looked at in one go, which bounds for how long a reader
	// holds up those who add some.
	chunk = 512
)

// Page returns the latest events that match, the latest first, and the cursor of the page
// that follows; "" where none does. Errors: [page.ErrCursor], also for a cursor of an
// earlier run; [record.FieldError].
func (l *Log) Page(q Query) (events []*Event, next string, err error) {
	limit, err := page.Limit(q.Limit)
	if err != nil {
		return nil, "", err
	}
	switch q.Kind {
	case "", KindNode, KindVM, KindMaster, KindOperator, KindGrid:
	default:
		return nil, "", &record.FieldError{Field: "kind", Problem: fmt.Sprintf("is %q, must be node, vm, master, operator or grid", q.Kind)}
	}
	if q.NodeID != "" {
		if err := record.ValidNodeID(q.NodeID); err != nil {
			return nil, "", err
		}
	}
	below := ^uint64(0)
	if q.Cursor != "" {
		at, err := page.Parse(cursorKind, q.Cursor)
		if err != nil || at.Str != l.opts.Run || !(at.Num >= 1 && at.Num < 1<<53) {
			return nil, "", page.ErrCursor
		}
		below = uint64(at.Num)
	}
	var some [chunk]*Event
	for {
		seen := l.before(below, some[:0])
		if len(seen) == 0 {
			return events, "", nil
		}
		for _, e := range seen {
			if !q.Matches(e) {
				continue
			}
			if len(events) == limit {
				return events, page.Cursor(cursorKind, page.Place{Str: l.opts.Run, Num: float64(events[limit-1].ID)}), nil
			}
			events = append(events, e)
		}
		below = seen[len(seen)-1].ID
	}
}

// before fills a list with the latest events below an id, the latest first.
func (l *Log) before(id uint64, into []*Event) []*Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, b := l.frequent.below(id), l.rare.below(id)
	for len(into) < cap(into) && a+b > 0 {
		if b == 0 || a > 0 && l.frequent.at(a-1).ID > l.rare.at(b-1).ID {
			a--
			into = append(into, l.frequent.at(a))
		} else {
			b--
			into = append(into, l.rare.at(b))
		}
	}
	return into
}

// Matches reports whether an event is one of those that are asked for. Limit and Cursor do
// not matter.
func (q *Query) Matches(e *Event) bool {
	if q.Kind != "" && e.Kind != q.Kind || q.NodeID != "" && e.NodeID != q.NodeID || q.Master != "" && e.Master != q.Master {
		return false
	}
	if q.Q == "" {
		return true
	}
	for _, text := range [...]string{e.Text, e.Type, e.By, e.NodeID, e.VM} {
		if page.ContainsFold(text, q.Q) {
			return true
		}
	}
	return false
}
