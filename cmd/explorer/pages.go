package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/pflag"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/settings"
)

// pageSize is how many entries are asked for at once with --all, as many as a
// master gives.
const pageSize = 1000

// paging is which part of a list is wanted.
type paging struct {
	limit  int
	cursor string
	all    bool
}

func (p *paging) bind(flags *pflag.FlagSet) {
	flags.IntVar(&p.limit, "limit", 50, "how many, at most 1000")
	flags.StringVar(&p.cursor, "cursor", "", "go on after the page that gave this `cursor`")
	flags.BoolVar(&p.all, "all", false, "all of them, however many")
}

// listing is a list that comes in pages.
type listing[T any] struct {
	paging
	method string
	field  string // where the entries stand in the answer
	query  func(limit int, cursor string) any
	show   func([]T)
}

// list prints a list, or a page of it.
func list[T any](ctx context.Context, r *remote, p listing[T]) error {
	if p.limit < 1 || p.limit > pageSize {
		return &settings.UsageError{Err: fmt.Errorf("--limit: is %d; must lie between 1 and %d", p.limit, pageSize)}
	}
	c, err := r.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	limit, cursor := p.limit, p.cursor
	if p.all {
		limit = pageSize
	}
	all := []json.RawMessage{}
	for {
		result, err := r.callOn(ctx, c, p.method, p.query(limit, cursor))
		if err != nil {
			return err
		}
		if r.json && !p.all {
			return r.printJSON(result)
		}
		var page map[string]json.RawMessage
		var entries []json.RawMessage
		total := -1 // not known
		if err := decodeAll(result, &page); err != nil {
			return err
		}
		if err := decodeAll(page[p.field], &entries); err != nil {
			return err
		}
		cursor = ""
		if next, ok := page["next_cursor"]; ok {
			_ = json.Unmarshal(next, &cursor)
		}
		_ = json.Unmarshal(page["total"], &total)
		all = append(all, entries...)
		if p.all && cursor != "" && len(entries) > 0 {
			continue
		}
		if r.json {
			whole := map[string]any{p.field: all}
			if total >= 0 {
				whole["total"] = total
			}
			return r.printJSON(whole)
		}
		shown := make([]T, len(all))
		for i := range all {
			if err := decodeAll(all[i], &shown[i]); err != nil {
				return err
			}
		}
		p.show(shown)
		if cursor != "" {
			of := ""
			if total >= 0 {
				of = fmt.Sprintf(" of %d", total)
			}
			fmt.Fprintf(r.err, "%d%s; go on with --cursor %s, or see all with --all\n", len(shown), of, cursor)
		}
		return nil
	}
}
