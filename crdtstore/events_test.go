package crdtstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// lines are what happened, oldest first, each in one line.
func lines(t testing.TB, s *crdtstore.Store, q crdtstore.EventQuery) (out []string) {
	t.Helper()
	q.Limit = 1000
	page, err := s.Events(q)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range slices.Backward(page.Events) {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", o.Kind, o.Type, o.NodeID, o.VM)))
	}
	return out
}

// The life of a node, as the log tells it, before and after a restart of the master.
func TestEventsOfANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		cfg := crdtstore.Config{Dir: t.TempDir(), Name: "alpha", OfflineAfter: 30 * time.Second, NoSync: true}
		s, err := crdtstore.Open(ctx, cfg)
		if err != nil {
			t.Fatal(err)
		}
		follow, stop := context.WithCancel(ctx)
		var published []crdtstore.Event
		done := make(chan struct{})
		from := s.Cursor()
		go func() {
			defer close(done)
			for e, err := range s.Watch(follow, from, crdtstore.LogChange) {
				if err == nil {
					published = append(published, *e.Event)
				}
			}
		}()
		var seq uint64
		say := func(boot uint64, vms ...crdtstore.VM) {
			t.Helper()
			seq++
			r := crdtstore.Report{NodeID: "n1", Boot: boot, Seq: seq, VMs: vms}
			if _, err := s.Report(ctx, r); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		must := func(_ any, err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		blue := "blue"
		say(1)
		say(1, crdtstore.VM{SID: "v1", Name: "web", State: "running"})
		say(1, crdtstore.VM{SID: "v1", Name: "site", State: "running"})
		say(1, crdtstore.VM{SID: "v1", Name: "site", State: "stopped"})
		time.Sleep(time.Minute)
		must(s.Beat(crdtstore.Beat{NodeID: "n1", Boot: 1, Seq: seq + 1}))
		time.Sleep(time.Second)
		must(s.Drain(ctx, "n1", true, "alice"))
		must(s.Drain(ctx, "n1", false, "bob"))
		must(s.Label(ctx, "n1", map[string]*string{"zone": &blue}, "alice"))
		must(s.Label(ctx, "n1", map[string]*string{"zone": nil}, "alice"))
		say(1)
		must(s.Remove(ctx, "n1", "bob", "sold"))
		say(2, crdtstore.VM{SID: "v2", State: "running"})
		must(s.Drain(ctx, "n1", true, "carol"))
		want := []string{
			"node new n1", "vm new n1 v1", "vm changed n1 v1", "node offline n1", "node online n1",
			"operator drained n1", "operator undrained n1", "operator labelled n1", "operator unlabelled n1",
			"vm gone n1 v1", "operator removed n1", "node back n1", "operator drained n1",
		}
		if got := lines(t, s, crdtstore.EventQuery{}); !slices.Equal(got, want) {
			t.Errorf("the log says\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		page, _ := s.Events(crdtstore.EventQuery{Q: "sold"})
		if len(page.Events) != 1 || page.Events[0].By != "bob" || page.Events[0].Master != s.ID() ||
			page.Events[0].Text != "n1 removed by bob through alpha: sold" {
			t.Errorf("%+v", page.Events)
		}
		all, _ := s.Events(crdtstore.EventQuery{})
		stop()
		<-done
		slices.Reverse(published)
		if !slices.Equal(published, all.Events) {
			t.Errorf("watchers were told\n%+v\nthe log says\n%+v", published, all.Events)
		}
		page, _ = s.Events(crdtstore.EventQuery{Limit: 1})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}

		if s, err = crdtstore.Open(ctx, cfg); err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		// What operators said stands on record, but for what was taken back since.
		want = []string{"operator removed n1", "operator drained n1"}
		if got := lines(t, s, crdtstore.EventQuery{}); !slices.Equal(got, want) {
			t.Errorf("after a start the log says %q, want %q", got, want)
		}
		again, _ := s.Events(crdtstore.EventQuery{})
		if !again.Events[0].At.Equal(all.Events[0].At) || again.Events[0].By != "carol" {
			t.Errorf("%+v, before the start %+v", again.Events[0], all.Events[0])
		}
		if n := s.EventCounts(); len(n) != 0 {
			t.Errorf("counted as news: %+v", n)
		}
		if _, err := s.Events(crdtstore.EventQuery{Cursor: page.NextCursor}); !errors.Is(err, crdtstore.ErrCursor) {
			t.Error("the cursor of an earlier run:", err)
		}
		// The master was away when the node fell silent.
		time.Sleep(time.Minute)
		want = append(want, "node offline n1")
		if got := lines(t, s, crdtstore.EventQuery{}); !slices.Equal(got, want) {
			t.Errorf("the log says %q, want %q", got, want)
		}
	})
}

// What expires is told as such, and no operator's word.
func TestEventsOfExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := crdtstore.Open(t.Context(), crdtstore.Config{Dir: t.TempDir(), Retention: 20 * time.Minute, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, err := s.Report(t.Context(), report("n1", 1, 1)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		want := []string{"node new n1", "node offline n1", "node expired n1"}
		if got := lines(t, s, crdtstore.EventQuery{}); !slices.Equal(got, want) {
			t.Errorf("the log says %q, want %q", got, want)
		}
	})
}

// Many nodes that fall silent at once are told of in few words.
func TestEventsOfMassSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, err := crdtstore.Open(t.Context(), crdtstore.Config{Dir: t.TempDir(), OfflineAfter: 30 * time.Second, NoSync: true})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		const nodes = 2000
		for i := range nodes {
			if _, err := s.Report(t.Context(), crdtstore.Report{NodeID: fmt.Sprint("n", i), Boot: 1, Seq: 1}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Drain(t.Context(), "n0", true, "alice"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour) // whatever is made of it first, they are offline in the end
		page, err := s.Events(crdtstore.EventQuery{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		offline, words := 0, 0
		for _, o := range page.Events {
			if o.Type == crdtstore.EventOffline {
				offline += max(o.More, 1)
			}
			if o.Kind == crdtstore.OperatorEvent {
				words++
			}
		}
		if offline != nodes || words != 1 || len(page.Events) > 500 || page.NextCursor != "" {
			t.Errorf("%d entries tell of %d nodes that are offline and of %d words", len(page.Events), offline, words)
		}
	})
}
