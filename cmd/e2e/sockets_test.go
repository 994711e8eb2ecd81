//go:build e2e

package e2e

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sockets returns what a process listens on, as Linux tells it: "tcp
// 127.0.0.1:9002", "unix /path", and every UDP socket, for they have no state
// that says whether they wait for strangers.
func sockets(t *testing.T, pid int) []string {
	t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		skip(t, "needs /proc: "+err.Error())
	}
	owned := map[string]bool{}
	for _, fd := range fds {
		link, _ := os.Readlink(filepath.Join(proc, "fd", fd.Name()))
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			owned[strings.TrimSuffix(inode, "]")] = true
		}
	}
	var found []string
	for _, kind := range []string{"tcp", "tcp6", "udp", "udp6"} {
		for _, f := range netTable(t, proc, kind) {
			const listening = "0A"
			if len(f) > 9 && owned[f[9]] && (f[3] == listening || kind[0] == 'u') {
				found = append(found, kind[:3]+" "+kernelAddr(t, f[1]))
			}
		}
	}
	for _, f := range netTable(t, proc, "unix") {
		const accepting = "00010000"
		if len(f) > 7 && owned[f[6]] && f[3] == accepting {
			found = append(found, "unix "+f[7])
		}
	}
	slices.Sort(found)
	return found
}

// netTable returns the fields of the lines of a table in /proc/PID/net.
func netTable(t *testing.T, proc, name string) (rows [][]string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(proc, "net", name))
	if os.IsNotExist(err) {
		return nil // no IPv6
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n")[1:] {
		rows = append(rows, strings.Fields(line))
	}
	return rows
}

// kernelAddr decodes 0100007F:2329: words of the address in the order of the
// machine's bytes, and the port.
func kernelAddr(t *testing.T, s string) string {
	t.Helper()
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if err != nil {
		t.Fatalf("address %q: %v", s, err)
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, _ := netip.AddrFromSlice(raw)
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		t.Fatalf("address %q: %v", s, err)
	}
	return net.JoinHostPort(addr.Unmap().String(), fmt.Sprint(n))
}
