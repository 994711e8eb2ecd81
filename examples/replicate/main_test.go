package main

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is the program too, where it is asked to be.
const asProgram = "REPLICATE_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// master is a process that runs.
type master struct {
	cmd    *exec.Cmd
	lines  chan string
	said   []string
	stderr bytes.Buffer
}

func start(t *testing.T, args ...string) *master {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := &master{cmd: exec.Command(program, args...), lines: make(chan string, 1000)}
	m.cmd.Env = append(os.Environ(), asProgram+"=1")
	m.cmd.Stderr = &m.stderr
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.cmd.Process.Kill() })
	go func() {
		defer close(m.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			m.lines <- in.Text()
		}
	}()
	return m
}

// await returns the first line that begins so, from where the last call has stopped.
func (m *master) await(t *testing.T, begin string) string {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		select {
		case line, ok := <-m.lines:
			if !ok {
				t.Fatalf("ended after %q: %s", m.said, &m.stderr)
			}
			m.said = append(m.said, line)
			if strings.HasPrefix(line, begin) {
				return line
			}
		case <-timeout:
			t.Fatalf("waited 30 s for %q, got %q: %s", begin, m.said, &m.stderr)
		}
	}
}

func (m *master) stop(t *testing.T) {
	t.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for range m.lines { // until it closes its output
	}
	if err := m.cmd.Wait(); err != nil {
		t.Errorf("it ends with %v: %s", err, &m.stderr)
	}
}

// Two processes have each other's records, and have them still when one of them is
// gone and the other starts anew.
func TestTwoProcesses(t *testing.T) {
	dir := t.TempDir()
	a := start(t, "-dir", filepath.Join(dir, "a"), "-listen", "127.0.0.1:0")
	addr := strings.TrimPrefix(a.await(t, "listening on "), "listening on ")
	b := start(t, "-dir", filepath.Join(dir, "b"), "-listen", "127.0.0.1:0", "-peer", addr)
	b.await(t, "node-a is online")
	a.await(t, "node-b is online")
	a.stop(t)
	b.await(t, "master a is left")
	b.stop(t)
	b = start(t, "-dir", filepath.Join(dir, "b"), "-listen", "127.0.0.1:0")
	b.await(t, "node-a is ")
	b.stop(t)
}
