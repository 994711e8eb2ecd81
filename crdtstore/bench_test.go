package crdtstore_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// BenchmarkVisible measures how long it takes until a change made on one master
// is seen by a reader of another.
func BenchmarkVisible(b *testing.B) {
	c := crdtstoretest.Start(b, 2, nil)
	from, to := c.Store(0), c.Store(1)
	seen := make(chan uint64, 16)
	go func() {
		for ev, err := range to.Watch(b.Context(), "") {
			if err != nil {
				return
			}
			if ev.Kind == crdtstore.NodeChange {
				seen <- ev.Node.Seq
			}
		}
	}()
	var took []time.Duration
	seq := uint64(0)
	for b.Loop() {
		seq++
		began := time.Now()
		acknowledged := make(chan struct{})
		go func() {
			defer close(acknowledged)
			r := report("n", 1, seq)
			r.Hostname = fmt.Sprint(seq)
			if _, err := from.Report(b.Context(), r); err != nil {
				b.Error(err)
			}
		}()
		for <-seen < seq {
		}
		took = append(took, time.Since(began))
		<-acknowledged
	}
	percentiles(b, took)
}

func percentiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	at := func(p float64) float64 { return float64(took[int(p*float64(len(took)-1))].Microseconds()) / 1000 }
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
}

