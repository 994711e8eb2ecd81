package crdtstoretest_test

import (
	"fmt"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// word is what an operator said, each in a name of his own.
type word struct {
	by, what, node string
	master         int
	at             time.Time
}

// say has an operator say something about one of some nodes to a master.
func (g *grid) say(nodes int) (w word, ok bool) {
	g.t.Helper()
	w = word{
		by: fmt.Sprint("operator ", g.rand.Uint64()), node: fmt.Sprint("x", g.rand.IntN(nodes)),
		master: g.rand.IntN(len(g.up)), at: time.Now(),
	}
	s, ctx, value := g.Store(w.master), g.t.Context(), fmt.Sprint(g.rand.IntN(3))
	var err error
	switch dice := g.rand.IntN(20); {
	case dice < 6:
		w.what = crdtstore.EventDrained
		_, err = s.Drain(ctx, w.node, true, w.by)
	case dice < 12:
		w.what = crdtstore.EventUndrained
		_, err = s.Drain(ctx, w.node, false, w.by)
	case dice < 16:
		w.what = crdtstore.EventLabelled
		_, err = s.Label(ctx, w.node, map[string]*string{"zone": &value}, w.by)
	case dice < 19:
		w.what = crdtstore.EventUnlabelled
		_, err = s.Label(ctx, w.node, map[string]*string{"zone": nil}, w.by)
	default:
		w.what = crdtstore.EventRemoved
		var n crdtstore.Node
		n, err = s.Node(w.node)
		if err == nil && n.RemovedAt != nil {
			return w, false
		}
		_, err = s.Remove(ctx, w.node, w.by, "test")
	}
	took := g.took(err)
	g.sleep(2 * time.Millisecond)
	return w, took
}

// noted checks that each word is in the log of every master once, with who said it,
// when and through whom.
func (g *grid) noted(when string, words []word) {
	g.t.Helper()
	for m := range g.up {
		seen := map[string][]crdtstore.Event{}
		for q := (crdtstore.EventQuery{Kind: crdtstore.OperatorEvent, Limit: 1000}); ; {
			page, err := g.Store(m).Events(q)
			if err != nil {
				g.t.Fatal(err)
			}
			for _, o := range page.Events {
				seen[o.By] = append(seen[o.By], o)
			}
			if q.Cursor = page.NextCursor; q.Cursor == "" {
				break
			}
		}
		if len(seen) != len(words) {
			g.t.Errorf("%s: %s tells of %d words, %d were said", when, g.Store(m).Name(), len(seen), len(words))
		}
		for _, w := range words {
			list := seen[w.by]
			if len(list) != 1 {
				g.t.Errorf("%s: %s tells %d times of %+v", when, g.Store(m).Name(), len(list), w)
				continue
			}
			o := list[0]
			if off := o.At.Sub(w.at).Abs(); o.Type != w.what || o.NodeID != w.node || o.Master != g.Store(w.master).ID() || off > 5*time.Millisecond {
				g.t.Errorf("%s: %s tells %+v, said was %+v", when, g.Store(m).Name(), o, w)
			}
		}
	}
}

// Whatever operators say through any master, each master tells of it: who said it, when,
// and through whom. That also goes for what was said on the other side of a split, and
// for what lost there.
func TestOperatorsAreHeardEverywhere(t *testing.T) {
	scenario(t, 3, nil, func(g *grid) {
		const nodes = 6
		for i := range nodes {
			if _, err := g.Store(0).Report(g.t.Context(), crdtstore.Report{NodeID: fmt.Sprint("x", i), Boot: 1, Seq: 1}); err != nil {
				g.t.Fatal(err)
			}
		}
		g.whole("with more nodes")
		var words []word
		speak := func(n int) {
			for range n {
				if w, ok := g.say(nodes); ok {
					words = append(words, w)
				}
				g.sleep(time.Duration(g.rand.IntN(500)) * time.Millisecond)
			}
		}
		settle := func(when string) {
			g.whole(when)
			g.sleep(5 * time.Second)
			g.noted(when, words)
		}
		speak(20)
		settle("together")
		g.part(func(a, b int) bool { return (a == 0) != (b == 0) })
		speak(30)
		g.heal()
		settle("healed")
	})
}

// All masters tell of the others: that they came, fell silent and are back, or left.
func TestMastersComeAndGo(t *testing.T) {
	scenario(t, 2, nil, func(g *grid) {
		g.part(func(a, b int) bool { return a != b })
		g.sleep(time.Minute)
		g.heal()
		g.whole("healed")
		g.sleep(5 * time.Second)
		g.stop(1)
		g.sleep(time.Second)
		page, err := g.Store(0).Events(crdtstore.EventQuery{Kind: crdtstore.MasterEvent, Master: "m1"})
		if err != nil {
			g.t.Fatal(err)
		}
		var got []string
		for _, o := range page.Events {
			switch o.Type {
			case crdtstore.EventJoined, crdtstore.EventSuspect, crdtstore.EventDown, crdtstore.EventBack, crdtstore.EventLeft:
				got = append(got, o.Type)
			}
		}
		if want := "[left back down suspect joined]"; fmt.Sprint(got) != want {
			g.t.Errorf("m0 tells of m1: %v, want %s", got, want)
		}
	})
}
