package page

import (
	"cmp"
	"container/heap"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const (
	DefaultLimit = 50   // items of a page where a query does not say
	MaxLimit     = 1000 // items that a query may ask for
)

// ErrCursor: the cursor is not one of this list, this store or this run, or is too old.
var ErrCursor = errors.New("unknown cursor")

// Limit returns how many items a query asks for that says limit. Errors:
// [record.FieldError].
func Limit(limit int) (int, error) {
	switch {
	case limit == 0:
		return DefaultLimit, nil
	case limit < 0 || limit > MaxLimit:
		return 0, &record.FieldError{Field: "limit", Problem: fmt.Sprintf("is %d, must be 1 to %d", limit, MaxLimit)}
	}
	return limit, nil
}

// Place is where an item is in a sorted list: by its key, a number or a text, then by its
// id.
type Place struct {
	Num float64 `json:"n,omitempty"` // finite
	Str string  `json:"s,omitempty"`
	ID  string  `json:"i"`
}

// Cursor is a place in a list of a kind, as text.
func Cursor(kind string, p Place) string {
	b, _ := json.Marshal(struct {
		Kind string `json:"k"`
		Place
	}{kind, p}) // cannot fail: numbers here are finite
	return base64.RawURLEncoding.EncodeToString(b)
}

// Parse returns the place that a cursor of a list of this kind holds. Errors: ErrCursor.
func Parse(kind, cursor string) (Place, error) {
	var c struct {
		Kind string `json:"k"`
		Place
	}
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil || json.Unmarshal(b, &c) != nil || c.Kind != kind {
		return Place{}, ErrCursor
	}
	return c.Place, nil
}

// Order compares places. Descending turns the key around, not the id.
type Order struct{ Descending bool }

// Compare returns less than 0 where a comes before b, 0 where they are the same.
func (o Order) Compare(a, b Place) int {
	c := cmp.Compare(a.Num, b.Num)
	if c == 0 {
		c = strings.Compare(a.Str, b.Str)
	}
	if o.Descending {
		c = -c
	}
	if c == 0 {
		c = strings.Compare(a.ID, b.ID)
	}
	return c
}

// First keeps the first items of those that were added, so that a page out of many costs
// little more than looking at each once.
type First[T any] struct {
	Order Order
	After *Place // items up to this place are left out; nil: none are
	Limit int    // how many are kept, at least 1

	behind int // items behind After
	items  ordered[T]
}

// Item is an item and its place.
type Item[T any] struct {
	At   Place
	Item T
}

// Add takes an item.
func (f *First[T]) Add(at Place, item T) {
	if f.After != nil && f.Order.Compare(at, *f.After) <= 0 {
		return
	}
	f.behind++
	f.items.order = f.Order
	switch {
	case len(f.items.list) < f.Limit:
		heap.Push(&f.items, Item[T]{at, item})
	case f.Order.Compare(at, f.items.list[0].At) < 0:
		f.items.list[0] = Item[T]{at, item}
		heap.Fix(&f.items, 0)
	}
}

// More reports whether more items were added behind After than are kept.
func (f *First[T]) More() bool { return f.behind > len(f.items.list) }

// Sorted returns the items, and the cursor of the kind that continues behind them; empty:
// there are no more.
func (f *First[T]) Sorted(kind string) (items []Item[T], cursor string) {
	items = f.items.list
	slices.SortFunc(items, func(a, b Item[T]) int { return f.Order.Compare(a.At, b.At) })
	if f.More() {
		cursor = Cursor(kind, items[len(items)-1].At)
	}
	return items, cursor
}

// ordered is a heap with the last item on top.
type ordered[T any] struct {
	order Order
	list  []Item[T]
}

func (h *ordered[T]) Len() int           { return len(h.list) }
func (h *ordered[T]) Less(i, j int) bool { return h.order.Compare(h.list[i].At, h.list[j].At) > 0 }
func (h *ordered[T]) Swap(i, j int)      { h.list[i], h.list[j] = h.list[j], h.list[i] }
func (h *ordered[T]) Push(x any)         { h.list = append(h.list, x.(Item[T])) }
func (h *ordered[T]) Pop() any {
	last := h.list[len(h.list)-1]
	h.list = h.list[:len(h.list)-1]
	return last
}

// ContainsFold reports whether text, of which only ASCII counts, contains part in lower
// case, whatever its own.
func ContainsFold(text, part string) bool {
	for ; len(text) >= len(part); text = text[1:] {
		if strings.EqualFold(text[:len(part)], part) {
			return true
		}
	}
	return false
}
