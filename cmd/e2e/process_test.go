//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// stopTime is how long a program may take to end after SIGTERM: the 10 seconds
// of the contract, and what a busy machine takes on top.
const stopTime = 13 * time.Second

// process is a running program whose output goes to a file.
type process struct {
	t    *testing.T
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{} // closed when it has ended
	err  error         // how it ended, once done is closed
}

// start runs a program until the test ends, when it must end within stopTime
// and without failure.
func start(t *testing.T, name, dir string, env []string, argv ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Dir, p.cmd.Env = dir, env
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// A group of its own, so that Ctrl-C in the terminal ends the tests first.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, tail(p.log, 60))
		}
	})
	return p
}

// running reports whether the process has not ended.
func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// stop asks the process to end and checks that it does so in time.
func (p *process) stop() {
	p.t.Helper()
	if !p.running() {
		return
	}
	began := time.Now()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if p.err != nil {
			p.t.Errorf("%s ended on SIGTERM with %v", p.name, p.err)
		}
	case <-time.After(stopTime):
		p.t.Errorf("%s has not ended %v after SIGTERM", p.name, time.Since(began).Round(time.Second))
		p.kill()
	}
}

// kill ends the process with SIGKILL.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// mustRun fails the test when the process has ended on its own.
func (p *process) mustRun() {
	p.t.Helper()
	if !p.running() {
		p.t.Fatalf("%s has ended: %v\n%s", p.name, p.err, tail(p.log, 40))
	}
}

// tail returns the last lines of a file.
func tail(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(all) > lines {
		all = append([]string{fmt.Sprintf("(%d lines left out)", len(all)-lines)}, all[len(all)-lines:]...)
	}
	return "    " + strings.Join(all, "\n    ")
}

// command runs a program to its end and returns what it printed and its exit
// code.
func command(t *testing.T, dir string, env []string, argv ...string) (output string, code int) {
	t.Helper()
	// Not the context of the test, which has ended when its cleanup runs.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, env
	out, err := cmd.CombinedOutput()
	exit := (*exec.ExitError)(nil)
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", argv, err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// eventually calls check until it returns nil, and fails the test with its last
// error when that takes too long.
func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	began := time.Now()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Since(began) > within {
			t.Fatalf("not within %v: %v", within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// tempDir is like t.TempDir with a path that is short enough for unix sockets.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hx-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if os.Getenv("E2E_KEEP") != "" {
			t.Logf("files are kept in %s", dir)
		} else if err := os.RemoveAll(dir); err != nil {
			t.Errorf("removing the files of the test: %v", err)
		}
	})
	return dir
}
