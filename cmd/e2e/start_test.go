//go:build e2e

package e2e

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// clone is a clean clone of what is committed, and the environment of somebody
// who has just made it.
type clone struct {
	t       *testing.T
	dir     string
	home    string
	env     []string
	rpc, ui string
}

func newClone(t *testing.T) *clone {
	t.Helper()
	for _, tool := range []string{"git", "make"} {
		if _, err := exec.LookPath(tool); err != nil {
			skip(t, "needs "+tool)
		}
	}
	g := newGrid(t)
	c := &clone{t: t, dir: filepath.Join(g.dir, "clone"), home: filepath.Join(g.dir, "home")}
	if err := os.Mkdir(c.home, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, code := command(t, g.dir, os.Environ(), "git", "clone", "--quiet", repoDir, c.dir); code != 0 {
		skip(t, "this is no git clone: "+out)
	}
	c.env = []string{"HOME=" + c.home, "PATH=" + os.Getenv("PATH")}
	// The modules and builds that there are already; a first build elsewhere
	// takes minutes.
	for _, name := range []string{"GOMODCACHE", "GOCACHE", "GOFLAGS", "GOPROXY"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		c.env = append(c.env, name+"="+strings.TrimSpace(string(out)))
	}
	c.rpc = c.address("EXPLORER_TCP_ADDR", "127.0.0.1:9002")
	c.ui = c.address("EXPLORER_UI_ADDR", "127.0.0.1:9001")
	return c
}

// address returns the default address, or sets another one where it is taken.
func (c *clone) address(name, addr string) string {
	l, err := net.Listen("tcp", addr)
	if err == nil {
		l.Close()
		return addr
	}
	addr = freeAddr(c.t)
	c.env = append(c.env, name+"="+addr)
	return addr
}

// make runs make, which has to succeed.
func (c *clone) make(args ...string) string {
	c.t.Helper()
	out, code := command(c.t, c.dir, c.env, append([]string{"make"}, args...)...)
	if code != 0 {
		c.t.Fatalf("make %v: exit code %d\n%s", args, code, out)
	}
	return out
}

// processes returns the pids of the programs that were built in the clone.
func (c *clone) processes() (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if exe, err := os.Readlink(filepath.Join("/proc", e.Name(), "exe")); err == nil && strings.HasPrefix(exe, c.dir+"/") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// leftovers returns the sockets and pid files in the home and the clone.
func (c *clone) leftovers() (found []string) {
	for _, root := range []string{c.home, c.dir} {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && (d.Type() == fs.ModeSocket || strings.HasSuffix(path, ".pid")) {
				found = append(found, path)
			}
			return nil
		})
	}
	return found
}

