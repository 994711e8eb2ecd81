package qemu_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/qemu"
	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/qemu/qemutest"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// stopTimeout is how long a test waits for a guest on a busy machine.
const stopTimeout = time.Minute

// needQEMU skips the test on a machine without QEMU.
func needQEMU(t *testing.T) {
	t.Helper()
	for _, program := range []string{qemu.Program, "qemu-img"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs QEMU (on Debian: qemu-system-x86 and qemu-utils): %v", err)
		}
	}
}

// shortDir is like t.TempDir with a path that is short enough for sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cn-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// writeImage makes a directory of images with one, "echo".
func writeImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "echo.raw"), qemutest.Disk(), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func newDriver(t *testing.T, cfg qemu.Config) *qemu.Driver {
	t.Helper()
	needQEMU(t)
	if cfg.Images == "" {
		cfg.Images = writeImage(t)
	}
	if cfg.Dir == "" {
		cfg.Dir = shortDir(t)
	}
	if cfg.Grace == 0 {
		cfg.Grace = time.Millisecond // the guest ignores the button
	}
	d, err := qemu.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return d
}

func echoVM(sid string) compute.VM {
	return compute.VM{Summary: compute.Summary{SID: sid, Name: sid, CPU: 1, Memory: 32 << 20}, Image: "echo"}
}

func start(t *testing.T, d *qemu.Driver, sid string) {
	t.Helper()
	if _, err := d.Start(t.Context(), echoVM(sid)); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Since(began) > stopTimeout {
			t.Fatal(err)
		}
	}
}

// isUp waits until the guest has greeted so many times.
func isUp(t *testing.T, d *qemu.Driver, sid string, times int) {
	t.Helper()
	eventually(t, func() error {
		lines, err := d.Logs(t.Context(), sid, 1000)
		if text := strings.Join(lines, "\n"); err == nil && strings.Count(text, qemutest.Greeting) != times {
			err = fmt.Errorf("the log of %s is %q, want %d greetings", sid, text, times)
		}
		return err
	})
}

// ends waits until the machine is not running.
func ends(t *testing.T, d *qemu.Driver, sid string) {
	t.Helper()
	eventually(t, func() error {
		if d.Running(sid) {
			return fmt.Errorf("%s runs", sid)
		}
		return nil
	})
}

// processes are the ids of the QEMU processes in a directory.
func processes(t *testing.T, dir string) []int {
	t.Helper()
	cwds, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, cwd := range cwds {
		at, err := os.Readlink(cwd)
		if err != nil || !strings.HasPrefix(at, dir+"/") {
			continue // it has ended, or is another's
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(cwd)))
		if err != nil {
			t.Fatal(err)
		}
		pids = append(pids, pid)
	}
	return pids
}

func wantProcesses(t *testing.T, dir string, n int) []int {
	t.Helper()
	pids := processes(t, dir)
	if len(pids) != n {
		t.Errorf("%d processes %v, want %d", len(pids), pids, n)
	}
	return pids
}

// screen reads a console until the text is there.
func screen(t *testing.T, console io.ReadCloser, text string) {
	t.Helper()
	defer time.AfterFunc(stopTimeout, func() { console.Close() }).Stop()
	var seen []byte
	buf := make([]byte, 1024)
	for !bytes.Contains(seen, []byte(text)) {
		n, err := console.Read(buf)
		if err != nil {
			t.Fatalf("%v; on the console: %q", err, seen)
		}
		seen = append(seen, buf[:n]...)
	}
}

