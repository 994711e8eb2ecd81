package crdtstore_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
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
			if ev.Kind == crdtstore.NodeEvent {
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
	usage := &crdtstore.Usage{CRU: 1}
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		i++
		if r := s.Beat(crdtstore.Beat{NodeID: ids[i%nodes], Boot: 1, Seq: i, Usage: usage}); !r.Accepted {
			b.Fatalf("%+v", r)
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
		rnd := rand.New(rand.NewPCG(1, 2))
		reports := make(chan crdtstore.Report)
		var wg sync.WaitGroup
		for range 500 {
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
		time.Sleep(2 * time.Second) // until all have been looked at once
		b.ReportMetric(float64(heap()-empty)/nodes, "B/node")
		b.ReportMetric(float64(s.History().Live)/nodes, "record-B/node")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// heap is what is in use.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC() // what pools held goes with the second
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
