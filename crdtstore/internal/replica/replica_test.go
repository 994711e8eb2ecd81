package replica

import "testing"

// reopened is a history that had to be opened again.
type reopened struct {
	History
	times uint64
}

func (r *reopened) Reopened() uint64 { return r.times }

// What the disk may have lost is not acknowledged because the table holds it: it is
// written again.
func TestWhatMayBeLostIsWrittenAgain(t *testing.T) {
	r := newOnDisk(t, "m1", t.TempDir())
	disk := &reopened{History: r.history}
	r.Use(disk)
	if _, err := r.Begin("n", as(accountOf("n"))); err != nil {
		t.Fatal(err)
	}
	r.publish(t)
	if f, err := r.Begin("n", as(accountOf("n"))); f != nil || err != nil {
		t.Fatal("it is on disk, and still waited for:", err)
	}
	disk.times = 1
	before := r.history.Stats().Entries
	f, err := r.Begin("n", as(accountOf("n")))
	if f == nil || err != nil {
		t.Fatal("it may be lost, and counts as written:", err)
	}
	r.publish(t)
	if n := r.history.Stats().Entries; f.Err() != nil || n != before+1 {
		t.Errorf("%d entries, there were %d: %v", n, before, f.Err())
	}
	if err := r.Tick(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f, _ := r.Begin("n", as(accountOf("n"))); f != nil {
		t.Error("the disk was seen to be whole, and it is written again")
	}
}
