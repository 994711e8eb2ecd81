package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
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
)

// asProgram makes the test binary the program, with the arguments that it gets.
const asProgram = "COMPUTENODE_TEST_RUNS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// node is a computenode that can be killed.
type node struct {
	dir    string
	socket string
	cmd    *exec.Cmd
}

func (n *node) start(t *testing.T, args ...string) {
	t.Helper()
	n.cmd = exec.Command(os.Args[0], append([]string{
		"--socket", n.socket, "--images", filepath.Join(n.dir, "images"), "--data-dir", filepath.Join(n.dir, "vms"), "--grace", "1ms",
	}, args...)...)
	n.cmd.Env = append(os.Environ(), asProgram+"=1")
	log := new(bytes.Buffer)
	n.cmd.Stderr = log
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd := n.cmd
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // has ended, unless the test failed
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("log of a computenode:\n%s", log)
		}
	})
	eventually(t, func() error { return n.tryCall("list_vms", `{}`, nil) })
}

func (n *node) stop(t *testing.T, signal os.Signal) {
	t.Helper()
	if err := n.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	if err := n.cmd.Wait(); err != nil && signal != os.Kill {
		t.Errorf("on %v it ends with %v", signal, err)
	}
}

func (n *node) tryCall(method, params string, result any) error {
	resp, err := client(n.socket).Post("http://compute/rpc", "application/json",
		strings.NewReader(fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, method, params)))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer := struct {
		Result any             `json:"result"`
		Error  json.RawMessage `json:"error"`
	}{Result: result}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Error != nil {
		return fmt.Errorf("%s: %s", method, answer.Error)
	}
	return nil
}

func (n *node) call(t *testing.T, method, params string, result any) {
	t.Helper()
	if err := n.tryCall(method, params, result); err != nil {
		t.Fatal(err)
	}
}

// greeted waits until the guest has said so many times that it is up.
func (n *node) greeted(t *testing.T, sid string, times int) {
	t.Helper()
	eventually(t, func() error {
		resp, err := client(n.socket).Get("http://compute/vms/" + sid + "/logs")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if got := strings.Count(string(text), qemutest.Greeting); err == nil && (got != times || resp.StatusCode != http.StatusOK) {
			err = fmt.Errorf("HTTP %d, %q has %d greetings, want %d", resp.StatusCode, text, got, times)
		}
		return err
	})
}

// processes are the QEMU processes of the node, by their working directories.
func (n *node) processes(t *testing.T) (pids []int) {
	t.Helper()
	cwds, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, cwd := range cwds {
		if at, err := os.Readlink(cwd); err == nil && strings.HasPrefix(at, n.dir+"/") {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(cwd)))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		}
	}
	return pids
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Since(began) > time.Minute {
			t.Fatal(err)
		}
	}
}

// A VM runs on through a crash of the service, and has one process whatever
// happens. One that nobody knows is ended.
func TestMachinesAndTheEndOfTheService(t *testing.T) {
	for _, program := range []string{qemu.Program, "qemu-img"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs QEMU (on Debian: qemu-system-x86 and qemu-utils): %v", err)
		}
	}
	dir, err := os.MkdirTemp("", "cn-")
	if err != nil {
		t.Fatal(err)
	}
	n := &node{dir: dir, socket: filepath.Join(dir, "rpc.sock")}
	t.Cleanup(func() {
		for _, pid := range n.processes(t) {
			t.Errorf("process %d is left behind", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		os.RemoveAll(dir)
	})
	if err := os.Mkdir(filepath.Join(dir, "images"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "images", "echo.raw"), qemutest.Disk(), 0o600); err != nil {
		t.Fatal(err)
	}
	one := func() int {
		t.Helper()
		pids := n.processes(t)
		if len(pids) != 1 {
			t.Fatalf("%d processes %v, want 1", len(pids), pids)
		}
		return pids[0]
	}

	n.start(t)
	var vm compute.VM
	n.call(t, "deploy_vm", `{"name":"web","image":"echo","memory_mb":32}`, &vm)
	params := fmt.Sprintf(`{"sid":%q}`, vm.SID)
	n.greeted(t, vm.SID, 1)
	pid := one()

	for range 2 {
		n.stop(t, os.Kill)
		n.start(t)
		var got compute.VM
		n.call(t, "get_vm", params, &got)
		if again := one(); got != vm || again != pid {
			t.Errorf("after kill -9: %+v in process %d, before %+v in %d", got, again, vm, pid)
		}
	}
	// What was taken over is the service's like any other.
	n.call(t, "start_vm", params, &vm)
	if again := one(); again != pid {
		t.Error("start_vm started it a second time")
	}
	var st struct {
		Used uint64 `json:"memory_used"`
	}
	if n.call(t, "vm_stats", params, &st); st.Used == 0 {
		t.Error("no stats")
	}
	n.call(t, "restart_vm", params, &vm)
	n.greeted(t, vm.SID, 2)
	if again := one(); again == pid {
		t.Error("restart_vm did not restart it")
	}

	// It ends, and comes back, with the service.
	n.stop(t, syscall.SIGTERM)
	if pids := n.processes(t); len(pids) != 0 {
		t.Errorf("processes outlive the service: %v", pids)
	}
	n.start(t)
	n.greeted(t, vm.SID, 3)
	pid = one()

	// A process that does not answer is no use to anyone.
	n.stop(t, os.Kill)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	n.greeted(t, vm.SID, 4)
	if again := one(); again == pid {
		t.Error("a process that hangs was taken over")
	}

	// One that ended while nobody looked is started again.
	n.stop(t, os.Kill)
	if err := syscall.Kill(one(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	n.greeted(t, vm.SID, 5)

	n.stop(t, os.Kill)
	n.start(t, "--state", filepath.Join(dir, "other.json"))
	if pids := n.processes(t); len(pids) != 0 {
		t.Errorf("processes that nobody knows run: %v", pids)
	}
	n.stop(t, syscall.SIGTERM)
	n.start(t) // and its disk is still there
	n.greeted(t, vm.SID, 6)
	n.call(t, "delete_vm", params, nil)
	if pids := n.processes(t); len(pids) != 0 {
		t.Errorf("processes after delete_vm: %v", pids)
	}
	n.stop(t, syscall.SIGTERM)
}