// A newcomer clones, says make start, and sees this machine with its real
// figures, in the API and on the page; make stop leaves nothing behind.
func TestMakeStart(t *testing.T) {
	c := newClone(t)
	t.Cleanup(func() {
		out, _ := command(t, c.dir, c.env, "make", "stop")
		if t.Failed() {
			t.Logf("make stop:\n%s", out)
			for _, log := range []string{"explorer", "workeragent"} {
				t.Logf("log of %s:\n%s", log, tail(filepath.Join(c.dir, ".run", log+".log"), 40))
			}
		}
	})
	out := c.make("start")
	for _, addr := range []string{c.rpc, "http://" + c.ui} {
		if !contains(out, addr) {
			t.Errorf("make start does not print %s:\n%s", addr, out)
		}
	}
	started := time.Now()
	api := &master{name: "make start", endpoint: tcpEndpoint(c.rpc), process: &process{t: t}}
	if status, body, err := api.get("/health"); err != nil || status != 200 {
		t.Errorf("/health when make start has returned: %v, status %d: %s", err, status, body)
	}

	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	cores, memory := machine(t)
	var here node
	eventually(t, 15*time.Second, func() error {
		nodes, err := api.nodes()
		if err != nil || len(nodes) != 1 {
			return errNotYet("%d nodes are listed (%v)", len(nodes), err)
		}
		for _, n := range nodes {
			here = n
		}
		if here.Status != "online" {
			return errNotYet("this machine is %s", here.Status)
		}
		return nil
	})
	t.Logf("this machine is online %v after make start", time.Since(started).Round(time.Millisecond))
	if here.Hostname != hostname || here.Total.CRU != cores || here.Total.MRU != memory || here.Total.SRU+here.Total.HRU == 0 {
		t.Errorf("this machine (%s, %v cores, %d bytes of memory) is listed as %s with %+v", hostname, cores, memory, here.Hostname, here.Total)
	}
	if here.Usage.MRU == 0 || here.Usage.MRU >= memory {
		t.Errorf("%d of %d bytes of memory are said to be used", here.Usage.MRU, memory)
	}

	if out := c.make("start"); strings.Count(out, "already running") != 2 {
		t.Errorf("make start a second time does not say that both are running:\n%s", out)
	}
	if n := len(c.processes()); n != 2 {
		t.Errorf("%d processes run, want the master and the agent", n)
	}
	if out := c.make("status"); strings.Count(out, "is running") != 2 || !contains(out, c.ui) {
		t.Errorf("make status:\n%s", out)
	}
	if out := c.make("logs"); !contains(out, "explorer.log") || !contains(out, "workeragent.log") {
		t.Errorf("make logs:\n%s", out)
	}

	t.Run("Page", func(t *testing.T) {
		page := newBrowser(t).open(t, "http://"+c.ui)
		page.shows(t, toOpen, hostname)
		page.quiet(t)
	})

	c.make("stop")
	if pids := c.processes(); len(pids) > 0 {
		t.Errorf("make stop has left processes behind: %v", pids)
	}
	if left := c.leftovers(); len(left) > 0 {
		t.Errorf("make stop has left behind: %v", left)
	}
	for _, addr := range []string{c.rpc, c.ui} {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("something listens on %s after make stop", addr)
		}
	}
	c.make("stop") // nothing to do is no failure

	// What was known is known after the next start, before any agent reports.
	c.make("start", "MODE=master", "EXPLORER_TCP_ADDR="+c.rpc, "EXPLORER_UI_ADDR="+c.ui)
	if _, there := api.mustNodes()[here.NodeID]; !there {
		t.Error("a restart has forgotten this machine")
	}
	if n := len(c.processes()); n != 1 {
		t.Errorf("MODE=master runs %d processes", n)
	}
	// And a killed one leaves nothing behind either.
	for _, pid := range c.processes() {
		_ = (&os.Process{Pid: pid}).Kill()
	}
	eventually(t, 5*time.Second, func() error {
		if n := len(c.processes()); n > 0 {
			return errNotYet("%d processes are left", n)
		}
		return nil
	})
	c.make("stop")
	if left := c.leftovers(); len(left) > 0 {
		t.Errorf("make stop after a kill has left behind: %v", left)
	}
}

// What cannot start says why, and leaves nothing behind.
func TestMakeStartFails(t *testing.T) {
	c := newClone(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	out, code := command(t, c.dir, append(slices.Clone(c.env), "EXPLORER_TCP_ADDR="+taken.Addr().String()), "make", "start")
	if code == 0 || !contains(out, taken.Addr().String()) || !contains(out, "in use") {
		t.Errorf("make start with the port taken: exit code %d\n%s", code, out)
	}
	if pids := c.processes(); len(pids) > 0 {
		t.Errorf("it has left processes behind: %v", pids)
	}
	if left := c.leftovers(); len(left) > 0 {
		t.Errorf("it has left behind: %v", left)
	}
	out, code = command(t, c.dir, c.env, "make", "start", "MODE=worker")
	if code == 0 || !contains(out, "EXPLORER_ADDRESSES") {
		t.Errorf("make start MODE=worker without EXPLORER_ADDRESSES: exit code %d\n%s", code, out)
	}
}

// machine returns the cores and the memory of this machine as the kernel says.
func machine(t *testing.T) (cores float64, memory uint64) {
	t.Helper()
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		skip(t, "needs /proc: "+err.Error())
	}
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	var kib uint64
	if _, err := fmt.Sscanf(string(meminfo), "MemTotal: %d kB", &kib); err != nil {
		t.Fatal(err)
	}
	return float64(strings.Count("\n"+string(cpuinfo), "\nprocessor\t")), kib << 10
}
