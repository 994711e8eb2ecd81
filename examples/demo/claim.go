package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// mark says that a demo runs: a locked file that holds its pid and where its
// files are. The lock ends with the process, however it ends.
type mark struct {
	file  *os.File
	files string // directory
}

const markName = "running"

var errRunning = errors.New("the demo is running already; make demo-stop ends it")

// claim makes this process the demo, and clears away what one that was killed
// has left behind.
func claim(dir string) (*mark, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, markName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errRunning
		}
		return nil, err
	}
	if _, old, err := read(f); err == nil {
		_ = os.RemoveAll(old)
	}
	files, err := os.MkdirTemp("", "hero-demo-")
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "%d %s\n", os.Getpid(), files), 0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &mark{f, files}, nil
}

// read returns the pid and the directory in a mark.
func read(f *os.File) (pid int, files string, err error) {
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
	if err != nil {
		return 0, "", err
	}
	first, files, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	if !strings.HasPrefix(filepath.Base(files), "hero-demo-") {
		return 0, "", fmt.Errorf("%s does not name a demo", f.Name())
	}
	pid, err = strconv.Atoi(first)
	return pid, files, err
}

// release removes the files and the mark.
func (m *mark) release() {
	_ = os.RemoveAll(m.files)
	_ = os.Remove(m.file.Name())
	_ = m.file.Close()
}

// end ends the demo that runs, and waits for it.
func end(dir string, out io.Writer) error {
	f, err := os.OpenFile(filepath.Join(dir, markName), os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		fmt.Fprintln(out, "the demo is not running")
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	pid, files, readErr := read(f)
	for tries := range 200 {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		switch {
		case err == nil: // nobody holds it any more
			if readErr == nil {
				_ = os.RemoveAll(files)
			}
			_ = os.Remove(f.Name())
			fmt.Fprintln(out, "the demo has ended")
			return nil
		case !errors.Is(err, syscall.EWOULDBLOCK):
			return err
		case readErr != nil:
			return readErr
		case tries == 0:
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				return err
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return fmt.Errorf("the demo (pid %d) does not end", pid)
}
