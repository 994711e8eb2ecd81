package epoch

import (
	"context"
	"errors"
	"maps"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/faultdisk"
)

// A disk that hangs in each of the operations during which locks are held. What the
// pulses, the heartbeats and /health ask never waits for it.
func TestNobodyWaitsForADiskThatHangs(t *testing.T) {
	put := func(m *master) error { return m.Put(m.t.Context(), []Write{{"n", seen(9)}}) }
	adopt := func(m *master) error { m.number.Store(3); return m.Adopt(m.t.Context(), 3, 0) }
	retire := func(m *master) error { return m.Retire(m.t.Context()) }
	missing := func(m *master) error {
		_, err := m.Missing(m.t.Context(), maps.All(m.table))
		return err
	}
	raise := func(m *master) error { return m.Adopt(m.t.Context(), 2, 5) }
	for name, c := range map[string]struct {
		op, path  string
		do        func(m *master) error
		moves     bool // who moves to another epoch meanwhile waits for this
		uncounted bool // by the watchdog
	}{
		"a write goes to the file system": {op: "write", path: ".log", do: put},
		"a write is synced":               {op: "sync", path: ".log", do: put},
		"what is looked for is synced":    {op: "sync", path: "0000000002/", do: missing},
		"an epoch is made":                {op: "create", path: unfinished + "/", do: adopt, moves: true},
		"an epoch gets its name":          {op: "rename", path: "0000000003" + unfinished, do: adopt, moves: true},
		"a new epoch is opened":           {op: "sync", path: "0000000003/", do: adopt, moves: true},
		"an epoch that is left is synced": {op: "sync", path: "0000000002/", do: adopt, moves: true},
		"the cutoff is raised":            {op: "sync", path: headerFile + ".new", do: raise, moves: true},
		"the newest is synced":            {op: "sync", path: "0000000002/", do: retire, moves: true},
		"a directory loses its name":      {op: "rename", path: "0000000001", do: retire, moves: true},
		"a directory is deleted":          {op: "removeall", path: "0000000001" + retired, do: retire, moves: true, uncounted: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := &faultdisk.Stuck{}
			m, err := tryStart(t, Options{Dir: t.TempDir(), Master: "m1", FS: faultdisk.Hook(vfs.Default, disk.Before), hangAfter: 20 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { disk.Frees() }) // before the log is closed
			m.write("n", seen(1))
			m.number.Store(2)
			if err := m.Adopt(t.Context(), 2, 0); err != nil {
				t.Fatal(err)
			}
			m.write("n", seen(2))
			hit := disk.Hangs(c.op, c.path)
			done := make(chan error, 1)
			go func() { done <- c.do(m) }()
			select {
			case <-hit:
			case err := <-done:
				t.Fatal("the disk did not hang:", err)
			}
			asked := make(chan struct{})
			go func() {
				defer close(asked)
				_, _, _, _, _, _ = m.Number(), m.Cutoff(), m.Heads(), m.Reopened(), m.Unsynced(), m.Health()
				if s := m.Stats(); s.Number < 2 {
					t.Errorf("stats %+v", s)
				}
			}()
			select {
			case <-asked:
			case <-time.After(20 * time.Second):
				t.Fatal("somebody waits for the disk who must not")
			}
			if !c.uncounted {
				eventually(t, "the log says that the disk hangs", func() bool { return errors.Is(m.Health(), ErrHangs) })
				if text := m.Health().Error(); !strings.Contains(text, m.dir) || !strings.Contains(text, " since 20") {
					t.Error("health:", text)
				}
			}
			if c.moves { // who comes next leaves when its context ends
				ctx, cancel := context.WithCancel(t.Context())
				next := make(chan error, 1)
				go func() { next <- m.Adopt(ctx, 9, 0) }()
				cancel()
				if err := <-next; !errors.Is(err, context.Canceled) {
					t.Error("adopt:", err)
				}
			}
			disk.Frees()
			if err := <-done; err != nil {
				t.Error("after the disk came back:", err)
			}
			eventually(t, "the log is well", func() bool { return m.Health() == nil })
			m.number.Store(m.Number())
			m.write("n", seen(10))
			if m.Reopened() != 0 {
				t.Error("the epoch was opened again")
			}
		})
	}
}

// What others have sent, and an epoch held that was left, is not taken for synced before
// the closing of that epoch has brought it to stable storage.
func TestUnsyncedUntilTheEpochBeforeIsClosed(t *testing.T) {
	for name, fails := range map[string]bool{"well": false, "in vain": true} {
		t.Run(name, func(t *testing.T) {
			from, disk := start(t, "m2", t.TempDir()), &faultdisk.Stuck{}
			bad := newBadDisk()
			m, err := tryStart(t, Options{Dir: t.TempDir(), Master: "m1", FS: faultdisk.Hook(bad, disk.Before)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { disk.Frees() })
			from.write("n", seen(1))
			if err := m.take(from.all()...); err != nil {
				t.Fatal(err)
			}
			m.number.Store(2)
			hit := disk.Hangs("sync", "0000000001/")
			adopted := make(chan error, 1)
			go func() { adopted <- m.Adopt(t.Context(), 2, 0) }()
			<-hit
			// A sync that Pebble does by itself may be the one that hangs, before the move.
			eventually(t, "the log is in the new epoch", func() bool { return m.Number() == 2 })
			m.write("o", seen(1)) // goes on, in the new epoch
			if !m.Unsynced() {
				t.Error("what an epoch holds that is not closed counts as synced")
			}
			synced := make(chan error, 1)
			go func() { synced <- m.Sync(t.Context()) }()
			if fails {
				m.left.Load().old.disk.fail(syscall.EIO)
			}
			disk.Frees()
			if err := <-synced; (err != nil) != fails {
				t.Error("sync:", err)
			}
			if err := <-adopted; err != nil {
				t.Error("adopt:", err)
			}
			if m.Unsynced() != fails {
				t.Errorf("unsynced is %v after the epoch before was closed", m.Unsynced())
			}
			if err := m.Retire(t.Context()); err != nil || m.Unsynced() {
				t.Errorf("retire: %v, unsynced %v", err, m.Unsynced())
			}
		})
	}
}
