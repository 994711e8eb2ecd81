package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/watch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

func TestWatchEndsWhenTheReaderHasEnough(t *testing.T) {
	s := &Store{changes: watch.New[change]("run")}
	for range s.Watch(t.Context(), s.changes.Cursor(5)) {
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
	has := map[string]uint64{}
	changes, _, ok := s.changes.Since(0)
	for _, c := range changes {
		for _, v := range c.vms {
			if delete(has, v.SID); v.State != VMDeleted {
				has[v.SID] = v.CPU
			}
		}
	}
	want := map[string]uint64{}
	for _, v := range s.table.Get("n").ListVMs() {
		want[v.SID] = v.CPU
	}
	if !ok || fmt.Sprint(has) != fmt.Sprint(want) {
		t.Errorf("a watcher is left with %v, %v, there is %v", has, ok, want)
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
