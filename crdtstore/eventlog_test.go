package crdtstore

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
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/watch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// everything reads the log page by page, the latest first.
func (s *Store) everything(t rapid.TB, q EventQuery) (all []Event) {
	t.Helper()
	for {
		page, err := s.Events(q)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, page.Events...)
		if q.Cursor = page.NextCursor; q.Cursor == "" {
			return all
		}
	}
}

// However much happens, the log does not grow, and what nodes do does not push out what
// operators said.
func TestEventsIsBounded(t *testing.T) {
	s, c := inMemory(t), new(eventLog)
	long := strings.Repeat("é", 1000)
	c.add(s.changes, Event{Kind: OperatorEvent, Type: EventDrained, Text: "the word"}, 1, true)
	for i := range 4 * maxEvents {
		c.add(s.changes, Event{Kind: NodeEvent, Type: fmt.Sprint(i % 200), Text: long, By: long, NodeID: long, VM: long, Master: long}, 0, true)
		if i%1000 == 0 {
			c.refill(s.changes, time.Now())
		}
	}
	if c.rare.at(0).Text != "the word" {
		t.Error("nodes have pushed out what an operator said")
	}
	for i := range 2 * maxEvents {
		c.add(s.changes, Event{Kind: OperatorEvent, Type: EventDrained, Text: long}, uint64(i+2), true)
	}
	if n := len(c.frequent.slots) + len(c.rare.slots); n != maxEvents {
		t.Errorf("%d are remembered, want %d", n, maxEvents)
	}
	if len(c.keys) != maxEvents/2 {
		t.Errorf("%d keys", len(c.keys))
	}
	for _, o := range c.before(1<<60, make([]*Event, 0, maxEvents)) {
		for _, text := range []string{o.Text, o.By, o.NodeID, o.VM, o.Master} {
			if len(text) > maxEventText || !utf8.ValidString(text) {
				t.Fatalf("%d bytes are remembered: %q", len(text), text)
			}
		}
	}
}

// Of what floods the log only some is listed, and nothing is lost from the count.
func TestFloodsAreToldInFewWords(t *testing.T) {
	s := inMemory(t)
	for i := range 10_000 {
		s.logEvent(Event{Kind: NodeEvent, Type: EventOffline, NodeID: fmt.Sprint("n", i)})
	}
	s.events.refill(s.changes, time.Now())
	all := s.everything(t, EventQuery{Limit: 1000})
	if len(all) != eventBurst+1 || all[0].More != 10_000-eventBurst || !strings.Contains(all[0].Text, "9900 more nodes") {
		t.Errorf("%d are listed, the latest is %+v", len(all), all[0])
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := inMemory(t)
		logEvent := map[rateKey]int{}
		for range rapid.IntRange(1, 12).Draw(rt, "ticks") {
			for range rapid.IntRange(0, 4).Draw(rt, "floods") {
				m := rateKey{rapid.SampledFrom([]EventKind{NodeEvent, VMEvent, OperatorEvent}).Draw(rt, "kind"), rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "what")}
				n := rapid.IntRange(0, 2*eventBurst).Draw(rt, "n")
				for range n {
					s.logEvent(Event{Kind: m.kind, Type: m.event})
				}
				logEvent[m] += n
			}
			s.events.refill(s.changes, time.Now())
		}
		listed := map[rateKey]int{}
		for _, o := range s.everything(rt, EventQuery{Limit: 1000}) {
			listed[rateKey{o.Kind, o.Type}] += max(o.More, 1)
		}
		counted := map[rateKey]int{}
		for _, o := range s.EventCounts() {
			counted[rateKey{o.Kind, o.Type}] = int(o.Count)
		}
		for m, n := range logEvent {
			if listed[m] != n || counted[m] != n {
				rt.Fatalf("%v happened %d times, the log tells of %d and the count says %d", m, n, listed[m], counted[m])
			}
		}
		if len(s.events.buckets) > len(logEvent) {
			rt.Fatalf("%d floods", len(s.events.buckets))
		}
	})
}

