package events

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/page"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// newLog is a log of a master whose records are in a table.
func newLog(run string) *Log {
	return New(Options{
		Run: run, Self: "self", Wall: time.Now, Name: func(id string) string { return id },
		MasterStatus: func(string) string { return "" },
		Node:         func(string) (record.Node, error) { return record.Node{}, nil },
		Publish:      func(*Event) {},
	})
}

// everything reads the log page by page, the latest first.
func (l *Log) everything(t rapid.TB, q Query) (all []Event) {
	t.Helper()
	for {
		events, next, err := l.Page(q)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			all = append(all, *e)
		}
		if q.Cursor = next; q.Cursor == "" {
			return all
		}
	}
}

// However much happens, the log does not grow, and what nodes do does not push out what
// operators said.
func TestEventsIsBounded(t *testing.T) {
	l := newLog("run")
	long := strings.Repeat("é", 1000)
	l.add(Event{Kind: KindOperator, Type: TypeDrained, Text: "the override"}, 1, true)
	for i := range 4 * maxEvents {
		l.add(Event{Kind: KindNode, Type: fmt.Sprint(i % 200), Text: long, By: long, NodeID: long, VM: long, Master: long}, 0, true)
		if i%1000 == 0 {
			l.refill()
		}
	}
	if l.rare.at(0).Text != "the override" {
		t.Error("nodes have pushed out what an operator said")
	}
	for i := range 2 * maxEvents {
		l.add(Event{Kind: KindOperator, Type: TypeDrained, Text: long}, uint64(i+2), true)
	}
	if n := len(l.frequent.slots) + len(l.rare.slots); n != maxEvents {
		t.Errorf("%d are remembered, want %d", n, maxEvents)
	}
	if len(l.keys) != maxEvents/2 {
		t.Errorf("%d keys", len(l.keys))
	}
	for _, o := range l.before(1<<60, make([]*Event, 0, maxEvents)) {
		for _, text := range []string{o.Text, o.By, o.NodeID, o.VM, o.Master} {
			if len(text) > maxEventText || !utf8.ValidString(text) {
				t.Fatalf("%d bytes are remembered: %q", len(text), text)
			}
		}
	}
}

// Of a burst only some is listed, and nothing is lost from the count.
func TestBurstsAreToldInFewEvents(t *testing.T) {
	l := newLog("run")
	for i := range 10_000 {
		l.Add(Event{Kind: KindNode, Type: TypeOffline, NodeID: fmt.Sprint("n", i)})
	}
	l.refill()
	all := l.everything(t, Query{Limit: 1000})
	if len(all) != eventBurst+1 || all[0].More != 10_000-eventBurst || !strings.Contains(all[0].Text, "9900 more nodes") {
		t.Errorf("%d are listed, the latest is %+v", len(all), all[0])
	}
	rapid.Check(t, func(rt *rapid.T) {
		l := newLog("run")
		happened := map[rateKey]int{}
		for range rapid.IntRange(1, 12).Draw(rt, "ticks") {
			for range rapid.IntRange(0, 4).Draw(rt, "bursts") {
				m := rateKey{rapid.SampledFrom([]Kind{KindNode, KindVM, KindOperator}).Draw(rt, "kind"), rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "what")}
				n := rapid.IntRange(0, 2*eventBurst).Draw(rt, "n")
				for range n {
					l.Add(Event{Kind: m.kind, Type: m.event})
				}
				happened[m] += n
			}
			l.refill()
		}
		listed := map[rateKey]int{}
		for _, o := range l.everything(rt, Query{Limit: 1000}) {
			listed[rateKey{o.Kind, o.Type}] += max(o.More, 1)
		}
		counted := map[rateKey]int{}
		for _, o := range l.Counts() {
			counted[rateKey{o.Kind, o.Type}] = int(o.Count)
		}
		for m, n := range happened {
			if listed[m] != n || counted[m] != n {
				rt.Fatalf("%v happened %d times, the log tells of %d and the count says %d", m, n, listed[m], counted[m])
			}
		}
		if len(l.buckets) > len(happened) {
			rt.Fatalf("%d buckets", len(l.buckets))
		}
	})
}

// Pages are what a plain look at everything finds, also while more happens.
func TestEventsPages(tt *testing.T) {
	rapid.Check(tt, func(t *rapid.T) {
		l := newLog("run")
		var all []Event // latest first
		happen := func(n int) {
			for range n {
				o := Event{
					Kind: rapid.SampledFrom([]Kind{KindNode, KindMaster, KindOperator}).Draw(t, "kind"),
					Type: "what", NodeID: rapid.SampledFrom([]string{"", "n1", "n2"}).Draw(t, "node"),
					Master: rapid.SampledFrom([]string{"", "m1", "self"}).Draw(t, "master"),
					Text:   rapid.SampledFrom([]string{"drained", "Quite quiet", "été"}).Draw(t, "text"),
				}
				l.Add(o)
				all = slices.Insert(all, 0, o)
			}
		}
		happen(rapid.IntRange(0, 60).Draw(t, "before"))
		q := Query{
			Kind:   rapid.SampledFrom([]Kind{"", KindOperator, KindGrid}).Draw(t, "of kind"),
			NodeID: rapid.SampledFrom([]string{"", "n1"}).Draw(t, "of node"),
			Master: rapid.SampledFrom([]string{"", "m1", "self"}).Draw(t, "of master"),
			Q:      rapid.SampledFrom([]string{"", "QUI", "n2", "té"}).Draw(t, "q"),
			Limit:  rapid.IntRange(1, 20).Draw(t, "limit"),
		}
		var want []Event
		for _, o := range all {
			text := strings.ToLower(o.Text + "\x00" + o.Type + "\x00" + o.NodeID)
			if (q.Kind == "" || o.Kind == q.Kind) && (q.NodeID == "" || o.NodeID == q.NodeID) &&
				(q.Master == "" || o.Master == q.Master) && strings.Contains(text, strings.ToLower(q.Q)) {
				want = append(want, o)
			}
		}
		var got []Event
		for last := uint64(1 << 60); ; {
			events, next, err := l.Page(q)
			if err != nil || len(events) > q.Limit {
				t.Fatal(len(events), err)
			}
			for _, e := range events {
				o := *e
				if o.ID >= last || o.At.IsZero() {
					t.Fatalf("%+v comes after %d", o, last)
				}
				last = o.ID
				o.ID, o.At = 0, time.Time{}
				got = append(got, o)
			}
			if q.Cursor = next; q.Cursor == "" {
				break
			}
			happen(rapid.IntRange(0, 5).Draw(t, "meanwhile"))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%+v asks for\n%+v\ngets\n%+v", q, want, got)
		}
	})
}

