//go:build e2e && amd64

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// beating sends heartbeats of a node to a master until stop is called, which returns how
// long they took, ascending.
func beating(t *testing.T, m *master, id string) (stop func() []time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	var took []time.Duration
	var done sync.WaitGroup
	done.Go(func() {
		for seq := uint64(10); ctx.Err() == nil; seq++ {
			began := time.Now()
			if err := m.call("node_heartbeat", obj{"node_id": id, "boot": 1, "seq": seq}, nil); err != nil && ctx.Err() == nil {
				t.Errorf("heartbeat: %v", err)
			}
			took = append(took, time.Since(began))
			time.Sleep(10 * time.Millisecond)
		}
	})
	return func() []time.Duration {
		cancel()
		done.Wait()
		slices.Sort(took)
		return took
	}
}

// seenAlive notes whatever else than alive a master says of another, until stop is called.
func seenAlive(t *testing.T, by, of *master) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(100 * time.Millisecond) {
			var list masterList
			if err := by.call("masters", nil, &list); err != nil {
				t.Errorf("masters: %v", err)
				continue
			}
			for _, m := range list.Masters {
				if m.ID == of.id && m.Status != "alive" {
					t.Errorf("%s says that %s is %s", by.name, of.name, m.Status)
				}
			}
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}

func answersBeats(t *testing.T, took []time.Duration) {
	t.Helper()
	p99 := took[len(took)*99/100]
	t.Logf("%d heartbeats, p50 %v, p99 %v, slowest %v", len(took), took[len(took)/2], p99, took[len(took)-1])
	if p99 > 250*time.Millisecond {
		t.Errorf("p99 of heartbeats is %v", p99)
	}
}

// stuckMasters starts two masters, and gives the disk of the first one.
func stuckMasters(t *testing.T) (a, b *master, d *badDisk) {
	g := newGrid(t)
	d = newBadDisk(g)
	pa, pb := newPorts(t), newPorts(t)
	a = g.startMaster("alder", d.options(masterOptions{ports: pa, peers: []string{pb.mesh}}))
	b = g.startMaster("birch", masterOptions{ports: pb, peers: []string{pa.mesh}})
	return a, b, d
}

// The disk of a master hangs for longer than it takes others to call a master down. It
// says so, and does all else; then the disk is back.
func TestDiskHangs(t *testing.T) {
	a, b, d := stuckMasters(t)
	hangs(t, a, b, d.hang)
}

// The same with a file system that is frozen, where the kernel holds every write.
func TestFrozenFileSystem(t *testing.T) {
	g := newGrid(t)
	image := filepath.Join(g.dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 256<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		skip(t, fmt.Sprintf("mkfs.ext4: %v: %s", err, out))
	}
	dir := g.ownDisk("alder", "-o", "loop", image)
	pa, pb := newPorts(t), newPorts(t)
	a := g.startMaster("alder", masterOptions{ports: pa, peers: []string{pb.mesh}})
	b := g.startMaster("birch", masterOptions{ports: pb, peers: []string{pa.mesh}})
	hangs(t, a, b, func() func() {
		if out, err := exec.Command("fsfreeze", "-f", dir).CombinedOutput(); err != nil {
			skip(t, fmt.Sprintf("this machine does not freeze file systems: %v: %s", err, out))
		}
		thaw := sync.OnceFunc(func() {
			if out, err := exec.Command("fsfreeze", "-u", dir).CombinedOutput(); err != nil {
				t.Errorf("fsfreeze -u: %v: %s", err, out)
			}
		})
		return thaw
	})
}

