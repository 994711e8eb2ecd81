package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/epoch"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// disk is what a publisher writes to: it takes as long as it is told to, and
// keeps what was put.
type disk struct {
	mu      sync.Mutex
	states  map[string]int64 // what a reader of the table sees
	kept    map[string]int64 // what is on disk
	batches [][]string
	takes   time.Duration
	err     error
	during  func() // called in the middle of a write; nil: nothing is
}

func newDisk() *disk { return &disk{states: map[string]int64{}, kept: map[string]int64{}} }

func (d *disk) state(node string) record.State {
	d.mu.Lock()
	defer d.mu.Unlock()
	return record.State{LastSeen: d.states[node]}
}

// set changes a node in the table.
func (d *disk) set(node string, v int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.states[node] = max(d.states[node], v)
}

func (d *disk) Sync(context.Context) error { return nil }

func (d *disk) Unsynced() bool { return false }

func (d *disk) Put(_ context.Context, writes []epoch.Write) error {
	d.mu.Lock()
	takes, err := d.takes, d.err
	d.mu.Unlock()
	if d.during != nil {
		d.during()
	}
	time.Sleep(takes)
	d.mu.Lock()
	defer d.mu.Unlock()
	var nodes []string
	for _, w := range writes {
		nodes = append(nodes, w.Node)
		if err == nil {
			d.kept[w.Node] = w.State.LastSeen
		}
	}
	d.batches = append(d.batches, nodes)
	return err
}

func (d *disk) slow(takes time.Duration, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.takes, d.err = takes, err
}

// write marks a node, and waits until it is written.
func (p *publisher) write(ctx context.Context, node string) error {
	return p.change(ctx, node, func() bool { return true })
}

// publishing runs a test around a publisher, in virtual time.
func publishing(t *testing.T, f func(t *testing.T, d *disk, p *publisher)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		p := newPublisher(d, d.state)
		go p.Run()
		f(t, d, p)
		p.Close()
		p.Close()
	})
}

func TestIdlePublisherWritesAtOnce(t *testing.T) {
	publishing(t, func(t *testing.T, d *disk, p *publisher) {
		began := time.Now()
		for i := range 3 {
			if err := p.write(t.Context(), fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("waited %s", took)
		}
		if fmt.Sprint(d.batches) != "[[0] [1] [2]]" {
			t.Errorf("wrote %v", d.batches)
		}
	})
}

func TestBatchingIsNatural(t *testing.T) {
	publishing(t, func(t *testing.T, d *disk, p *publisher) {
		d.slow(time.Second, nil)
		first := p.Mark("first")
		synctest.Wait() // it is being written
		for i := range 5 {
			d.set("a", int64(i+1))
			d.set("b", int64(i+1))
			p.Mark("a")
			p.Mark("b", "a", "first")
		}
		began, last := time.Now(), p.Mark("c")
		if err := errors.Join(p.Wait(t.Context(), first), p.Wait(t.Context(), last)); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("two commits took %s", took)
		}
		if want := "[[first] [a b first c]]"; fmt.Sprint(d.batches) != want {
			t.Errorf("wrote %v, want %s", d.batches, want)
		}
		if d.kept["a"] != 5 || d.kept["b"] != 5 {
			t.Errorf("kept %v, want what the table holds when the batch is made", d.kept)
		}
	})
}

func TestSettle(t *testing.T) {
	publishing(t, func(t *testing.T, d *disk, p *publisher) {
		d.slow(time.Second, nil)
		settles := func(node string) time.Duration {
			began := time.Now()
			if err := p.waitWritten(t.Context(), node); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}
		p.Mark("a")
		synctest.Wait()
		p.Mark("b")
		if took := settles("c"); took != 0 {
			t.Errorf("nothing is on its way, waited %s", took)
		}
		if took := settles("a"); took != time.Second {
			t.Errorf("what is being written took %s", took)
		}
		if took := settles("b"); took != time.Second {
			t.Errorf("what was queued took %s", took)
		}
		if took := settles("b"); took != 0 {
			t.Errorf("it is written, waited %s", took)
		}
		p.Mark("a")
		synctest.Wait()
		p.Mark("a") // changed again meanwhile
		if took := settles("a"); took != 2*time.Second {
			t.Errorf("written and queued again took %s", took)
		}
	})
}

func TestErrorsReachTheirWaitersOnly(t *testing.T) {
	publishing(t, func(t *testing.T, d *disk, p *publisher) {
		broken := errors.New("broken")
		d.slow(time.Second, nil)
		good := p.Mark("a")
		synctest.Wait()
		d.slow(time.Second, broken)
		bad := p.Mark("b")
		settled := make(chan error)
		go func() { settled <- p.waitWritten(t.Context(), "b") }()
		if err := p.Wait(t.Context(), good); err != nil {
			t.Error("the flush before:", err)
		}
		synctest.Wait()
		d.slow(0, nil)
		after := p.Mark("c")
		for _, err := range []error{p.Wait(t.Context(), bad), <-settled} {
			if !errors.Is(err, ErrUnavailable) || !errors.Is(err, broken) {
				t.Error("the flush that failed:", err)
			}
		}
		if err := p.Wait(t.Context(), after); err != nil {
			t.Error("the flush after:", err)
		}
		d.slow(0, epoch.ErrClosed)
		if err := p.write(t.Context(), "d"); !errors.Is(err, ErrClosed) {
			t.Error("a closed history:", err)
		}
	})
}