func TestEventsRefuses(t *testing.T) {
	l, other := newLog("run"), newLog("another run")
	for range 3 {
		l.Add(Event{Kind: KindGrid})
		other.Add(Event{Kind: KindGrid})
	}
	_, theirs, _ := other.Page(Query{Limit: 1})
	for _, cursor := range []string{theirs, "x", "run-1", page.Cursor("vm", page.Place{Str: "run", Num: 1}), page.Cursor("events", page.Place{Str: "run", Num: -1})} {
		if _, _, err := l.Page(Query{Cursor: cursor}); !errors.Is(err, page.ErrCursor) || cursor == "" {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
	for field, q := range map[string]Query{"kind": {Kind: "nodes"}, "limit": {Limit: 1001}, "node_id": {NodeID: "a b"}} {
		_, _, err := l.Page(q)
		if wrong, ok := errors.AsType[*record.FieldError](err); !ok || wrong.Field != field {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// Every report and every block of another master comes by here.
func TestNoOverrideCostsNothing(t *testing.T) {
	l, records := newLog("run"), table.New()
	l.Live(records.All())
	quiet := record.State{LastSeen: 1}
	spoken := record.Join(quiet, record.State{}.Set(1, "m", "me", record.FieldDrain, "1"))
	_, e := records.Join("n1", spoken)
	for name, st := range map[string]record.State{"no override": quiet, "a known one": spoken} {
		if n := testing.AllocsPerRun(100, func() { l.StateJoined("n1", e, st) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if n := len(l.everything(t, Query{})); n != 0 {
		t.Errorf("%d overrides were logged that nobody set", n)
	}
}

// Overrides come in any order and many times, and each is logged once.
func TestOverridesAreLoggedOnce(tt *testing.T) {
	rapid.Check(tt, func(t *rapid.T) {
		var said []record.State
		known := record.State{}
		for i := range rapid.IntRange(1, 12).Draw(t, "overrides") {
			by := fmt.Sprint("operator ", i)
			st := known.Set(rapid.Int64Range(1, 5).Draw(t, "at"), fmt.Sprint("m", i%3), by, record.FieldDrain, fmt.Sprint(i%2))
			if rapid.Bool().Draw(t, "removal") {
				st = known.Remove(rapid.Int64Range(1, 5).Draw(t, "at"), "m1", by, "")
			}
			said = append(said, st)
			if rapid.Bool().Draw(t, "heard") {
				known = record.Join(known, st)
			}
		}
		l, records := newLog("run"), table.New()
		l.phase.Store(int32(live))
		publish := func(st record.State) {
			before, _ := records.Join("n1", st)
			l.StateJoined("n1", before, st)
		}
		for _, i := range rapid.SliceOf(rapid.IntRange(0, len(said)-1)).Draw(t, "order") {
			publish(said[i])
		}
		l.Live(records.All())
		for _, st := range said {
			publish(st)
		}
		times := map[string]int{}
		for _, o := range l.everything(t, Query{}) {
			times[o.By]++
		}
		for i := range said {
			if by := fmt.Sprint("operator ", i); times[by] != 1 {
				t.Fatalf("%s is logged %d times", by, times[by])
			}
		}
	})
}

// An override from a wrong clock must not make the log impossible to show.
func TestOverridesFromWrongClocks(t *testing.T) {
	l, records := newLog("run"), table.New()
	l.Live(records.All())
	for i, wall := range []int64{-1 << 63, 0, 1<<63 - 1} {
		st := record.State{Overrides: []record.Override{{Field: record.FieldDrain, Stamp: record.Stamp{Wall: wall}, Master: "m", By: fmt.Sprint(i)}}}
		l.StateJoined(fmt.Sprint("n", i), nil, st)
	}
	for _, o := range l.everything(t, Query{}) {
		if _, err := o.At.MarshalJSON(); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkEvents(b *testing.B) {
	l := newLog("run")
	for i := range maxEvents {
		o := Event{Kind: KindOperator, Type: TypeDrained, By: "token ci", NodeID: fmt.Sprint("node-", i), Text: "node drained by token ci through alpha"}
		if i%2 == 0 {
			o.Kind, o.Type = KindNode, fmt.Sprint(i)
		}
		l.Add(o)
	}
	for name, q := range map[string]Query{"latest": {}, "nothing matches": {Q: "no such text"}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := l.Page(q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("add", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			l.Add(Event{Kind: KindMaster, Type: TypeJoined, Text: "alpha is here"})
		}
	})
	b.Run("said nothing new", func(b *testing.B) {
		records := table.New()
		l.Live(records.All())
		st := record.State{}.Set(1, "m", "me", record.FieldDrain, "1")
		_, e := records.Join("n1", st)
		b.ReportAllocs()
		for b.Loop() {
			l.StateJoined("n1", e, st)
		}
	})
}