// hangs has the disk of a hang and checks that nobody but writers notices.
func hangs(t *testing.T, a, b *master, hang func() (end func())) {
	t.Helper()
	a.register("early", 1, 1, nil)
	eventually(t, 10*time.Second, func() error { return errors.Join(a.healthy(), b.online("early")) })
	known, stopWriting := writing(a)
	known.more(t, 50)
	stopSeen, stopBeating := seenAlive(t, b, a), beating(t, a, "early")
	end := hang()
	t.Cleanup(end)
	began := time.Now()
	eventually(t, 20*time.Second, func() error { return a.unhealthy("does not answer", "since") })
	t.Logf("/health says that the disk hangs %v after it did", time.Since(began).Round(100*time.Millisecond))
	a.refuses("does not answer", "early")
	if status, _, err := a.get("/metrics"); status != 200 || err != nil {
		t.Errorf("/metrics answers %d, %v", status, err)
	}
	b.register("meanwhile", 1, 1, nil) // of which the others learn
	time.Sleep(time.Until(began.Add(25 * time.Second)))
	stopSeen()
	answersBeats(t, stopBeating())
	end()
	back := time.Now()
	eventually(t, 15*time.Second, a.healthy)
	known.more(t, 50)
	eventually(t, 15*time.Second, func() error {
		if _, ok := a.mustNodes()["meanwhile"]; !ok {
			return errors.New("what the other took meanwhile is not here")
		}
		return nil
	})
	t.Logf("writes go on %v after the disk was back", time.Since(back).Round(100*time.Millisecond))
	stopWriting()
	a.mustRun()
	a.kill()
	a.launch()
	known.standsAt(a)
}

// A disk that is merely slow is called neither dead nor hung.
func TestSlowDisk(t *testing.T) {
	for _, delay := range []time.Duration{500 * time.Millisecond, 2 * time.Second} {
		t.Run(delay.String(), func(t *testing.T) {
			a, b, d := stuckMasters(t)
			a.register("early", 1, 1, nil)
			eventually(t, 10*time.Second, func() error { return errors.Join(a.healthy(), b.online("early")) })
			stopSeen, stopBeating := seenAlive(t, b, a), beating(t, a, "early")
			d.slow(delay)
			known, stopWriting := writing(a)
			for began := time.Now(); time.Since(began) < 25*time.Second; time.Sleep(200 * time.Millisecond) {
				if err := a.healthy(); err != nil {
					t.Fatal(err)
				}
			}
			stopSeen()
			answersBeats(t, stopBeating())
			t.Logf("%d writes were acknowledged in 25 s", known.count())
			d.slow(0)
			known.more(t, 10)
			stopWriting()
			a.kill()
			a.launch()
			known.standsAt(a)
		})
	}
}

// A master whose disk hangs ends when it is told to, and the other learns that it leaves.
func TestStopWithADiskThatHangs(t *testing.T) {
	a, b, d := stuckMasters(t)
	a.register("early", 1, 1, nil)
	end := d.hang()
	t.Cleanup(end)
	go func() { _ = a.call("label_node", obj{"node_id": "early", "labels": obj{"a": "b"}}, nil) }()
	eventually(t, 5*time.Second, func() error {
		if d.stopped() == 0 {
			return errors.New("nothing waits for the disk")
		}
		return nil
	})
	began := time.Now()
	if err := a.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.done:
		t.Logf("it ended after %v: %v", time.Since(began).Round(100*time.Millisecond), a.err)
	case <-time.After(10 * time.Second):
		t.Fatal("it has not ended after 10 s")
	}
	var list masterList
	b.must(t, "masters", nil, &list)
	for _, m := range list.Masters {
		if m.ID == a.id && m.Status != "left" {
			t.Errorf("the other says that it is %s", m.Status)
		}
	}
	if log := tail(a.log, 20); !strings.Contains(log, "disk") {
		t.Errorf("its log does not speak of the disk:\n%s", log)
	}
	end()
	a.launch()
	if _, ok := a.mustNodes()["early"]; !ok {
		t.Error("what was acknowledged is gone")
	}
}

// A master that is told to end while it waits for its disk to start.
func TestStopWhileItStartsOnADiskThatHangs(t *testing.T) {
	g := newGrid(t)
	d := newBadDisk(g)
	t.Cleanup(d.hang())
	m := g.newMaster("alder", d.options(masterOptions{}))
	m.run()
	eventually(t, 10*time.Second, func() error {
		if d.stopped() == 0 {
			return errors.New("nothing waits for the disk")
		}
		return nil
	})
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-m.done:
	case <-time.After(10 * time.Second):
		t.Error("it has not ended after 10 s")
	}
}
