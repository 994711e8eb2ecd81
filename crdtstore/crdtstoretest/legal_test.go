package crdtstoretest_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
)

// said is a call that a master took or refused, and when it ran.
type said struct {
	master, node int
	what         string // "report", "remove", "drain", "label"
	key          int    // of a report
	value        string // of a drain or label
	refused      bool
	began, ended time.Time
}

// between reports whether b may have had its effect between those of a and c, whichever of
// these came first.
func between(a, b, c said) bool {
	return (b.ended.After(a.began) || b.ended.After(c.began)) && (b.began.Before(c.ended) || b.began.Before(a.ended))
}

// TestCallersDisagree has many callers report, drain, label and remove the same nodes at
// several masters at once. What each master answered must be what a master can answer that
// takes one call after the other, and in the end all hold something that was said.
func TestCallersDisagree(t *testing.T) {
	const masters, callers, nodes = 2, 12, 4
	calls := 30
	if slow {
		calls = 12
	}
	c := crdtstoretest.Start(t, masters, func(_ int, cfg *crdtstore.Config) { cfg.NoSync = true })
	var all sync.WaitGroup
	histories := make([][]said, callers)
	for caller := range callers {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(caller), 1))
			for i := range calls {
				s := said{master: rnd.IntN(masters), node: rnd.IntN(nodes), key: caller, began: time.Now()}
				err := speak(t, c.Store(s.master), &s, rnd, uint64(i+1))
				s.ended = time.Now()
				_, refused := errors.AsType[*crdtstore.RefusedError](err)
				if s.refused = refused || errors.Is(err, crdtstore.ErrNotFound); err != nil && !s.refused {
					t.Error(err)
				}
				histories[caller] = append(histories[caller], s)
			}
		})
	}
	all.Wait()
	c.WaitEqual()
	history := slices.Concat(histories...)
	for m := range masters {
		for n := range nodes {
			legal(t, history, m, n)
		}
	}
	for n := range nodes {
		v, err := c.Store(0).Node(fmt.Sprint("n", n))
		if errors.Is(err, crdtstore.ErrNotFound) {
			continue
		}
		standing := func(what, value string) bool {
			return value == "" || slices.ContainsFunc(history, func(s said) bool {
				return s.node == n && s.what == what && s.value == value && !s.refused
			})
		}
		if err != nil || !standing("label", v.Labels["at"]) || v.Drained && !standing("drain", "1") {
			t.Errorf("node %d is shown with what nobody said: %v, %v, %v", n, v.Drained, v.Labels, err)
		}
	}
}

// speak makes a call and notes what it says.
func speak(t *testing.T, to *crdtstore.Store, s *said, rnd *rand.Rand, boot uint64) (err error) {
	id := fmt.Sprint("n", s.node)
	switch rnd.IntN(8) {
	case 0:
		s.what = "remove"
		_, err = to.Remove(t.Context(), id, "ann", "")
	case 1:
		s.what, s.value = "drain", []string{"", "1"}[rnd.IntN(2)]
		_, err = to.Drain(t.Context(), id, s.value != "", "ann")
	case 2:
		s.what, s.value = "label", fmt.Sprintf("%d-%d", s.key, boot)
		_, err = to.Label(t.Context(), id, map[string]*string{"at": &s.value}, "ann")
	default:
		s.what = "report"
		r := crdtstore.Report{NodeID: id, Boot: boot, Seq: 1}
		r.Hostname = fmt.Sprint("host-", s.key)
		for i := range 200 { // to decide takes a while, in which others come
			r.VMs = append(r.VMs, crdtstore.VM{SID: fmt.Sprint(i)})
		}
		r.Sign(claimant(s.key))
		_, err = to.Report(t.Context(), r)
	}
	return err
}

// legal fails the test unless what a master answered about a node can be put in an order:
// of two keys whose accounts it took, the node was removed in between, or one had its
// account taken by another master too; and who was refused had somebody before him.
func legal(t *testing.T, history []said, master, node int) {
	t.Helper()
	about := slices.DeleteFunc(slices.Clone(history), func(s said) bool { return s.node != node })
	took := func(s said) bool { return s.what == "report" && !s.refused }
	for _, b := range about {
		if b.master != master {
			continue
		}
		if b.refused {
			if !slices.ContainsFunc(about, func(a said) bool { return !a.refused && a.began.Before(b.ended) }) && b.what == "report" {
				t.Errorf("master %d refused key %d for node %d, and nobody was there before", master, b.key, node)
			}
			continue
		}
		for _, a := range about {
			if !took(a) || !took(b) || a.master != master || a.key == b.key || b.began.Before(a.began) {
				continue
			}
			if !slices.ContainsFunc(about, func(r said) bool {
				return r.what == "remove" && !r.refused && between(a, r, b) ||
					took(r) && (r.key == b.key || r.key == a.key) && r.master != master && (r.began.Before(b.ended) || r.began.Before(a.ended))
			}) {
				t.Errorf("master %d took keys %d and %d for node %d, and nobody removed it in between", master, a.key, b.key, node)
			}
		}
	}
}
