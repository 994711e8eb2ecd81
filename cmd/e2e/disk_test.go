//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownDisk gives a master that is not started yet a file system of its own, or skips
// the test. mount(8) does it, with the given arguments.
func (g *grid) ownDisk(name string, args ...string) string {
	g.t.Helper()
	if os.Geteuid() != 0 {
		skip(g.t, "mounting a small disk needs root")
	}
	dir := filepath.Join(g.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		g.t.Fatal(err)
	}
	if out, err := exec.Command("mount", append(args, dir)...).CombinedOutput(); err != nil {
		skip(g.t, fmt.Sprintf("this machine does not allow mount %v: %s", args, out))
	}
	g.t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			g.t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
	return dir
}

func mount(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		t.Fatalf("mount %v: %v: %s", args, err, out)
	}
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// unhealthy returns nil when /health answers 503 with a reason that says all of it.
func (m *master) unhealthy(says ...string) error {
	status, body, err := m.get("/health")
	if err != nil {
		return err
	}
	for _, s := range says {
		if status != 503 || !strings.Contains(string(body), s) {
			return fmt.Errorf("/health answers %d %s, want 503 and %q", status, body, says)
		}
	}
	return nil
}

// refuses checks that a master takes no writes, and says so at once to a program and
// to a person, and that everything else goes on.
func (m *master) refuses(reason, known string) {
	m.t.Helper()
	for method, params := range map[string]obj{
		"register_node": {"node_id": "newcomer", "boot": 1, "seq": 1, "hostname": "h"},
		"drain_node":    {"node_id": known},
		"label_node":    {"node_id": known, "labels": obj{"a": "b"}},
		"remove_node":   {"node_id": known},
	} {
		began := time.Now()
		err := m.call(method, params, nil)
		failure := (*rpcError)(nil)
		if !errors.As(err, &failure) || !strings.Contains(failure.Message, reason) {
			m.t.Errorf("%s: %v, want an error that says %q", method, err, reason)
			continue
		}
		var data struct {
			Retryable bool `json:"retryable"`
		}
		if err := json.Unmarshal(failure.Data, &data); err != nil || !data.Retryable {
			m.t.Errorf("%s: not said to be retryable: %v", method, failure)
		}
		if took := time.Since(began); took > 3*time.Second {
			m.t.Errorf("%s: refused after %v", method, took)
		}
	}
	nodes := m.mustNodes()
	if _, ok := nodes[known]; !ok || nodes[known].RemovedAt != nil {
		m.t.Errorf("%s is not listed", known)
	}
	var beat struct {
		Accepted bool `json:"accepted"`
	}
	m.must(m.t, "node_heartbeat", obj{"node_id": known, "boot": 1, "seq": 1 << 40}, &beat)
	if !beat.Accepted {
		m.t.Error("a heartbeat was not accepted")
	}
}

// A disk fills up under writers. The master refuses them and does all else, also when
// it is killed and started on the full disk, and takes writes again when there is
// room. Nothing acknowledged is lost.
func TestDiskFull(t *testing.T) {
	g := newGrid(t)
	dir := g.ownDisk("alder", "-t", "tmpfs", "-o", "size=96m,mode=700", "tmpfs")
	m := g.startMaster("alder", masterOptions{})
	m.register("early", 1, 1, nil)
	known, stop := writing(m)
	known.more(t, 100)
	filler := filepath.Join(dir, "filler")
	for round := range 3 {
		fill(t, filler)
		eventually(t, 5*time.Second, func() error { return m.unhealthy("full", "no space left", dir) })
		m.refuses("disk is full", "early")
		if round == 1 {
			m.kill()
			m.run()
			eventually(t, 10*time.Second, func() error { return m.unhealthy("no space left") })
			m.refuses("disk is full", "early")
		}
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		eventually(t, 15*time.Second, m.healthy)
		t.Logf("healthy %v after there was room", time.Since(began).Round(10*time.Millisecond))
		known.more(t, 50)
		m.mustRun()
	}
	fill(t, filler)
	eventually(t, 5*time.Second, func() error { return m.unhealthy("no space left") })
	m.kill()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	stop()
	m.launch()
	t.Logf("%d writes were acknowledged", known.count())
	known.standsAt(m)
}

