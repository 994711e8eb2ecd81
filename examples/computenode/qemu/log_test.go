package qemu

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
)

// loggedMachine is a driver with a machine that never runs, and its log.
func loggedMachine(t *testing.T) (*Driver, *os.File) {
	t.Helper()
	d := &Driver{cfg: Config{Dir: t.TempDir()}, machines: map[string]*machine{}}
	m, err := d.machine("vm-a")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(m.path(serialLog), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return d, f
}

func TestLogLines(t *testing.T) {
	d, f := loggedMachine(t)
	long := strings.Repeat("x", maxLogLine)
	fmt.Fprint(f, "one\r\n\r\n"+long+"\n"+long+"tail\n\nlogin: ")
	for lines, want := range map[int][]string{
		0:  {},
		1:  {"login: "},
		3:  {"tail", "", "login: "},
		99: {"one", "", long, long, "tail", "", "login: "},
	} {
		got, err := d.Logs(t.Context(), "vm-a", lines)
		if fmt.Sprint(got) != fmt.Sprint(want) || err != nil {
			t.Errorf("the last %d lines: %.100q, %v", lines, got, err)
		}
	}
	if lines, err := d.Logs(t.Context(), "vm-none", 5); len(lines) != 0 || err != nil {
		t.Errorf("a machine that never ran: %q, %v", lines, err)
	}
}

func next(t *testing.T, log compute.LogReader, want string) {
	t.Helper()
	if got, err := log.Next(); got != want || err != nil {
		t.Fatalf("next is %.100q, %v, want %.100q", got, err, want)
	}
}

func TestFollowLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, f := loggedMachine(t)
		fmt.Fprint(f, "one\ntwo\nthr")
		all, err := d.Follow(t.Context(), "vm-a", 10)
		if err != nil {
			t.Fatal(err)
		}
		defer all.Close()
		latest, err := d.Follow(t.Context(), "vm-a", 1)
		if err != nil {
			t.Fatal(err)
		}
		defer latest.Close()
		next(t, all, "one")
		go func() { // while it waits
			synctest.Wait()
			fmt.Fprint(f, "ee\r\nfour\n")
		}()
		for _, line := range []string{"two", "three", "four"} {
			next(t, all, line)
			next(t, latest, line)
		}
		fmt.Fprint(f, "the end\n")
		if err := d.Delete(t.Context(), "vm-a"); err != nil {
			t.Fatal(err)
		}
		next(t, all, "the end")
		if _, err := all.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("after Delete: %v", err)
		}
	})
}

func TestCloseEndsFollowing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, _ := loggedMachine(t)
		log, err := d.Follow(t.Context(), "vm-a", 10)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			synctest.Wait()
			log.Close()
		}()
		for range 2 {
			if _, err := log.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("a log that was closed: %v", err)
			}
		}
	})
}

// A machine that writes without end takes a bounded part of the disk, and who
// follows its log, however slowly, reads whole lines.
func TestLogIsBounded(t *testing.T) {
	d, f := loggedMachine(t)
	path := filepath.Join(d.cfg.Dir, "vm-a", serialLog)
	log, err := d.Follow(t.Context(), "vm-a", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	chunk := strings.Repeat(strings.Repeat("0123456789", 6)+"\n", 1000)
	for range 200 { // 12 MB
		fmt.Fprint(f, chunk)
		trimLog(path)
	}
	fmt.Fprint(f, "last\n")

	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	if disk := st.Blocks * 512; disk > 2*keepLog+trimEvery+1<<17 {
		t.Errorf("the log takes %d bytes of disk", disk)
	}
	lines, err := d.Logs(t.Context(), "vm-a", 1000)
	if err != nil || len(lines) != 1000 || lines[999] != "last" || lines[0] != chunk[:60] {
		t.Errorf("%d lines, %v", len(lines), err)
	}
	for n := 0; ; n++ {
		line, err := log.Next()
		if err != nil {
			t.Fatal(err)
		}
		if line == "last" {
			if n < 1000 {
				t.Errorf("the slow one got %d lines", n)
			}
			break
		}
		if line != chunk[:60] {
			t.Fatalf("line %d is %q", n, line)
		}
	}

	// Where the file system cannot make holes, the log begins anew.
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, "new\n")
	next(t, log, "new")
}
