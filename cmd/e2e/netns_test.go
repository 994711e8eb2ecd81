//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// networks counts them, for their names.
var networks atomic.Int32

// network is a switch with hosts, each in a network namespace of its own. A
// host can be unplugged and plugged in again.
type network struct {
	t      *testing.T
	bridge string
	hosts  []*netns
}

// netns is one host of a network.
type netns struct {
	name string // of the namespace
	port string // of the switch, where its cable ends
	ip   string
	net  *network
}

// newNetwork makes a network of n hosts, 10.99.0.1 and so on, or skips the test
// where the machine does not allow it. Every host knows the hosts file's lines
// as well as those of the system.
func newNetwork(t *testing.T, n int, hostsFile string) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		skip(t, "network namespaces need ip, of the package iproute2")
	}
	// Interface names have at most 15 characters.
	id := fmt.Sprintf("hx%d%c", os.Getpid()%1_000_000, 'a'+networks.Add(1)%26)
	w := &network{t: t, bridge: id + "br"}
	if out, err := exec.Command("ip", "netns", "add", id+"try").CombinedOutput(); err != nil {
		skip(t, fmt.Sprintf("this machine does not allow network namespaces: %s", out))
	}
	w.ip("netns", "del", id+"try")

	if out, err := exec.Command("ip", "link", "add", w.bridge, "type", "bridge").CombinedOutput(); err != nil {
		skip(t, fmt.Sprintf("this machine does not allow bridges: %s", out))
	}
	t.Cleanup(func() { w.ip("link", "del", w.bridge) })
	w.ip("link", "set", w.bridge, "up")
	for i := range n {
		h := &netns{
			name: fmt.Sprintf("%sn%d", id, i+1), port: fmt.Sprintf("%sp%d", id, i+1),
			ip: fmt.Sprintf("10.99.0.%d", i+1), net: w,
		}
		w.ip("netns", "add", h.name)
		t.Cleanup(func() { w.ip("netns", "del", h.name) })
		w.ip("link", "add", h.port, "type", "veth", "peer", "name", "eth0", "netns", h.name)
		w.ip("link", "set", h.port, "master", w.bridge, "up")
		w.ip("-n", h.name, "addr", "add", h.ip+"/24", "dev", "eth0")
		w.ip("-n", h.name, "link", "set", "eth0", "up")
		w.ip("-n", h.name, "link", "set", "lo", "up")
		if hostsFile != "" {
			h.writeHosts(hostsFile)
		}
		w.hosts = append(w.hosts, h)
	}
	return w
}

// writeHosts gives the host an /etc/hosts of its own.
func (h *netns) writeHosts(lines string) {
	h.net.t.Helper()
	h.writeEtc("hosts", "127.0.0.1 localhost\n"+lines)
}

// writeEtc gives the host a file of its own in /etc, which ip netns exec lays over the
// system's.
func (h *netns) writeEtc(name, text string) {
	t := h.net.t
	t.Helper()
	dir := filepath.Join("/etc/netns", h.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.RemoveAll(dir)
		os.Remove("/etc/netns") // where it is empty
	})
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// exec is what to put before a command so that it runs on the host.
func (h *netns) exec() []string {
	return []string{"ip", "netns", "exec", h.name}
}

// unplug cuts the host off from all others, without a word to it.
func (h *netns) unplug() {
	h.net.t.Helper()
	h.net.ip("link", "set", h.port, "down")
}

// plug ends what unplug began.
func (h *netns) plug() {
	h.net.t.Helper()
	h.net.ip("link", "set", h.port, "up")
}

// readdress takes the host's address away from it and gives it another one, while
// everything runs.
func (h *netns) readdress(ip string) {
	h.net.t.Helper()
	h.net.ip("-n", h.name, "addr", "del", h.ip+"/24", "dev", "eth0")
	h.net.ip("-n", h.name, "addr", "add", ip+"/24", "dev", "eth0")
	h.ip = ip
}

func (w *network) ip(args ...string) {
	w.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		w.t.Errorf("ip %v: %v: %s", args, err, out)
	}
}