func TestCallersMayGo(t *testing.T) {
	publishing(t, func(t *testing.T, d *disk, p *publisher) {
		d.slow(writeWithin-lookAfter, nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.write(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error("write:", err)
		}
		if err := p.waitWritten(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error("settle:", err)
		}
		if err := p.waitWritten(t.Context(), "a"); err != nil || len(d.batches) != 1 {
			t.Error("what they asked for is not written:", d.batches, err)
		}
	})
}

// A caller is told when the disk is too slow, and at once when it is known to hang. What it
// asked for is written all the same, once the disk takes it.
func TestCallersDoNotWaitForEver(t *testing.T) {
	publishing(t, func(t *testing.T, d *disk, p *publisher) {
		var hangs atomic.Bool
		p.health = func() error {
			if hangs.Load() {
				return epoch.ErrHangs
			}
			return nil
		}
		d.set("a", 1)
		d.slow(time.Hour, nil)
		began := time.Now()
		if err := p.write(t.Context(), "a"); !errors.Is(err, ErrUnavailable) || time.Since(began) != writeWithin {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		began = time.Now()
		time.AfterFunc(3*lookAfter, func() { hangs.Store(true) })
		if err := p.waitWritten(t.Context(), "a"); !errors.Is(err, ErrUnavailable) || !errors.Is(err, epoch.ErrHangs) || time.Since(began) > 4*lookAfter {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		time.Sleep(2 * time.Hour)
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.kept["a"] != 1 {
			t.Error("what they asked for is not written")
		}
	})
}

// A node changes and is marked again at each moment of the flush that writes it. The change
// is written by the next one, and who waits for the node waits for that.
func TestMarkedWhileItIsWritten(t *testing.T) {
	type at func(d *disk, p *publisher, then func())
	beforeRead := func(d *disk, p *publisher, then func()) {
		p.state = func(node string) record.State { then(); return d.state(node) }
	}
	afterRead := func(d *disk, p *publisher, then func()) {
		p.state = func(node string) record.State {
			defer then()
			return d.state(node)
		}
	}
	whileWritten := func(d *disk, _ *publisher, then func()) { d.during = then }
	for name, when := range map[string]at{"before it is read": beforeRead, "after it was read": afterRead, "while it is written": whileWritten} {
		t.Run(name, func(t *testing.T) {
			publishing(t, func(t *testing.T, d *disk, p *publisher) {
				d.set("a", 1)
				settled := make(chan int64, 1)
				var again *Flush
				when(d, p, sync.OnceFunc(func() {
					d.set("a", 2)
					again = p.Mark("a")
					go func() {
						if err := p.waitWritten(t.Context(), "a"); err != nil {
							t.Error(err)
						}
						d.mu.Lock()
						defer d.mu.Unlock()
						settled <- d.kept["a"]
					}()
				}))
				d.slow(time.Second, nil)
				first := p.Mark("a")
				if err := p.Wait(t.Context(), first); err != nil {
					t.Fatal(err)
				}
				if again == first {
					t.Error("the mark is part of a flush that had begun")
				}
				if err := p.Wait(t.Context(), again); err != nil || d.kept["a"] != 2 {
					t.Errorf("a mark was lost: %d is written, %v", d.kept["a"], err)
				}
				if got := <-settled; got != 2 {
					t.Errorf("settled when %d was written", got)
				}
			})
		})
	}
}

func TestManyAreWrittenInTurns(t *testing.T) {
	publishing(t, func(t *testing.T, d *disk, p *publisher) {
		var nodes []string
		for i := range 2*maxFlush + 1 {
			nodes = append(nodes, fmt.Sprint(i))
		}
		if err := p.Wait(t.Context(), p.Mark(nodes...)); err != nil {
			t.Error(err)
		}
		if len(d.batches) != 3 || len(d.batches[0]) != maxFlush || len(d.batches[2]) != 1 || len(d.kept) != len(nodes) {
			t.Errorf("%d nodes went into %d batches", len(d.kept), len(d.batches))
		}
	})
}

// TestFoundIsNotYetWritten has one caller change a node, and another find the
// change in the table before the node is marked.
func TestFoundIsNotYetWritten(t *testing.T) {
	publishing(t, func(t *testing.T, d *disk, p *publisher) {
		go func() {
			_ = p.change(t.Context(), "n", func() bool {
				d.set("n", 7)
				time.Sleep(time.Minute) // between the table and the mark
				return true
			})
		}()
		synctest.Wait()
		if err := p.change(t.Context(), "n", func() bool { return false }); err != nil || d.kept["n"] != 7 {
			t.Errorf("acknowledged, and on disk is %d, %v", d.kept["n"], err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.change(ctx, "n", func() bool { d.set("n", 8); return true }); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		// The caller has gone, its change has not.
		if err := p.change(t.Context(), "n", func() bool { return false }); err != nil || d.kept["n"] != 8 {
			t.Errorf("acknowledged, and on disk is %d, %v", d.kept["n"], err)
		}
		if len(p.changing) != 0 {
			t.Errorf("changes are left: %v", p.changing)
		}
	})
}

func TestCloseWritesWhatIsPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDisk()
		p := newPublisher(d, d.state)
		go p.Run()
		d.slow(time.Second, nil)
		p.Mark("a")
		synctest.Wait()
		var results []chan error
		for i := range 5 {
			done := make(chan error, 1)
			results = append(results, done)
			go func() { done <- p.write(t.Context(), fmt.Sprint(i)) }()
		}
		synctest.Wait()
		p.Close()
		for _, r := range results {
			if err := <-r; err != nil {
				t.Error("marked before the close:", err)
			}
		}
		if len(d.kept) != 6 {
			t.Errorf("kept %v", d.kept)
		}
		if err := p.write(t.Context(), "late"); !errors.Is(err, ErrClosed) {
			t.Error("write after the close:", err)
		}
		if err := p.Wait(t.Context(), p.Mark("late")); !errors.Is(err, ErrClosed) {
			t.Error("mark after the close:", err)
		}
	})
}

// TestNothingAcknowledgedIsLost has many change few nodes while a disk of random
// speed writes: when a write returns, the disk holds what the writer wrote.
func TestNothingAcknowledgedIsLost(t *testing.T) {
	for seed := range uint64(20) {
		publishing(t, func(t *testing.T, d *disk, p *publisher) {
			rnd := rand.New(rand.NewPCG(seed, 4))
			var all sync.WaitGroup
			for w := range 8 {
				mine := rand.New(rand.NewPCG(seed, uint64(w)+10))
				all.Go(func() {
					for range 50 {
						time.Sleep(time.Duration(mine.IntN(30)) * time.Millisecond)
						node, v := fmt.Sprint(mine.IntN(4)), mine.Int64N(1<<40)
						d.set(node, v)
						if err := p.write(t.Context(), node); err != nil {
							t.Error(err)
						}
						d.mu.Lock()
						if d.kept[node] < v {
							t.Errorf("seed %d: %s is acknowledged, on disk is %d, want %d", seed, node, d.kept[node], v)
						}
						d.mu.Unlock()
					}
				})
			}
			stop := make(chan struct{})
			go func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(10 * time.Millisecond):
						d.slow(time.Duration(rnd.IntN(40))*time.Millisecond, nil)
					}
				}
			}()
			all.Wait()
			close(stop)
			for _, b := range d.batches {
				if slices.Sort(b); len(slices.Compact(b)) != len(b) {
					t.Errorf("seed %d: a batch with a node twice: %v", seed, b)
				}
			}
		})
	}
}