// BenchmarkRecordWrites measures how many records a second end up merged on both
// of two masters, written by many callers on one of them.
func BenchmarkRecordWrites(b *testing.B) {
	c := crdtstoretest.Start(b, 2, nil)
	const batch = 10000
	round := uint64(0)
	for b.Loop() {
		round++
		var wg sync.WaitGroup
		for w := range 500 {
			wg.Go(func() {
				for i := w; i < batch; i += 500 {
					if _, err := c.Store(0).Report(b.Context(), report(fmt.Sprintf("n%05d", i), 1, round)); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		c.WaitEqual()
	}
	b.ReportMetric(float64(batch)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkCatchUp measures how long a returning master takes to catch up on
// 2,000 deltas made one after the other, its own start included.
func BenchmarkCatchUp(b *testing.B) {
	c := crdtstoretest.Start(b, 2, func(_ int, cfg *crdtstore.Config) { cfg.NoSync = true })
	seq := uint64(0)
	var took []time.Duration
	for b.Loop() {
		c.Stop(1)
		for range 2000 {
			seq++
			if _, err := c.Store(0).Report(b.Context(), report("n", 1, seq)); err != nil {
				b.Fatal(err)
			}
		}
		began := time.Now()
		c.Open(1)
		c.WaitEqual()
		took = append(took, time.Since(began))
	}
	percentiles(b, took)
}

// BenchmarkBeat is the hot path: one heartbeat.
func BenchmarkBeat(b *testing.B) {
	s := open(b, b.TempDir())
	const nodes = 10000
	ids := make([]string, nodes)
	for i := range ids {
		ids[i] = fmt.Sprintf("n%05d", i)
	}
	var wg sync.WaitGroup
	for w := range 100 {
		wg.Go(func() {
			for i := w; i < nodes; i += 100 {
				if _, err := s.Report(b.Context(), report(ids[i], 1, 1)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	usage := &record.Usage{CRU: 1}
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		i++
		if r, err := s.Beat(crdtstore.Beat{NodeID: ids[i%nodes], Boot: 1, Seq: i, Usage: usage}); !r.Accepted || err != nil {
			b.Fatalf("%+v, %v", r, err)
		}
	}
}

// BenchmarkMemory measures what a node takes in memory, over an empty master: its
// record, what is heard of it, and what is needed to find it and to see it change.
func BenchmarkMemory(b *testing.B) {
	const nodes = 100_000
	for b.Loop() {
		s, err := crdtstore.Open(b.Context(), crdtstore.Config{Dir: b.TempDir(), NoSync: true})
		if err != nil {
			b.Fatal(err)
		}
		empty := heap()
		populate(b, nodes, s)
		time.Sleep(2 * time.Second) // until all have been looked at once
		b.ReportMetric(float64(heap()-empty)/nodes, "B/node")
		b.ReportMetric(float64(s.Stats().History.Live)/nodes, "record-B/node")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// populate registers nodes as they are in a real grid, with one master after the other.
func populate(b *testing.B, nodes int, masters ...*crdtstore.Store) {
	b.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	reports := make(chan crdtstore.Report)
	var wg sync.WaitGroup
	for w := range 500 {
		s := masters[w%len(masters)]
		wg.Go(func() {
			for r := range reports {
				if _, err := s.Report(b.Context(), r); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range nodes {
		r, key := crdtstoretest.RealisticReport(rnd, i)
		r.Boot, r.Seq = 1, 1
		r.Sign(key)
		reports <- r
	}
	close(reports)
	wg.Wait()
}

// settled waits until masters are equal, in one epoch, with nothing left to do.
func settled(b *testing.B, masters ...*crdtstore.Store) {
	b.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		ok := true
		for _, s := range masters {
			ok = ok && s.Masters()[0].Digest == masters[0].Masters()[0].Digest && s.Stats().History.Old == 0 && s.Health() == nil
		}
		if ok {
			return
		}
		if time.Since(began) > 5*time.Minute {
			b.Fatal("the masters do not become equal")
		}
	}
}

// BenchmarkStart measures how long a master with many nodes on disk takes until it is
// healthy, where another master, which holds the same, has written half of them.
func BenchmarkStart(b *testing.B) {
	for _, nodes := range []int{0, 100_000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			c := crdtstoretest.Start(b, 2, func(_ int, cfg *crdtstore.Config) { cfg.NoSync = true })
			populate(b, nodes, c.Store(0), c.Store(1))
			settled(b, c.Store(0), c.Store(1))
			for b.Loop() {
				b.StopTimer()
				c.Stop(1)
				runtime.GC()
				b.StartTimer()
				c.Open(1)
				for c.Store(1).Health() != nil {
					time.Sleep(time.Millisecond)
				}
			}
			if n := c.Store(1).Stats().Nodes.Total; n != nodes {
				b.Fatal(n, "nodes")
			}
		})
	}
}

// BenchmarkColdJoin measures how long an empty master takes until it holds the same as
// the others, and how much goes over the wire for it, as a multiple of the records.
func BenchmarkColdJoin(b *testing.B) {
	for _, nodes := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			c := crdtstoretest.Start(b, 3, func(_ int, cfg *crdtstore.Config) { cfg.NoSync = true })
			c.Stop(2)
			populate(b, nodes, c.Store(0), c.Store(1))
			settled(b, c.Store(0), c.Store(1))
			var wire float64
			for b.Loop() {
				b.StopTimer()
				c.Stop(2)
				if err := os.RemoveAll(c.Dir(2)); err != nil {
					b.Fatal(err)
				}
				runtime.GC()
				before := loopback(b)
				b.StartTimer()
				c.Open(2)
				for c.Store(2).Masters()[0].Digest != c.Store(0).Masters()[0].Digest {
					time.Sleep(time.Millisecond)
				}
				wire += float64(loopback(b) - before)
			}
			live := float64(c.Store(0).Stats().History.Live)
			b.ReportMetric(wire/float64(b.N)/live, "wire/state")
			b.ReportMetric(float64(c.Store(2).Stats().History.Bytes)/live, "disk/state")
		})
	}
}

// loopback is how many bytes have gone over the loopback interface.
func loopback(b *testing.B) uint64 {
	text, err := os.ReadFile("/sys/class/net/lo/statistics/tx_bytes")
	if err != nil {
		b.Skip("how much goes over the wire is only known on Linux")
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkHeal measures how long two masters take until they hold the same again after
// a split in which each wrote to nodes of its own, from the moment they can talk.
func BenchmarkHeal(b *testing.B) {
	for _, nodes := range []int{100, 10_000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			c := crdtstoretest.Start(b, 2, func(_ int, cfg *crdtstore.Config) { cfg.NoSync = true })
			seq := uint64(0)
			write := func() {
				seq++
				var wg sync.WaitGroup
				for w := range 500 {
					wg.Go(func() {
						for i := w; i < 2*nodes; i += 500 {
							if _, err := c.Store(i%2).Report(b.Context(), report(fmt.Sprintf("n%06d", i), 1, seq)); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
			}
			write()
			settled(b, c.Store(0), c.Store(1))
			for b.Loop() {
				b.StopTimer()
				c.Split(1)
				write()
				b.StartTimer()
				c.Heal()
				c.WaitEqual()
			}
		})
	}
}

// BenchmarkList is a page of 50 out of many nodes, as people and programs ask for it.
func BenchmarkList(b *testing.B) {
	const nodes = 100_000
	s, err := crdtstore.Open(b.Context(), crdtstore.Config{Dir: b.TempDir(), NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	populate(b, nodes, s)
	for name, q := range map[string]crdtstore.NodeQuery{
		"first":     {},
		"online":    {Status: crdtstore.Online},
		"last_seen": {Sort: "-last_seen"},
		"free":      {Status: crdtstore.Online, Sort: "-free_mru", MinFree: crdtstore.MinFree{CRU: 8}},
		"label":     {Labels: map[string]string{"farm": "7", "rack": "r03"}, Sort: "hostname"},
		"text":      {Q: "farm-07"},
		"location":  {Location: "Egypt", Sort: "-updated_at"},
	} {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			b.ReportAllocs()
			for b.Loop() {
				began := time.Now()
				if p, err := s.Nodes(q); err != nil || len(p.Nodes) == 0 {
					b.Fatal(p, err)
				}
				took = append(took, time.Since(began))
			}
			percentiles(b, took)
		})
	}
	b.Run("stats", func(b *testing.B) {
		for b.Loop() {
			s.Stats()
		}
	})
}

// heap is what is in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