// Pages are what a plain look at everything finds, also while more happens.
func TestEventsPages(tt *testing.T) {
	rapid.Check(tt, func(t *rapid.T) {
		s := inMemory(tt)
		var all []Event // latest first
		happen := func(n int) {
			for range n {
				o := Event{
					Kind: rapid.SampledFrom([]EventKind{NodeEvent, MasterEvent, OperatorEvent}).Draw(t, "kind"),
					Type: "what", NodeID: rapid.SampledFrom([]string{"", "n1", "n2"}).Draw(t, "node"),
					Master: rapid.SampledFrom([]string{"", "m1", s.ID()}).Draw(t, "master"),
					Text:   rapid.SampledFrom([]string{"drained", "Quite quiet", "été"}).Draw(t, "text"),
				}
				s.logEvent(o)
				all = slices.Insert(all, 0, o)
			}
		}
		happen(rapid.IntRange(0, 60).Draw(t, "before"))
		q := EventQuery{
			Kind:   rapid.SampledFrom([]EventKind{"", OperatorEvent, GridEvent}).Draw(t, "of kind"),
			NodeID: rapid.SampledFrom([]string{"", "n1"}).Draw(t, "of node"),
			Master: rapid.SampledFrom([]string{"", "m1", s.ID()}).Draw(t, "of master"),
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
			page, err := s.Events(q)
			if err != nil || len(page.Events) > q.Limit {
				t.Fatal(len(page.Events), err)
			}
			for _, o := range page.Events {
				if o.ID >= last || o.At.IsZero() {
					t.Fatalf("%+v comes after %d", o, last)
				}
				last = o.ID
				o.ID, o.At = 0, time.Time{}
				got = append(got, o)
			}
			if q.Cursor = page.NextCursor; q.Cursor == "" {
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
	s, other := inMemory(t), inMemory(t)
	other.changes = watch.New[change]("another run")
	for range 3 {
		s.logEvent(Event{Kind: GridEvent})
		other.logEvent(Event{Kind: GridEvent})
	}
	theirs, _ := other.Events(EventQuery{Limit: 1})
	for _, cursor := range []string{theirs.NextCursor, "x", s.Cursor(), page.Cursor("vm", page.Place{Str: "run", Num: 1}), page.Cursor("events", page.Place{Str: "run", Num: -1})} {
		if _, err := s.Events(EventQuery{Cursor: cursor}); !errors.Is(err, ErrCursor) || cursor == "" {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
	for field, q := range map[string]EventQuery{"kind": {Kind: "nodes"}, "limit": {Limit: 1001}, "node_id": {NodeID: "a b"}} {
		_, err := s.Events(q)
		if wrong, ok := errors.AsType[*FieldError](err); !ok || wrong.Field != field {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// Every report and every block of another master comes by here.
func TestNothingSaidCostsNothing(t *testing.T) {
	s := inMemory(t)
	s.remember()
	quiet := record.State{LastSeen: 1}
	spoken := record.Join(quiet, record.State{}.Set(1, "m", "me", record.FieldDrain, "1"))
	_, e := s.table.Join("n1", spoken)
	for name, st := range map[string]record.State{"no word": quiet, "a word that is known": spoken} {
		if n := testing.AllocsPerRun(100, func() { s.logOverrides("n1", e, st) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if n := len(s.everything(t, EventQuery{})); n != 0 {
		t.Errorf("%d words were noted that nobody said", n)
	}
}

// Words come in any order and many times, and each is noted once.
func TestWordsAreNotedOnce(tt *testing.T) {
	rapid.Check(tt, func(t *rapid.T) {
		var words []record.State
		known := record.State{}
		for i := range rapid.IntRange(1, 12).Draw(t, "words") {
			by := fmt.Sprint("operator ", i)
			word := known.Set(rapid.Int64Range(1, 5).Draw(t, "at"), fmt.Sprint("m", i%3), by, record.FieldDrain, fmt.Sprint(i%2))
			if rapid.Bool().Draw(t, "removal") {
				word = known.Remove(rapid.Int64Range(1, 5).Draw(t, "at"), "m1", by, "")
			}
			words = append(words, word)
			if rapid.Bool().Draw(t, "heard") {
				known = record.Join(known, word)
			}
		}
		s := inMemory(tt)
		s.events.phase.Store(int32(awake))
		publish := func(st record.State) {
			before, _ := s.table.Join("n1", st)
			s.logOverrides("n1", before, st)
		}
		for _, i := range rapid.SliceOf(rapid.IntRange(0, len(words)-1)).Draw(t, "order") {
			publish(words[i])
		}
		s.remember()
		for _, st := range words {
			publish(st)
		}
		times := map[string]int{}
		for _, o := range s.everything(t, EventQuery{}) {
			times[o.By]++
		}
		for i := range words {
			if by := fmt.Sprint("operator ", i); times[by] != 1 {
				t.Fatalf("%s is noted %d times", by, times[by])
			}
		}
	})
}

// A word from a wrong clock must not make the log impossible to show.
func TestWordsFromWrongClocks(t *testing.T) {
	s := inMemory(t)
	s.remember()
	for i, wall := range []int64{-1 << 63, 0, 1<<63 - 1} {
		st := record.State{Overrides: []record.Override{{Field: record.FieldDrain, Stamp: record.Stamp{Wall: wall}, Master: "m", By: fmt.Sprint(i)}}}
		s.logOverrides(fmt.Sprint("n", i), nil, st)
	}
	for _, o := range s.everything(t, EventQuery{}) {
		if _, err := o.At.MarshalJSON(); err != nil {
			t.Error(err)
		}
	}
}

func BenchmarkEvents(b *testing.B) {
	s := inMemory(b)
	for i := range maxEvents {
		o := Event{Kind: OperatorEvent, Type: EventDrained, By: "token ci", NodeID: fmt.Sprint("node-", i), Text: "node drained by token ci through alpha"}
		if i%2 == 0 {
			o.Kind, o.Type = NodeEvent, fmt.Sprint(i)
		}
		s.logEvent(o)
	}
	for name, q := range map[string]EventQuery{"latest": {}, "nothing matches": {Q: "no such text"}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Events(q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("add", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.logEvent(Event{Kind: MasterEvent, Type: EventJoined, Text: "alpha is here"})
		}
	})
	b.Run("said nothing new", func(b *testing.B) {
		s.remember()
		st := record.State{}.Set(1, "m", "me", record.FieldDrain, "1")
		_, e := s.table.Join("n1", st)
		b.ReportAllocs()
		for b.Loop() {
			s.logOverrides("n1", e, st)
		}
	})
}