// What the disk did not take is written when it takes things again, without
// anybody asking: readers see it already.
func TestFailedWritesAreTriedAgain(t *testing.T) {
	publishing(t, func(t *testing.T, d *disk, p *publisher) {
		d.slow(0, errors.New("full"))
		if err := p.write(t.Context(), "a"); !errors.Is(err, ErrUnavailable) {
			t.Error("write:", err)
		}
		time.Sleep(retryFlush + time.Millisecond)
		synctest.Wait()
		if len(d.batches) != 2 {
			t.Errorf("tried %v", d.batches)
		}
		d.slow(0, nil)
		time.Sleep(retryFlush + time.Millisecond)
		synctest.Wait()
		if want := "[[a] [a] [a]]"; fmt.Sprint(d.batches) != want {
			t.Errorf("tried %v, want %s", d.batches, want)
		}
		time.Sleep(10 * retryFlush)
		synctest.Wait()
		if len(d.batches) != 3 {
			t.Errorf("written again and again: %v", d.batches)
		}
	})
}

// TestFailedIsNotTakenForWritten: the table holds what the disk refused, so who
// says it again changes nothing there, and has to wait for the disk all the same.
func TestFailedIsNotTakenForWritten(t *testing.T) {
	publishing(t, func(t *testing.T, d *disk, p *publisher) {
		d.slow(0, errors.New("disk full"))
		d.set("a", 1)
		if err := p.write(t.Context(), "a"); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		for range 2 {
			if err := p.change(t.Context(), "a", func() bool { return false }); !errors.Is(err, ErrUnavailable) {
				t.Error("said again:", err)
			}
		}
		d.slow(0, nil)
		if err := p.waitWritten(t.Context(), "a"); err != nil || d.kept["a"] != 1 {
			t.Errorf("settled with %v on disk, %v", d.kept, err)
		}
	})
}

// What the disk did not take counts as written at no moment.
func TestWhatFailsIsUnderwayAllTheTime(t *testing.T) {
	d := newDisk()
	d.slow(0, errors.New("full"))
	p := newPublisher(d, d.state)
	p.Mark("a")
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if p.underway("a") == nil {
				t.Error("it counts as written")
				return
			}
		}
	}()
	for range 20_000 {
		_ = p.Publish()
	}
	close(stop)
	<-stopped
}
