package crdtstoretest_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/ipfs/boxo/datastore/dshelp"
	"github.com/multiformats/go-multihash"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

// small has the history cut often.
func small(_ int, cfg *crdtstore.Config) { cfg.EpochBytes = 8 << 10 }

// Both sides of a split cut their histories, more than once, while a third master
// is away, for a month in the end.
func TestEpochsOfASplit(t *testing.T) {
	scenario(t, 3, small, func(g *grid) {
		g.part(func(a, b int) bool { return a != b })
		// All cut at once, as long as they think the others are there and do their
		// share.
		for range 150 {
			g.act()
		}
		g.live(20*time.Second, nil)
		for m := range g.up {
			g.vanish(m)
			g.open(m)
		}
		g.live(30*time.Second, g.act)
		g.vanish(2)
		was := g.Store(0).Stats().History.Epoch
		for began := time.Now(); g.Store(0).Stats().History.Epoch < was+3; g.live(10*time.Second, g.act) {
			if time.Since(began) > 10*time.Minute {
				g.t.Fatalf("the history is not cut: %+v", g.Store(0).Stats().History)
			}
		}
		g.stop(0)
		g.stop(1)
		time.Sleep(30 * 24 * time.Hour)
		g.open(0)
		g.open(1)
		g.live(time.Minute, g.act)
		g.heal()
		g.whole("the split is healed")
		g.open(2)
		g.whole("the third is back")
		g.retired()
	})
}

// retired waits until all masters are in one epoch and hold nothing older.
func (g *grid) retired() {
	g.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; g.sleep(100 * time.Millisecond) {
		all := true
		for m := range g.up {
			h := g.Store(m).Stats().History
			all = all && h.Old == 0 && h.Epoch == g.Store(0).Stats().History.Epoch
		}
		if all {
			return
		}
		if time.Now().After(deadline) {
			for m := range g.up {
				g.t.Errorf("master %d: %+v", m, g.Store(m).Stats().History)
			}
			g.t.FailNow()
		}
	}
}

// A master loses the last minute of its disk, which the others have, and writes
// before it meets them again: below its own older blocks.
func TestLostTail(t *testing.T) {
	scenario(t, 3, nil, func(g *grid) {
		g.live(time.Minute, g.act)
		g.stop(0)
		now, then := filepath.Join(g.Dir(0), "epochs"), filepath.Join(g.t.TempDir(), "epochs")
		g.copy(then, now)
		g.open(0)
		g.live(time.Minute, func() { g.actAt(0) })
		g.whole("before the crash")
		g.vanish(0)
		g.held[0] = ""
		if err := os.RemoveAll(now); err != nil {
			g.t.Fatal(err)
		}
		g.copy(now, then)
		if g.seed%2 == 1 {
			g.part(func(a, b int) bool { return (a == 0) != (b == 0) })
		}
		g.open(0)
		g.live(20*time.Second, func() { g.actAt(0) })
		g.heal()
		g.whole("after the crash")
	})
}

func (g *grid) copy(to, from string) {
	g.t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		g.t.Fatal(err)
	}
}

// An old backup is restored on one side of a split.
func TestRestoreOfTheOld(t *testing.T) {
	scenario(t, 3, nil, func(g *grid) {
		var backup bytes.Buffer
		if _, err := g.Store(0).Backup(g.t.Context(), &backup); err != nil {
			g.t.Fatal(err)
		}
		g.live(time.Minute, g.act)
		g.part(func(a, b int) bool { return (a == 0) != (b == 0) })
		g.live(30*time.Second, g.act)
		if _, err := g.Store(g.rand.IntN(3)).Restore(g.t.Context(), &backup); err != nil {
			g.t.Fatal(err)
		}
		g.live(30*time.Second, g.act)
		g.heal()
		g.whole("healed")
	})
}

// All masters stop, some without a word, and start again after a while.
func TestSilentGrid(t *testing.T) {
	scenario(t, 3, nil, func(g *grid) {
		g.live(time.Minute, g.act)
		for _, m := range g.rand.Perm(3) {
			if g.rand.IntN(2) == 0 {
				g.stop(m)
			} else {
				g.vanish(m)
			}
			if g.anyUp() {
				g.live(10*time.Second, g.act)
			}
		}
		time.Sleep(time.Duration(g.rand.Int64N(int64(24 * time.Hour))))
		for _, m := range g.rand.Perm(3) {
			g.open(m)
			g.live(10*time.Second, g.act)
		}
		g.whole("all are back")
	})
}

// The disks of two masters lose blocks that nobody else has. The records are still
// there, and are exchanged by comparing them.
func TestLostBlocks(t *testing.T) {
	scenario(t, 2, nil, func(g *grid) {
		g.part(func(a, b int) bool { return a != b })
		g.live(time.Minute, g.act)
		for m := range g.up {
			g.vanish(m)
			g.lose(filepath.Join(g.Dir(m), "epochs", "0000000001"), 5)
			g.open(m)
		}
		g.heal()
		g.whole("healed")
		g.live(time.Minute, g.act)
		g.whole("later")
	})
}

// quiet is a log that nobody reads.
type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

// lose deletes blocks in the database of an epoch, of those of which no value is
// left: the records stay, and what was built on those blocks cannot be handed on.
func (g *grid) lose(path string, blocks int) {
	g.t.Helper()
	db, err := pebble.Open(path, &pebble.Options{Logger: quiet{}})
	if err != nil {
		g.t.Fatal(err)
	}
	defer db.Close()
	each := func(low, high string, f func(key, value []byte)) {
		all, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte(low), UpperBound: []byte(high)})
		if err != nil {
			g.t.Fatal(err)
		}
		for ok := all.First(); ok; ok = all.Next() {
			f(slices.Clone(all.Key()), all.Value())
		}
		if err := all.Close(); err != nil {
			g.t.Fatal(err)
		}
	}
	needed := map[string]bool{}
	each("/c/s/k/", "/c/s/k0", func(_, value []byte) {
		if len(value) > 1 && (value[0] == 0 || value[0] == 254) { // the name of the block with the value
			needed["/b"+dshelp.MultihashToDsKey(multihash.Multihash(value[1:])).String()] = true
		}
	})
	var keys [][]byte
	each("/b/", "/b0", func(key, _ []byte) {
		if !needed[string(key)] {
			keys = append(keys, key)
		}
	})
	if len(keys) < blocks {
		g.t.Fatalf("%d blocks can be lost, of which %d should", len(keys), blocks)
	}
	for _, i := range g.rand.Perm(len(keys))[:blocks] {
		if err := db.Delete(keys[i], pebble.Sync); err != nil {
			g.t.Fatal(err)
		}
	}
}
