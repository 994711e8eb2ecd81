package ops

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

func answering(context.Context) ([]byte, error) { return []byte(`"result":{"sid":"vm-1"}`), nil }

func benchMemory(b *testing.B) *Journal {
	m, err := Open(filepath.Join(b.TempDir(), "operations"), Options{MaxOps: 1 << 30})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = m.Close(context.Background()) })
	return m
}

// BenchmarkDo runs operations, one after the other and many at once, on the disk
// that holds the directory for temporary files.
func BenchmarkDo(b *testing.B) {
	b.Run("one", func(b *testing.B) {
		m := benchMemory(b)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := m.Do(b.Context(), fmt.Sprint(i), [32]byte{}, answering); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("64 at once", func(b *testing.B) {
		m := benchMemory(b)
		b.ReportAllocs()
		b.SetParallelism(32) // on two cores
		var n atomic.Int64
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := m.Do(b.Context(), fmt.Sprint(n.Add(1)), [32]byte{}, answering); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

func BenchmarkRepeat(b *testing.B) {
	m := benchMemory(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Do(b.Context(), "a", [32]byte{}, answering); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkOpen reads and rewrites a full memory.
func BenchmarkOpen(b *testing.B) {
	d := newMemDisk()
	m, err := open(d, path, Options{})
	if err != nil {
		b.Fatal(err)
	}
	records := make([]record, m.opts.MaxOps)
	for i := range records {
		records[i] = record{kind: kindDone, at: time.Second, id: fmt.Sprint(i), answer: make([]byte, 200)}
	}
	if err := m.journal.rewrite(records); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if m, err = open(d, path, Options{}); err != nil || len(m.ops) != len(records) {
			b.Fatal(err, len(m.ops))
		}
	}
}
