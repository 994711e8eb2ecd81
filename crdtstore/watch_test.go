package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

func nodeChange(i int) change { return change{kind: NodeChange, id: fmt.Sprint(i)} }

func TestHubKeepsTheOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub("run")
		const n = 1000
		var readers sync.WaitGroup
		for r := range 5 {
			readers.Go(func() {
				for i := range n {
					c, err := h.next(t.Context(), uint64(i))
					if err != nil || c.id != fmt.Sprint(i) {
						t.Errorf("reader %d at %d: %+v, %v", r, i, c, err)
						return
					}
				}
			})
		}
		for i := range n {
			h.add(nodeChange(i))
			if i%100 == 0 {
				synctest.Wait() // all readers wait for more
			}
		}
		readers.Wait()
	})
}

func TestHubForgetsTheOldest(t *testing.T) {
	h := newHub("run")
	for i := range ringSize + 10 {
		h.add(nodeChange(i))
	}
	for at, want := range map[uint64]error{
		0: ErrCursor, 9: ErrCursor, 10: nil, ringSize + 9: nil, ringSize + 11: ErrCursor, 1 << 63: ErrCursor, 1<<64 - 1: ErrCursor,
	} {
		c, err := h.next(t.Context(), at)
		if !errors.Is(err, want) || want == nil && c.id != fmt.Sprint(at) {
			t.Errorf("at %d: %+v, %v, want %v", at, c, err, want)
		}
	}
}

func TestHubCursors(t *testing.T) {
	h := newHub("run")
	for _, at := range []uint64{0, 1, 1<<64 - 1} {
		if got, err := h.parse(h.cursor(at)); err != nil || got != at {
			t.Errorf("%d comes back as %d, %v", at, got, err)
		}
	}
	for _, c := range []string{"", "-", "run", "run-", "run--1", "run-x", "run-+1", "run-1-2", "other-1", "-1", "run-18446744073709551616"} {
		if at, err := h.parse(c); !errors.Is(err, ErrCursor) {
			t.Errorf("%q was taken as %d, %v", c, at, err)
		}
	}
}

func TestHubCloseWakesReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub("run")
		ctx, cancel := context.WithCancel(t.Context())
		errs := make(chan error, 3)
		for range 2 {
			go func() {
				_, err := h.next(t.Context(), 0)
				errs <- err
			}()
		}
		go func() {
			_, err := h.next(ctx, 0)
			errs <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Error("the one whose caller has gone:", err)
		}
		h.close()
		h.close()
		for range 2 {
			if err := <-errs; !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
		h.add(nodeChange(1)) // late changes do no harm
		if _, err := h.next(t.Context(), 0); !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
}

// TestChangedVMs applies the changes that a watcher is told to what it had, and
// compares with what there is.
func TestChangedVMs(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	random := func() (vms []VM) {
		for i := range 6 {
			if rnd.IntN(2) == 0 {
				vms = append(vms, VM{
					SID: fmt.Sprint(i), State: []string{"running", "stopped"}[rnd.IntN(2)],
					CPU: uint64(rnd.IntN(2)), AsOf: fmt.Sprint(rnd.IntN(100)),
				})
			}
		}
		return vms
	}
	visible := func(vms []VM) map[string]VM {
		out := map[string]VM{}
		for _, v := range vms {
			v.AsOf = ""
			out[v.SID] = v
		}
		return out
	}
	for range 3000 {
		before, after := random(), random()
		has, want := visible(before), visible(after)
		for _, v := range changedVMs(before, after) {
			v.AsOf = ""
			was, had := has[v.SID]
			if v.State == VMDeleted {
				if !had {
					t.Fatalf("%+v is gone, and was not there", v)
				}
				delete(has, v.SID)
				continue
			}
			if had && was == v {
				t.Fatalf("%+v has not changed", v)
			}
			has[v.SID] = v
		}
		if fmt.Sprint(has) != fmt.Sprint(want) {
			t.Fatalf("from %+v to %+v a watcher has %v", before, after, has)
		}
	}
}

