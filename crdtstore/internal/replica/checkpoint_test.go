package replica

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// onDisk is a replica on a history of its own, of nodes of which it hears that
// they live.
type onDisk struct {
	*Replica
	history *epoch.Log
	table   *table.Table
	heard   map[string]int64
	others  []string // masters that live
}

func (r *onDisk) IDs() []string            { return nil }
func (r *onDisk) Alive(time.Time) []string { return r.others }

func (r *onDisk) Direct(string) bool      { return false }
func (r *onDisk) Heard(node string) int64 { return r.heard[node] }

func newOnDisk(t *testing.T, self, dir string) *onDisk {
	t.Helper()
	r := &onDisk{table: table.New(), heard: map[string]int64{}}
	r.Replica = New(Options{
		Self: self, Table: r.table, Grid: r,
		Retention: time.Hour, EpochAge: time.Hour, Logger: slog.New(slog.DiscardHandler),
	})
	var err error
	r.history, err = epoch.Open(t.Context(), epoch.Options{
		Dir: dir, Master: self, NoSync: true, Logger: slog.New(slog.DiscardHandler), Apply: r.Arrived,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.history.Close() })
	r.Use(r.history)
	return r
}

func (r *onDisk) publish(t *testing.T) {
	t.Helper()
	if err := r.Publish(); err != nil {
		t.Fatal(err)
	}
}

// as decides on what was made up already.
func as(st record.State) Decide {
	return func(record.State) (record.State, error) { return st, nil }
}

func accountOf(node string) record.State {
	s, err := record.Accept(record.State{}, record.Report{NodeID: node, Boot: 1, Seq: 1}, record.Acceptance{Now: 1})
	if err != nil {
		panic(err)
	}
	return s
}

func TestCheckpointIsKept(t *testing.T) {
	dir := t.TempDir()
	r := newOnDisk(t, "m1", dir)
	for i := range 300 {
		node := fmt.Sprint("n", i)
		r.Learned(node, accountOf(node))
		r.heard[node] = int64(1000 + i)
	}
	delete(r.heard, "n1")
	r.Learned("n2", r.State("n2").Remove(5, "m1", "", ""))
	r.publish(t)
	r.Checkpoint()
	r.publish(t)
	before := r.history.Stats().Entries
	for range 2 { // nothing is written of nodes that were not heard since
		r.Checkpoint()
		r.publish(t)
	}
	if got := r.history.Stats().Entries; got != before {
		t.Errorf("%d entries, there were %d and nothing is new", got, before)
	}
	r.heard["n7"] = 9000
	r.Checkpoint()
	r.publish(t)
	if got := r.history.Stats().Entries; got != before+1 {
		t.Errorf("%d entries, there were %d and one node was heard", got, before)
	}
	if err := r.history.Close(); err != nil {
		t.Fatal(err)
	}
	again := newOnDisk(t, "m1", dir)
	for i := range 300 {
		node, want := fmt.Sprint("n", i), int64(1000+i)
		switch i {
		case 1, 2: // not heard; and removed
			want = 1
		case 7:
			want = 9000
		}
		if got := again.State(node).LastSeen; got != want {
			t.Errorf("%s was last seen at %d, want %d", node, got, want)
		}
	}
}

// Each bucket is written by one of the masters that know of each other, and all
// buckets are.
func TestCheckpointIsShared(t *testing.T) {
	masters := []string{"m1", "m2", "m3"}
	written := map[string]int{}
	for _, self := range masters {
		r := newOnDisk(t, self, t.TempDir())
		r.others = slices.DeleteFunc(slices.Clone(masters), func(id string) bool { return id == self })
		for i := range 500 {
			node := fmt.Sprint("n", i)
			r.table.Join(node, accountOf(node))
			r.heard[node] = 50
		}
		r.Checkpoint()
		n := 0
		for e := range r.table.All() {
			if e.State.LastSeen == 50 {
				written[e.ID]++
				n++
			}
		}
		if n < 50 || n > 350 {
			t.Errorf("%s writes %d of 500", self, n)
		}
	}
	for i := range 500 {
		if node := fmt.Sprint("n", i); written[node] != 1 {
			t.Errorf("%s is written by %d masters", node, written[node])
		}
	}
}

// failing refuses to write buckets.
type failing struct {
	History
	fail bool
}

func (f *failing) PutSeen(ctx context.Context, b []epoch.Bucket) error {
	if f.fail {
		return errors.New("no space left")
	}
	return f.History.PutSeen(ctx, b)
}

func TestCheckpointIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	r := newOnDisk(t, "m1", dir)
	disk := &failing{r.history, true}
	r.Use(disk)
	r.Learned("n", accountOf("n"))
	r.heard["n"] = 70
	r.Checkpoint()
	if err := r.Publish(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("publishing: %v", err)
	}
	disk.fail = false
	r.publish(t)
	if err := r.history.Close(); err != nil {
		t.Fatal(err)
	}
	if got := newOnDisk(t, "m1", dir).State("n"); got.LastSeen != 70 || len(got.Claims) != 1 {
		t.Errorf("on disk is %+v", got)
	}
}

// The next epoch has what only checkpoints have said.
func TestCheckpointIsCarriedOver(t *testing.T) {
	dir := t.TempDir()
	r := newOnDisk(t, "m1", dir)
	for i := range 20 {
		node := fmt.Sprint("n", i)
		r.Learned(node, accountOf(node))
		r.heard[node] = int64(100 + i)
	}
	r.publish(t)
	r.Checkpoint()
	r.publish(t)
	if err := r.adopt(t.Context(), 2, 0); err != nil {
		t.Fatal(err)
	}
	for r.history.Stats().Old > 0 {
		r.publish(t)
		if err := r.retire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.history.Close(); err != nil {
		t.Fatal(err)
	}
	again := newOnDisk(t, "m1", dir)
	for i := range 20 {
		if got := again.State(fmt.Sprint("n", i)).LastSeen; got != int64(100+i) {
			t.Errorf("n%d was last seen at %d", i, got)
		}
	}
}