// The file system of a running master turns read-only, as ext4 does when its disk
// fails, and comes back.
func TestDiskTurnsReadOnly(t *testing.T) {
	if os.Geteuid() != 0 {
		skip(t, "mounting a small disk needs root")
	}
	g := newGrid(t)
	image := filepath.Join(g.dir, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 128<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		skip(t, fmt.Sprintf("mkfs.ext4: %v %s", err, out))
	}
	dir := g.ownDisk("alder", "-o", "loop", image)
	m := g.startMaster("alder", masterOptions{})
	m.register("early", 1, 1, nil)
	known, stop := writing(m)
	known.more(t, 100)

	mount(t, "-o", "remount,abort", dir)
	eventually(t, 5*time.Second, func() error { return m.unhealthy("read-only file system") })
	m.refuses("disk is read-only", "early")
	m.mustRun()

	// A person saves what is on it to another disk, and puts that in its place.
	if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
		t.Fatalf("umount: %v: %s", err, out)
	}
	saved, err := os.ReadFile(image)
	if err == nil {
		err = os.WriteFile(image+"-saved", saved, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	mount(t, "-o", "loop", image+"-saved", dir)
	eventually(t, 20*time.Second, m.healthy)
	known.more(t, 50)
	m.kill()
	stop()
	m.launch()
	t.Logf("%d writes were acknowledged", known.count())
	known.standsAt(m)
}

// A master starts on a read-only disk, serves what it has, and takes writes as soon as
// it can.
func TestDiskIsReadOnlyAtStart(t *testing.T) {
	g := newGrid(t)
	dir := g.ownDisk("alder", "-t", "tmpfs", "-o", "size=96m,mode=700", "tmpfs")
	m := g.startMaster("alder", masterOptions{})
	m.register("early", 1, 1, nil)
	m.must(t, "label_node", obj{"node_id": "early", "labels": obj{"kept": "yes"}}, nil)
	m.kill()
	mount(t, "-o", "remount,ro", dir)
	m.run()
	eventually(t, 10*time.Second, func() error { return m.unhealthy("read-only file system") })
	m.refuses("disk is read-only", "early")
	mount(t, "-o", "remount,rw", dir)
	eventually(t, 10*time.Second, m.healthy)
	m.register("later", 1, 1, nil)
	m.kill()
	m.launch()
	if nodes := m.mustNodes(); nodes["early"].Labels["kept"] != "yes" || nodes["later"].NodeID == "" {
		t.Errorf("lists %v", nodes)
	}
}

// corrupt flips bits all over the files of a master's newest epoch that end in ext.
func (m *master) corrupt(ext string) (changed []string) {
	m.t.Helper()
	err := filepath.WalkDir(filepath.Join(m.dir, "epochs"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ext || strings.Contains(path, "sums") {
			return err
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		for at := int64(100); err == nil && at < info.Size(); at += 1000 {
			b := make([]byte, 1)
			if _, err = f.ReadAt(b, at); err == nil && b[0] != 0 { // zeros are what a log was not written to
				b[0] ^= 0x20
				_, err = f.WriteAt(b, at)
			}
		}
		changed = append(changed, filepath.Base(path))
		return err
	})
	if err != nil || len(changed) == 0 {
		m.t.Fatalf("damaged %v of %s: %v", changed, m.name, err)
	}
	return changed
}

// ends waits until a master that cannot start says why.
func (m *master) ends() string {
	m.t.Helper()
	select {
	case <-m.done:
	case <-time.After(20 * time.Second):
		m.t.Fatalf("%s runs on damaged files:\n%s", m.name, tail(m.log, 20))
	}
	exit := (*exec.ExitError)(nil)
	if !errors.As(m.err, &exit) || exit.ExitCode() != 1 {
		m.t.Errorf("%s ended with %v, want exit code 1", m.name, m.err)
	}
	return tail(m.process.log, 5)
}

// A master alone refuses to start on damaged files, names the file and says what to
// do; doing that helps.
func TestCorruptedAlone(t *testing.T) {
	for _, ext := range []string{".log", ".sst"} {
		t.Run(ext, func(t *testing.T) {
			g := newGrid(t)
			m := g.startMaster("alder", masterOptions{})
			for i := range 60 {
				m.register(fmt.Sprintf("node-%d", i), 1, 1, nil)
			}
			backup := filepath.Join(g.dir, "backup")
			if out, code := command(t, g.dir, g.env(), filepath.Join(binDir, "explorer"), "backup", "--addr", m.rpc, backup); code != 0 {
				t.Fatal(out)
			}
			if ext == ".sst" {
				m.stop() // into tables
			} else {
				m.kill()
			}
			files := m.corrupt(ext)
			m.run()
			said := m.ends()
			if !strings.Contains(said, "damaged") || !strings.Contains(said, "When a disk fails") || !strings.Contains(said, files[0]) && !strings.Contains(said, files[len(files)-1]) {
				t.Fatalf("%v are damaged, and it says\n%s", files, said)
			}
			epoch := filepath.Join(m.dir, "epochs", "0000000001")
			if err := os.Rename(epoch, epoch+".damaged"); err != nil {
				t.Fatal(err)
			}
			m.launch()
			if out, code := command(t, g.dir, g.env(), filepath.Join(binDir, "explorer"), "restore", "--addr", m.rpc, backup); code != 0 {
				t.Fatal(out)
			}
			if n := len(m.mustNodes()); n != 60 {
				t.Errorf("%d nodes after restoring", n)
			}
		})
	}
}

// A master that has met another sets damaged files aside, says so, and gets its
// records back from the other.
func TestCorruptedWithPeer(t *testing.T) {
	for _, ext := range []string{".log", ".sst"} {
		t.Run(ext, func(t *testing.T) {
			g := newGrid(t)
			a, b := g.twoMasters()
			for i := range 60 {
				a.register(fmt.Sprintf("node-%d", i), 1, 1, nil)
			}
			b.must(t, "drain_node", obj{"node_id": "node-7"}, nil)
			eventually(t, 15*time.Second, func() error { return equalRecords(a, b) })
			if ext == ".sst" {
				a.stop()
			} else {
				a.kill()
			}
			a.corrupt(ext)
			b.register("meanwhile", 1, 1, nil)
			b.kill()
			a.run()
			eventually(t, 20*time.Second, func() error { return a.unhealthy("damaged", "0000000001.damaged") })
			b.launch()
			eventually(t, 30*time.Second, func() error { return errors.Join(a.healthy(), equalRecords(a, b)) })
			if n := len(a.mustNodes()); n != 61 || !a.mustNodes()["node-7"].Drained {
				t.Errorf("%d nodes, want 61", n)
			}
			if _, err := os.Stat(filepath.Join(a.dir, "epochs", "0000000001.damaged")); err != nil {
				t.Error("the damaged files are not kept:", err)
			}
			b.kill()
			a.kill()
			a.launch()
			if n := len(a.mustNodes()); n != 61 {
				t.Errorf("%d nodes are on its own disk, want 61", n)
			}
		})
	}
}

// Tables are damaged under a running master, which notices when another master wants
// what is in them. It writes all it knows to a new epoch, and ships nothing that is
// wrong.
func TestCorruptedWhileRunning(t *testing.T) {
	g := newGrid(t)
	secret := g.secretFile()
	a := g.startMaster("alder", masterOptions{args: secret})
	// More than the master keeps of its files in memory, or it would not notice.
	vms := make([]map[string]any, 900)
	for i := range vms {
		vms[i] = map[string]any{"sid": fmt.Sprintf("vm-%03d", i), "name": strings.Repeat("x", 200), "state": "running"}
	}
	for i := range 60 {
		a.register(fmt.Sprintf("node-%d", i), 1, 1, map[string]any{"vms": vms})
	}
	a.stop()
	a.launch()
	a.corrupt(".sst")
	b := g.startMaster("birch", masterOptions{peers: []string{a.mesh}, args: secret})
	eventually(t, 40*time.Second, func() error { return errors.Join(a.healthy(), equalRecords(a, b)) })
	if n := len(b.mustNodes()); n != 60 {
		t.Errorf("%d nodes, want 60", n)
	}
	eventually(t, 30*time.Second, func() error {
		if _, err := os.Stat(filepath.Join(a.dir, "epochs", "0000000001")); !os.IsNotExist(err) {
			return errNotYet("the damaged epoch is still there")
		}
		return nil
	})
	b.kill()
	a.kill()
	a.launch()
	if n := len(a.mustNodes()); n != 60 {
		t.Errorf("%d nodes are on its own disk, want 60", n)
	}
}

// A damaged key is never replaced by a new one.
func TestCorruptedIdentity(t *testing.T) {
	g := newGrid(t)
	m := g.startMaster("alder", masterOptions{})
	m.kill()
	path := filepath.Join(m.dir, "identity.key")
	if err := os.Truncate(path, 40); err != nil {
		t.Fatal(err)
	}
	m.run()
	if said := m.ends(); !strings.Contains(said, path) || !strings.Contains(said, "restore it from a copy") {
		t.Errorf("it says\n%s", said)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 40 {
		t.Error("the key was changed:", err)
	}
}