func TestWatchEndsWhenTheReaderHasEnough(t *testing.T) {
	s := &Store{hub: newHub("run")}
	for range s.Watch(t.Context(), s.hub.cursor(5)) {
		break // a position that is not there yet: one error, and the reader may stop
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var errs []error
	for _, err := range s.Watch(ctx, "") {
		errs = append(errs, err)
	}
	if len(errs) != 1 || !slices.ContainsFunc(errs, func(err error) bool { return errors.Is(err, context.Canceled) }) {
		t.Errorf("%v", errs)
	}
}

// TestEventsOfOneNodeKeepTheirOrder has many change the VMs of one node at once.
// A watcher is left with what there is.
func TestEventsOfOneNodeKeepTheirOrder(t *testing.T) {
	s := inMemory(t)
	cursor := s.Cursor()
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 50 {
				r := Report{NodeID: "n", Boot: 1, Seq: uint64(i*8 + w + 1)}
				for v := range 3 {
					r.VMs = append(r.VMs, VM{SID: fmt.Sprint((i + w + v) % 5), CPU: r.Seq})
				}
				news, err := record.Accept(s.replica.State("n"), r, record.Acceptance{Now: 1})
				if err != nil {
					t.Error(err)
				}
				if before, after := s.table.Join("n", news); before != after {
					s.changed("n")
				}
			}
		})
	}
	all.Wait()
	at, err := s.hub.parse(cursor)
	has := map[string]uint64{}
	for ; err == nil && at < s.hub.end; at++ {
		var c change
		if c, err = s.hub.next(t.Context(), at); c.kind == VMChange {
			for _, v := range c.vms {
				if delete(has, v.SID); v.State != VMDeleted {
					has[v.SID] = v.CPU
				}
			}
		}
	}
	want := map[string]uint64{}
	for _, v := range s.table.Get("n").ListVMs() {
		want[v.SID] = v.CPU
	}
	if err != nil || fmt.Sprint(has) != fmt.Sprint(want) {
		t.Errorf("a watcher is left with %v, %v, there is %v", has, err, want)
	}
}

// TestNewNodeIsToldToBeOnline: the first event of a node may come before its
// first sign of life counts, the last one says how it is.
func TestNewNodeIsToldToBeOnline(t *testing.T) {
	s, err := Open(t.Context(), Config{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	cursor := s.Cursor()
	read, reported := make(chan struct{}), make(chan error, 1)
	join := func() {
		// As Report does, with a watcher who is quick.
		err := s.assert(ctx, "n", func(known record.State) (record.State, error) {
			return record.Accept(known, Report{NodeID: "n", Boot: 1, Seq: 1}, record.Acceptance{Now: 1})
		})
		<-read
		s.board.Beat(time.Now(), "n", record.Version{Boot: 1, Seq: 1}, nil, nil)
		reported <- err
	}
	go join()
	var once sync.Once
	for ev, err := range s.Watch(ctx, cursor) {
		if err != nil {
			t.Fatal("never told to be online:", err)
		}
		once.Do(func() {
			close(read)
			if err := <-reported; err != nil {
				t.Error(err)
			}
		})
		if ev.Kind == NodeChange && ev.Node.Status == Online {
			break
		}
	}
}

// Who stops in the middle of what one report has changed, and resumes there, has seen
// everything in the end.
func TestResumedWatchMissesNothing(t *testing.T) {
	s, err := Open(t.Context(), Config{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	first := s.Cursor()
	for seq, vms := range [][]string{{"a", "b", "c"}, {"c", "d"}} {
		r := Report{NodeID: "n", Boot: 1, Seq: uint64(seq + 1)}
		for _, sid := range vms {
			r.VMs = append(r.VMs, VM{SID: sid, State: "running"})
		}
		if _, err := s.Report(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"a running", "b running", "c running", "d running", "a deleted", "b deleted"}
	for stop := 1; stop < 8; stop++ { // of 2 nodes and 6 VMs
		var got []string
		cursor, events := first, 0
		take := func(e Change) {
			cursor = e.Cursor
			if sid := ""; e.VM != nil {
				if sid = e.VM.SID + " " + e.VM.State; !slices.Contains(got, sid) {
					got = append(got, sid)
				}
			}
		}
		for e, err := range s.Watch(t.Context(), cursor, NodeChange, VMChange) {
			if err != nil {
				t.Fatal(err)
			}
			take(e)
			if events++; events == stop {
				break
			}
		}
		for e, err := range s.Watch(t.Context(), cursor) {
			if err != nil {
				t.Fatal(err)
			}
			take(e)
			if cursor == s.Cursor() {
				break
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, slices.Sorted(slices.Values(want))) {
			t.Errorf("stopped after %d events it has seen %q, want %q", stop, got, want)
		}
	}
}
