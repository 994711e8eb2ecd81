package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/output"
	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/settings"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer"
)

func (p *program) eventsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "events",
		Short: "Show what happened: to nodes, VMs and masters, and what operators said",
		Long: `Show what happened to nodes, VMs and masters, and what operators said through
whichever master, the latest first. With --follow, the latest last, and then what
happens, until interrupted; with --json each is one line of JSON then. When a master
fails, another one goes on, and tells what it saw.`,
	}
	r := p.bind(cmd)
	var (
		q      crdtstore.EventQuery
		kind   string
		pages  paging
		follow bool
	)
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&kind, "kind", "", "only what is about a `node`, vm, master, operator or the grid")
	flags.StringVar(&q.NodeID, "node", "", "only what is about a `node`")
	flags.StringVar(&q.Master, "master", "", "only what is about a `master`, or was said through it")
	flags.StringVar(&q.Q, "q", "", "only what has this `text` in it")
	flags.BoolVar(&follow, "follow", false, "go on with what happens")
	pages.bind(flags)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		q.Kind = crdtstore.EventKind(kind)
		query := func(limit int, cursor string) any {
			q.Limit, q.Cursor = limit, cursor
			return given(q)
		}
		if !follow {
			return list(cmd.Context(), r, listing[crdtstore.Event]{pages, "events", "events", query, r.printEvents})
		}
		if pages.cursor != "" || pages.all {
			return &settings.UsageError{Err: errors.New("--follow begins with the latest; leave out --cursor and --all")}
		}
		q.Limit = pages.limit
		var err error
		if q.Master, err = r.masterID(cmd.Context(), q.Master); err != nil {
			return err
		}
		f := &eventFollower{follower: follower{remote: r, path: "/events?snapshot=brief&log=1"}, query: q}
		f.take = f.event
		return f.run(cmd.Context())
	}
	return cmd
}

func (r *remote) printEvents(page []crdtstore.Event) {
	t := newTable(r.out, "TIME", "KIND", "WHAT", "EVENT")
	for _, o := range page {
		t.row(eventRow(o)...)
	}
	t.flush()
}

func eventRow(o crdtstore.Event) []string {
	return []string{o.At.Local().Format(time.DateTime), string(o.Kind), o.Type, o.Text}
}

// masterID returns the id of a master that is given by id or name. One that is not
// known may still have been.
func (r *remote) masterID(ctx context.Context, given string) (string, error) {
	if given == "" {
		return "", nil
	}
	result, err := r.call(ctx, "masters", nil)
	if err != nil {
		return "", err
	}
	var answer explorer.MastersAnswer
	if err := decodeAll(result, &answer); err != nil {
		return "", err
	}
	for _, m := range answer.Masters {
		if m.Name == given {
			return m.ID, nil
		}
	}
	return given, nil
}

// eventFollower prints what happens.
type eventFollower struct {
	follower
	query crdtstore.EventQuery
	// latest is the greatest id that the master has listed: a stream begins before its
	// list is asked for. at is when what was printed last happened.
	latest uint64
	at     time.Time
}

func (f *eventFollower) event(ctx context.Context, e event) error {
	switch e.kind {
	case "snapshot":
		return f.list(ctx)
	case string(crdtstore.LogChange):
		var o crdtstore.Event
		if err := decodeAll(json.RawMessage(e.data), &o); err != nil {
			return err
		}
		if o.ID > f.latest && f.query.Matches(&o) {
			return f.print(o, e.data)
		}
	}
	return nil
}

// list prints what happened before a stream begins. Masters count each for itself, so
// where another one goes on only time tells what was printed.
func (f *eventFollower) list(ctx context.Context) error {
	result, err := f.callOn(ctx, f.client, "events", given(f.query))
	if err != nil {
		return err
	}
	var page struct{ Events []json.RawMessage }
	if err := decodeAll(result, &page); err != nil {
		return err
	}
	since := f.at
	f.latest = 0
	for _, raw := range slices.Backward(page.Events) {
		var o crdtstore.Event
		if err := decodeAll(raw, &o); err != nil {
			return err
		}
		f.latest = max(f.latest, o.ID)
		if o.At.After(since) {
			if err := f.print(o, raw); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *eventFollower) print(o crdtstore.Event, raw json.RawMessage) error {
	if o.At.After(f.at) {
		f.at = o.At
	}
	if f.json {
		return f.printLine(raw)
	}
	cells := eventRow(o)
	for i := range cells {
		cells[i] = cell(cells[i])
	}
	_, err := fmt.Fprintf(f.out, "%s  %s  %s  %s\n",
		output.Pad(cells[0], 19), output.Pad(cells[1], 8), output.Pad(cells[2], 10), cells[3])
	return err
}
