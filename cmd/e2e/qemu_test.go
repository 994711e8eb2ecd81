//go:build e2e

package e2e

import (
	"compress/gzip"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/qemu/qemutest"
)

// bootTime is how long a guest may take to boot on a busy machine, where its
// processor is played.
const bootTime = 45 * time.Second

// A real VM, deployed, watched, stopped and deleted through a master: a disk
// with a boot loader, and Linux where the machine has a kernel to boot.
func TestRealVM(t *testing.T) {
	for _, program := range []string{"qemu-system-x86_64", "qemu-img"} {
		if _, err := exec.LookPath(program); err != nil {
			skip(t, program+" is not installed (on Debian: qemu-system-x86, qemu-utils)")
		}
	}
	g := newGrid(t)
	images := filepath.Join(g.dir, "images")
	if err := os.Mkdir(images, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(images, "echo.raw"), qemutest.Disk(), 0o600); err != nil {
		t.Fatal(err)
	}
	m := g.startMaster("a", masterOptions{})
	data, socket := filepath.Join(g.dir, "vms"), filepath.Join(g.dir, "node-1-vm.sock")
	start(t, "node-1-compute", g.dir, g.env(), filepath.Join(binDir, "computenode"),
		"--socket", socket, "--driver", "qemu", "--images", images, "--data-dir", data, "--grace", "1s")
	node := unixEndpoint(socket)
	eventually(t, 10*time.Second, func() error { return node.call("list_vms", obj{}, nil) })
	g.startAgent("node-1", agentOptions{args: []string{"--compute", "unix://" + socket}}, m)
	eventually(t, 10*time.Second, func() error { return m.online("node-1") })
	t.Cleanup(func() {
		if pids := processesIn(t, data); len(pids) > 0 {
			t.Errorf("QEMU processes are left behind: %v", pids)
		}
	})

	t.Run("disk", func(t *testing.T) {
		liveThrough(t, m, node, data, "echo", qemutest.Greeting, "knock\r", "knock\r\n")
	})
	t.Run("linux", func(t *testing.T) {
		makeLinuxImage(t, filepath.Join(images, "linux"))
		liveThrough(t, m, node, data, "linux", "guest is up", "echo $((6*7))-yes\n", "42-yes\r\n")
	})
}

// liveThrough takes a VM from deploy_vm to delete_vm.
func liveThrough(t *testing.T, m *master, node *endpoint, data, image, greeting, typed, shown string) {
	const secret = "open-sesame"
	var deployed vm
	m.must(t, "deploy_vm", obj{"node_id": "node-1", "name": image, "image": image, "cpu": 1, "memory_mb": 192, "secret": secret}, &deployed)
	params := obj{"node_id": "node-1", "sid": deployed.SID, "secret": secret}
	listed := func(state string) error {
		vms, err := m.vms()
		if err == nil && vms[deployed.SID].State != state {
			err = errNotYet("%s lists %+v, want %s", m.name, vms[deployed.SID], state)
		}
		return err
	}
	eventually(t, 10*time.Second, func() error { return listed("running") })
	eventually(t, bootTime, func() error {
		var log struct {
			Lines []string `json:"lines"`
		}
		if err := m.call("vm_logs", params, &log); err != nil {
			return err
		}
		if text := strings.Join(log.Lines, "\n"); !strings.Contains(text, greeting) {
			return errNotYet("the VM says %q", text)
		}
		return nil
	})
	if pids := processesIn(t, data); len(pids) != 1 {
		t.Errorf("QEMU runs as %v, want one process", pids)
	}
	typeOnConsole(t, node, deployed.SID, secret, typed, shown)

	m.must(t, "stop_vm", params, nil)
	eventually(t, 10*time.Second, func() error { return listed("stopped") })
	if pids := processesIn(t, data); len(pids) > 0 {
		t.Errorf("after stop_vm QEMU runs as %v", pids)
	}
	m.must(t, "start_vm", params, nil)
	m.must(t, "delete_vm", params, nil)
	eventually(t, 10*time.Second, func() error { return listed("") })
	if pids := processesIn(t, data); len(pids) > 0 {
		t.Errorf("after delete_vm QEMU runs as %v", pids)
	}
}

// typeOnConsole types, again and again since a guest may not listen yet, until
// the console shows what is expected.
func typeOnConsole(t *testing.T, node *endpoint, sid, secret, typed, shown string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootTime)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://compute/vms/"+sid+"/console?secret="+secret,
		&websocket.DialOptions{HTTPClient: node.http})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for conn.Write(ctx, websocket.MessageBinary, []byte(typed)) == nil {
			<-tick.C
		}
	}()
	var seen strings.Builder
	for !strings.Contains(seen.String(), shown) {
		_, b, err := conn.Read(ctx)
		if err != nil {
			t.Fatalf("the console shows %q, want %q: %v", seen.String(), shown, err)
		}
		seen.Write(b)
	}
}

// makeLinuxImage makes an image of a kernel and a shell, or skips the test.
func makeLinuxImage(t *testing.T, dir string) {
	t.Helper()
	kernel := hostKernel(t)
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil || !isStatic("/bin/busybox") {
		skip(t, "there is no static /bin/busybox (on Debian: busybox-static)")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const initScript = `#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
echo guest is up
exec /bin/busybox sh </dev/ttyS0 >/dev/ttyS0 2>&1
`
	initrd, err := os.Create(filepath.Join(dir, "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	defer initrd.Close()
	packed := gzip.NewWriter(initrd)
	for i, f := range []struct {
		name string
		mode int
		data []byte
	}{
		{"bin", 0o040755, nil}, {"dev", 0o040755, nil},
		{"bin/busybox", 0o100755, busybox}, {"init", 0o100755, []byte(initScript)}, {"TRAILER!!!", 0, nil},
	} {
		writeCPIO(packed, i+1, f.mode, f.name, f.data)
	}
	if err := packed.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"kernel": kernel, "cmdline": []byte("console=ttyS0 quiet panic=-1\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// hostKernel reads the kernel that E2E_KERNEL names, or this machine's.
func hostKernel(t *testing.T) []byte {
	t.Helper()
	path := os.Getenv("E2E_KERNEL")
	if found, _ := filepath.Glob("/boot/vmlinuz-*"); path == "" && len(found) > 0 { // the pattern is well-formed
		path = found[len(found)-1]
	}
	if path == "" {
		skip(t, "there is no Linux kernel: no /boot/vmlinuz-*, and E2E_KERNEL names none")
	}
	kernel, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return kernel
}

// isStatic reports whether a program runs where there is no other file.
func isStatic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	return !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// writeCPIO writes one member in the format "newc", which the kernel unpacks.
func writeCPIO(w io.Writer, inode, mode int, name string, data []byte) {
	pad := func(n int) string { return strings.Repeat("\x00", (4-n%4)%4) }
	head := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
	fmt.Fprint(w, head, pad(len(head)))
	w.Write(data)
	fmt.Fprint(w, pad(len(data)))
}

// processesIn are the processes that work in the directories of a directory.
func processesIn(t *testing.T, dir string) (pids []string) {
	t.Helper()
	cwds, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, cwd := range cwds {
		if at, err := os.Readlink(cwd); err == nil && strings.HasPrefix(at, dir+"/") {
			pids = append(pids, filepath.Base(filepath.Dir(cwd)))
		}
	}
	return pids
}
