package crdtstore_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/crdtstoretest"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/faultdisk"
)

// fullDisk is a file system without room, while full is set.
type fullDisk struct {
	vfs.FS
	full atomic.Bool
}

func (d *fullDisk) GetDiskUsage(path string) (vfs.DiskUsage, error) {
	usage, err := d.FS.GetDiskUsage(path)
	if d.full.Load() {
		usage.AvailBytes = 0
	}
	return usage, err
}

// A master whose disk is full goes on to learn what the others write, in memory, also when
// they are in an epoch for which it has no room. What it learned is written down when there
// is room again.
func TestFullDiskLearnsOn(t *testing.T) {
	disk := &fullDisk{FS: vfs.Default}
	c := crdtstoretest.Start(t, 2, func(i int, cfg *crdtstore.Config) {
		cfg.EpochBytes = 1000
		if i == 0 {
			cfg.EpochBytes = 1 << 30 // it has to follow the other
			crdtstore.SetDisk(cfg, disk)
		}
	})
	full, other := c.Store(0), c.Store(1)
	churn(t, full, "n", 1, 1)
	c.WaitEqual()
	disk.full.Store(true)
	until(t, "it is full", func() bool { return full.Health() != nil })
	churn(t, other, "o", 1, 10)
	until(t, "the other is in a new epoch", func() bool { return other.Stats().History.Epoch > full.Stats().History.Epoch })
	churn(t, other, "p", 1, 2)
	c.WaitEqual()
	if full.Health() == nil || full.Stats().History.Epoch == other.Stats().History.Epoch {
		t.Error("the disk is not full")
	}
	disk.full.Store(false)
	until(t, "it takes writes", func() bool { return full.Health() == nil })
	until(t, "it is in the epoch of the other", func() bool { return full.Stats().History.Epoch >= other.Stats().History.Epoch })
	c.WaitEqual()
}

// startOnStuckDisk starts masters, the first of them on a disk that can hang.
func startOnStuckDisk(t *testing.T, n int) (*crdtstoretest.Cluster, *faultdisk.Stuck) {
	disk := &faultdisk.Stuck{}
	c := crdtstoretest.Start(t, n, func(i int, cfg *crdtstore.Config) {
		cfg.EpochBytes = 1000
		if i == 0 {
			cfg.EpochBytes = 1 << 30 // it has to follow the others
			crdtstore.SetDisk(cfg, faultdisk.Hook(vfs.Default, disk.Before))
		}
	})
	t.Cleanup(disk.Frees) // before the masters are closed
	return c, disk
}

// A master whose disk hangs goes on to hear and to be heard, answers what it has in memory,
// and writes on by itself when the disk is back.
func TestHangingDiskSilencesNobody(t *testing.T) {
	c, disk := startOnStuckDisk(t, 2)
	stuck, other := c.Store(0), c.Store(1)
	churn(t, stuck, "n", 1, 1)
	c.WaitEqual()
	hit := disk.Hangs("", "")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := stuck.Report(ctx, report("n1", 1, 2))
		ended <- err
	}()
	<-hit
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error("the caller has gone, and is told", err)
	}
	// What the other writes is announced to this one, which cannot write it down, nor move
	// to the epoch that the other opens.
	churn(t, other, "o", 1, 10)
	until(t, "the other is in a new epoch", func() bool { return other.Stats().History.Epoch > stuck.Stats().History.Epoch })
	heard := func(by, of *crdtstore.Store) time.Time {
		m, err := by.Master(of.ID())
		if err != nil || m.Status != crdtstore.MasterAlive {
			t.Fatalf("%s is %s, %v", m.Name, m.Status, err)
		}
		return m.LastSeen
	}
	for range 3 {
		there, here := heard(other, stuck), heard(stuck, other)
		until(t, "both hear each other again", func() bool {
			return heard(other, stuck).After(there) && heard(stuck, other).After(here)
		})
	}
	if r, err := other.Beat(crdtstore.Beat{NodeID: "n2", Boot: 1, Seq: 9}); !r.Accepted || err != nil {
		t.Errorf("beat: %+v, %v", r, err)
	}
	until(t, "a beat at the other is seen here", func() bool {
		n, err := stuck.Node("n2")
		return err == nil && len(n.SeenBy) == 2
	})
	if r, err := stuck.Beat(crdtstore.Beat{NodeID: "n3", Boot: 1, Seq: 9}); !r.Accepted || err != nil {
		t.Errorf("beat: %+v, %v", r, err)
	}
	_ = stuck.Stats()
	disk.Frees()
	if _, err := stuck.Report(t.Context(), report("n1", 1, 2)); err != nil {
		t.Error("after the disk is back:", err)
	}
	c.WaitEqual()
}

// Closing does not wait for a disk that hangs, and the others learn that the master leaves.
func TestCloseOnAHangingDisk(t *testing.T) {
	was := crdtstore.SetCloseWithin(time.Second)
	t.Cleanup(func() { crdtstore.SetCloseWithin(was) })
	for op, on := range map[string]string{"sync": ".log", "create": "", "": ""} {
		t.Run("in "+op, func(t *testing.T) {
			c, disk := startOnStuckDisk(t, 2)
			stuck, other := c.Store(0), c.Store(1)
			churn(t, stuck, "n", 1, 1)
			c.WaitEqual()
			disk.Hangs(op, on)
			ended := make(chan error, 1)
			go func() {
				_, err := stuck.Report(t.Context(), report("n1", 1, 2))
				ended <- err
			}()
			churn(t, other, "o", 1, 1)
			closed := make(chan error, 1)
			go func() { closed <- stuck.Close() }()
			select {
			case err := <-closed:
				if op != "create" && !errors.Is(err, crdtstore.ErrUnavailable) {
					t.Error("close:", err)
				}
			case <-time.After(30 * time.Second):
				t.Error("closing waits for the disk")
			}
			until(t, "the other knows that it has left", func() bool {
				m, err := other.Master(stuck.ID())
				return err == nil && m.Status == crdtstore.MasterLeft
			})
			disk.Frees()
			<-ended
			until(t, "the directory can be opened again, and all is there", func() bool {
				again, err := crdtstore.Open(t.Context(), crdtstore.Config{Dir: c.Dir(0)})
				if err != nil {
					return false
				}
				defer again.Close()
				page, err := again.Nodes(crdtstore.NodeQuery{})
				return err == nil && page.Total >= 10
			})
		})
	}
}