func TestLifeOfAMachine(t *testing.T) {
	dir := shortDir(t)
	d := newDriver(t, qemu.Config{Dir: dir})
	start(t, d, "vm-a")
	isUp(t, d, "vm-a", 1)
	if !d.Running("vm-a") {
		t.Error("it does not run")
	}
	start(t, d, "vm-a") // is left as it is
	pids := wantProcesses(t, dir, 1)

	// What is typed on one console is seen on both, and in the log.
	log, err := d.Follow(t.Context(), "vm-a", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	a, err := d.Console(t.Context(), "vm-a")
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Console(t.Context(), "vm-a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(a, "knock knock\r"); err != nil {
		t.Fatal(err)
	}
	screen(t, a, "knock knock\r\n")
	screen(t, b, "knock knock\r\n")
	if line, err := log.Next(); line != "knock knock" || err != nil {
		t.Errorf("the log goes on with %q, %v", line, err)
	}

	st, err := d.Stats(t.Context(), "vm-a")
	if err != nil || st.MemoryUsed < 1<<20 || st.CPUPercent <= 0 {
		t.Errorf("stats: %+v, %v", st, err)
	}
	var e *jsonrpc.Error
	if _, err := d.Exec(t.Context(), "vm-a", []string{"true"}); !errors.As(err, &e) || e.Code != compute.CodeNotOffered {
		t.Errorf("exec: %v", err)
	}

	if err := d.Stop(t.Context(), "vm-a"); err != nil {
		t.Fatal(err)
	}
	if d.Running("vm-a") {
		t.Error("it runs after Stop")
	}
	wantProcesses(t, dir, 0)
	if err := syscall.Kill(pids[0], 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the process was not reaped: %v", err)
	}
	if _, err := io.ReadAll(b); err != nil {
		t.Errorf("a console of a machine that stops ends with %v", err)
	}
	if st, err := d.Stats(t.Context(), "vm-a"); st != (compute.Stats{}) || err != nil {
		t.Errorf("stats: %+v, %v", st, err)
	}
	if err := d.Stop(t.Context(), "vm-a"); err != nil {
		t.Errorf("the second Stop: %v", err)
	}

	start(t, d, "vm-a")
	isUp(t, d, "vm-a", 2) // the log holds both runs
	if again := wantProcesses(t, dir, 1); len(again) == 1 && again[0] == pids[0] {
		t.Error("the process is the same")
	}
	if err := d.Delete(t.Context(), "vm-a"); err != nil {
		t.Fatal(err)
	}
	wantProcesses(t, dir, 0)
	if _, err := os.Stat(filepath.Join(dir, "vm-a")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("files are left: %v", err)
	}
	for {
		if _, err := log.Next(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestMachineEndsByItself(t *testing.T) {
	dir := shortDir(t)
	d := newDriver(t, qemu.Config{Dir: dir})
	start(t, d, "vm-a")
	isUp(t, d, "vm-a", 1)
	console, err := d.Console(t.Context(), "vm-a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(console, qemutest.Off); err != nil {
		t.Fatal(err)
	}
	ends(t, d, "vm-a")

	start(t, d, "vm-a")
	for _, pid := range wantProcesses(t, dir, 1) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	ends(t, d, "vm-a")
	start(t, d, "vm-a")
	if !d.Running("vm-a") {
		t.Error("it does not run")
	}
}

// What a VM wrote is there when it is started again: here its own boot sector.
func TestDiskOutlivesTheProcess(t *testing.T) {
	images := writeImage(t)
	dir := shortDir(t)
	d := newDriver(t, qemu.Config{Images: images, Dir: dir})
	start(t, d, "vm-a")
	before, err := os.Stat(filepath.Join(dir, "vm-a", "disk.qcow2"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(t.Context(), "vm-a"); err != nil {
		t.Fatal(err)
	}
	start(t, d, "vm-a")
	after, err := os.Stat(filepath.Join(dir, "vm-a", "disk.qcow2"))
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the disk was made anew: %v", err)
	}
}

func TestLimits(t *testing.T) {
	d := newDriver(t, qemu.Config{MaxCPU: 2, MaxMemory: 80 << 20})
	for _, tt := range []struct {
		change func(*compute.VM)
		code   int
		says   string
	}{
		{func(vm *compute.VM) { vm.CPU = 3 }, jsonrpc.CodeInvalidParams, "cpu"},
		{func(vm *compute.VM) { vm.Memory = 8 << 20 }, jsonrpc.CodeInvalidParams, "memory"},
		{func(vm *compute.VM) { vm.Memory = 81 << 20 }, jsonrpc.CodeInvalidParams, "memory"},
		{func(vm *compute.VM) { vm.Image = "fedora" }, jsonrpc.CodeInvalidParams, "which has echo"},
		{func(vm *compute.VM) { vm.Image = "../echo" }, jsonrpc.CodeInvalidParams, "image"},
	} {
		vm := echoVM("vm-x")
		tt.change(&vm)
		_, err := d.Start(t.Context(), vm)
		if e := (*jsonrpc.Error)(nil); !errors.As(err, &e) || e.Code != tt.code || !strings.Contains(e.Message, tt.says) {
			t.Errorf("%+v: %v, want code %d that says %q", vm, err, tt.code, tt.says)
		}
	}
	start(t, d, "vm-a")
	start(t, d, "vm-b")
	_, err := d.Start(t.Context(), echoVM("vm-c"))
	if e := (*jsonrpc.Error)(nil); !errors.As(err, &e) || e.Code != compute.CodeNoRoom {
		t.Errorf("a third one: %v", err)
	}
	if err := d.Stop(t.Context(), "vm-a"); err != nil {
		t.Fatal(err)
	}
	start(t, d, "vm-c") // takes the place
}

func TestBootFails(t *testing.T) {
	images := writeImage(t)
	if err := os.Mkdir(filepath.Join(images, "broken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(images, "broken", "kernel"), []byte("no kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := shortDir(t)
	d := newDriver(t, qemu.Config{Images: images, Dir: dir})
	vm := echoVM("vm-a")
	vm.Image = "broken"
	if _, err := d.Start(t.Context(), vm); err == nil || !strings.Contains(err.Error(), "kernel") {
		t.Errorf("the error is %v, want what QEMU said", err)
	}
	if d.Running("vm-a") {
		t.Error("it runs")
	}
	wantProcesses(t, dir, 0)
}

func TestBadConfig(t *testing.T) {
	needQEMU(t)
	images := writeImage(t)
	for says, cfg := range map[string]qemu.Config{
		"images:": {Images: filepath.Join(images, "none"), Dir: shortDir(t)},
		"dir:":    {Images: images},
		"bytes":   {Images: images, Dir: filepath.Join(shortDir(t), strings.Repeat("x", 100))},
	} {
		if _, err := qemu.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one that says %q", err, says)
		}
	}
	dir := shortDir(t)
	newDriver(t, qemu.Config{Images: images, Dir: dir})
	if _, err := qemu.New(t.Context(), qemu.Config{Images: images, Dir: dir}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second driver in the directory: %v", err)
	}
}
