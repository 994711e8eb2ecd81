//go:build soak

package soak

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/stats"
)

var (
	days    = flag.Int("days", 30, "simulated days")
	nodes   = flag.Int("nodes", 10_000, "nodes of the grid")
	seed    = flag.Uint64("seed", 1, "of what happens")
	dir     = flag.String("dir", "", "where the store keeps its files; empty: a temporary directory")
	verbose = flag.Bool("log", false, "print the store's log")
)

// What the soak test demands, and how far memory may move without having grown: it
// depends on where in its life the epoch is that is measured.
const (
	maxRatio  = 4.0      // disk over live records, from the second day on
	minDisk   = 12 << 20 // that may be taken all the same; on small grids logs weigh more
	heapSlack = 1.10     // from the third to fifth day on, to the mean of the last three
)

func TestSoak(t *testing.T) {
	if *dir == "" {
		*dir = t.TempDir()
	}
	d := &disk{dir: *dir}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		d.watch(stop)
	}()
	began := time.Now()
	synctest.Test(t, func(t *testing.T) { soak(t, d) })
	close(stop)
	<-stopped
	fmt.Printf("took %s on %d processors\n", time.Since(began).Round(time.Second), runtime.GOMAXPROCS(0))
}

// today is what one simulated day has come to.
type today struct {
	stats.HistoryStats
	worst, last sample
	heap        uint64
}

func soak(t *testing.T, d *disk) {
	cfg := crdtstore.Config{Dir: d.dir}
	if *verbose {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	// What counts is the memory in use, measured after a collection; collecting less
	// often takes less time.
	defer debug.SetGCPercent(debug.SetGCPercent(300))
	store, err := crdtstore.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	}()
	g, err := newGrid(t.Context(), store, *seed, *nodes)
	if err != nil {
		t.Fatal(err)
	}
	print("day", "records", "live", "disk", "ratio", "worst", "files", "epoch", "entries", "heap", "heap/record", "goroutines", "beats", "wall")
	var all []today
	for n := 1; n <= *days; n++ {
		wall := realTime()
		g.plan()
		for s := range day {
			time.Sleep(time.Second)
			if err := g.second(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if s%beatEvery == 0 {
				d.live.Store(store.Stats().History.Live)
			}
		}
		one := measure(store, d)
		all = append(all, one)
		print(n, one.Records, mb(one.Live), mb(one.Bytes), ratio(one.Bytes, one.Live), ratio(one.worst.disk, one.worst.live),
			mb(one.last.disk), one.Epoch, one.Entries, mb(one.heap), int(perRecord(all[n-1:])),
			runtime.NumGoroutine(), g.beats, (realTime() - wall).Round(time.Second))
		if n > 1 && one.worst.ratio() > maxRatio && one.worst.disk > minDisk {
			t.Errorf("day %d: the disk took %.2f times what the records take, more than %g", n, one.worst.ratio(), maxRatio)
		}
	}
	// Removed nodes are remembered for longer than this lasts, so there are more
	// records every day; what each takes must not grow.
	if len(all) > 5 {
		was, is := perRecord(all[2:5]), perRecord(all[len(all)-3:])
		print("memory", fmt.Sprintf("from %.0f to %.0f bytes a record", was, is))
		if is > heapSlack*was {
			t.Errorf("memory has grown from %.0f to %.0f bytes a record", was, is)
		}
	}
}

// perRecord is the memory in use for each record, the mean of some days. What the
// grid takes that is simulated is in it.
func perRecord(list []today) float64 {
	sum := 0.0
	for _, d := range list {
		sum += float64(d.heap) / float64(d.Records)
	}
	return sum / float64(len(list))
}

func measure(store *crdtstore.Store, d *disk) today {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	runtime.ReadMemStats(&m)
	return today{HistoryStats: store.Stats().History, last: d.look(), worst: d.take(), heap: m.HeapAlloc}
}

// realTime is a clock that goes on while simulated time stands still.
func realTime() time.Duration {
	var t syscall.Timeval
	_ = syscall.Gettimeofday(&t) // cannot fail
	return time.Duration(t.Nano())
}

func mb(bytes uint64) string { return fmt.Sprintf("%.1fM", float64(bytes)/1e6) }

func ratio(a, b uint64) string { return fmt.Sprintf("%.2f", float64(a)/float64(max(b, 1))) }

func print(cells ...any) {
	for _, c := range cells {
		fmt.Fprintf(os.Stdout, "%12v", c)
	}
	fmt.Fprintln(os.Stdout)
}
