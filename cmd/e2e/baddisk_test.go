//go:build e2e && amd64

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// badDisk makes the disk of a process slow, or has it hang: the kernel stops each system
// call of the process that brings something to the disk (seccomp_unotify(2)) until the
// test lets it go on. Other than a file system that is frozen, this also leaves the process
// to be ended, as a real disk does at last.
type badDisk struct {
	t      *testing.T
	socket string

	mu    sync.Mutex
	delay time.Duration
	hangs chan struct{} // nil: it does not; else closed when it is over
	waits int           // calls that were stopped
}

// launcherEnv names the socket to which the test binary, when it is run as a launcher,
// hands the right to stop its system calls before it becomes the program.
const launcherEnv = "E2E_BAD_DISK"

func newBadDisk(g *grid) *badDisk {
	g.t.Helper()
	d := &badDisk{t: g.t, socket: filepath.Join(g.dir, "disk.sock")}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: d.socket, Net: "unix"})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if fd, err := receiveFD(c); err != nil {
				g.t.Errorf("no supervision of the disk: %v", err)
			} else {
				go d.supervise(fd)
			}
			c.Close()
		}
	}()
	probe := exec.Command(os.Args[0], "true")
	probe.Env = append(os.Environ(), launcherEnv+"="+d.socket)
	if out, err := probe.CombinedOutput(); err != nil {
		skip(g.t, fmt.Sprintf("this machine does not let system calls be stopped: %v: %s", err, out))
	}
	return d
}

// options has a master be started on the disk.
func (d *badDisk) options(o masterOptions) masterOptions {
	o.under, o.env = []string{os.Args[0]}, append(o.env, launcherEnv+"="+d.socket)
	return o
}

// slow has each call take so long from now on.
func (d *badDisk) slow(delay time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.delay = delay
}

// hang has no call return until the returned function is called.
func (d *badDisk) hang() (end func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	over := make(chan struct{})
	d.hangs, d.waits = over, 0
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.hangs = nil
		close(over)
	})
}

// stopped is how many calls were stopped since it hangs.
func (d *badDisk) stopped() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waits
}

// notification and verdict are struct seccomp_notif and seccomp_notif_resp.
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	data  struct {
		nr, arch uint32
		ip       uint64
		args     [6]uint64
	}
}

type verdict struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

const (
	notifRecv     = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	notifSend     = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	goOn          = 1          // SECCOMP_USER_NOTIF_FLAG_CONTINUE
	newListener   = 1 << 3     // SECCOMP_FILTER_FLAG_NEW_LISTENER
	waitKillable  = 1 << 5     // SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	setModeFilter = 1
	notify        = 0x7fc00000 // SECCOMP_RET_USER_NOTIF
	allow         = 0x7fff0000 // SECCOMP_RET_ALLOW
)

func (d *badDisk) supervise(fd int) {
	defer unix.Close(fd)
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil || poll[0].Revents&unix.POLLIN == 0 {
			return // the process has ended
		}
		var n notification
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifRecv, uintptr(unsafe.Pointer(&n))); errno != 0 {
			continue // who called is gone
		}
		d.mu.Lock()
		delay, hangs := d.delay, d.hangs
		d.waits++
		d.mu.Unlock()
		go func() {
			time.Sleep(delay)
			if hangs != nil {
				<-hangs
			}
			r := verdict{id: n.id, flags: goOn}
			_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifSend, uintptr(unsafe.Pointer(&r)))
		}()
	}
}

func receiveFD(c *net.UnixConn) (int, error) {
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := c.ReadMsgUnix(b[:], oob)
	if err != nil {
		return 0, err
	}
	list, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return 0, err
	}
	if len(list) != 1 {
		return 0, fmt.Errorf("%d control messages", len(list))
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil {
		return 0, err
	}
	return fds[0], nil
}

// launch becomes the program that the arguments name, whose calls to the disk are stopped.
func launch(socket string) error {
	runtime.LockOSThread()
	calls := []uint32{
		unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_SYNC_FILE_RANGE, unix.SYS_FALLOCATE,
		unix.SYS_RENAME, unix.SYS_RENAMEAT, unix.SYS_RENAMEAT2, unix.SYS_UNLINK, unix.SYS_UNLINKAT, unix.SYS_MKDIRAT,
	}
	const load, equal, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	filter := []unix.SockFilter{{Code: load, K: 0}}
	for i, nr := range calls {
		filter = append(filter, unix.SockFilter{Code: equal, Jt: uint8(len(calls) - i), K: nr})
	}
	filter = append(filter, unix.SockFilter{Code: ret, K: allow}, unix.SockFilter{Code: ret, K: notify})
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, newListener|waitKillable, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	if _, _, err := c.WriteMsgUnix([]byte{0}, unix.UnixRights(int(fd)), nil); err != nil {
		return err
	}
	unix.CloseOnExec(int(fd))
	path, err := exec.LookPath(os.Args[1])
	if err != nil {
		return err
	}
	return syscall.Exec(path, os.Args[1:], os.Environ())
}
