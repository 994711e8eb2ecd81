package workeragent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

const (
	// lookAtDisk is how often the agent looks whether its data directory takes writes,
	// and diskWithin how long that may take.
	lookAtDisk = 10 * time.Second
	diskWithin = 10 * time.Second

	// probeSize is more than a file system keeps beside the name of a file.
	probeSize = 4 << 10 // bytes
)

// What trouble is about. Of each there is one text at a time.
const (
	aboutDisk       = "disk"
	aboutFigures    = "figures"
	aboutOperations = "operations"
	aboutVMs        = "vms"
)

// watchMachine reads the machine's figures as often as it beats at most. It is
// on a goroutine of its own: a disk that hangs must not silence the node.
func (a *Agent) watchMachine(ctx context.Context, n *node, ready func()) {
	defer ready()
	last := ""
	for ctx.Err() == nil {
		figures, err := a.deps.sample(ctx)
		if ctx.Err() != nil {
			return
		}
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != last {
			if last = text; err != nil {
				a.log.Warn("some figures of this machine cannot be read", "error", err)
			} else {
				a.log.Info("all figures of this machine can be read again")
			}
		}
		if text != "" {
			text = clip("some figures of this machine cannot be read: " + text)
		}
		n.setTrouble(aboutFigures, text)
		n.setFigures(figures)
		ready()
		pause(ctx, jittered(a.cfg.HeartbeatInterval))
	}
}

// diskTrouble says what an error of the data directory means for the node; empty for
// none. The text stays the same while the trouble lasts: each new one is a new record
// on every master.
func diskTrouble(dir string, err error) string {
	what := ""
	switch {
	case err == nil:
		return ""
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		what = "is on a disk that is full"
	case errors.Is(err, syscall.EROFS):
		what = "is on a file system that is read-only"
	case errors.Is(err, os.ErrDeadlineExceeded):
		what = "is on a disk that does not answer"
	default:
		// Without the name of the file, which is another one every time.
		for next := err; next != nil; next = errors.Unwrap(next) {
			err = next
		}
		what = "cannot be written: " + err.Error()
	}
	return fmt.Sprintf("the agent's data directory %s %s; the node is reported, VM operations are refused", dir, what)
}

// probe tries whether a directory takes writes. What it writes need not reach the disk.
func probe(dir string) error {
	path := filepath.Join(dir, "probe")
	err := os.WriteFile(path, make([]byte, probeSize), 0o600)
	if removed := os.Remove(path); err == nil {
		err = removed
	}
	return err
}

// watchDisk keeps what is told of the data directory current, until ctx ends.
func (a *Agent) watchDisk(ctx context.Context, n *node, probe func() error) {
	ended := make(chan error, 1) // of the probe under way
	underWay := false
	for last := n.trouble(aboutDisk); ctx.Err() == nil; pause(ctx, jittered(lookAtDisk)) {
		if !underWay {
			underWay = true
			// It ends with the call to the disk, after this loop only where that hangs.
			go func() { ended <- probe() }()
		}
		err := os.ErrDeadlineExceeded
		within := time.NewTimer(diskWithin)
		select {
		case err = <-ended:
			underWay = false
		case <-within.C: // it hangs; no second one is begun beside it
		case <-ctx.Done():
		}
		within.Stop()
		if ctx.Err() != nil {
			return
		}
		text := diskTrouble(a.cfg.DataDir, err)
		if text != last {
			if last = text; text != "" {
				a.log.Error("the data directory takes no writes", "trouble", text)
			} else {
				a.log.Info("the data directory takes writes again")
			}
		}
		n.setTrouble(aboutDisk, text)
	}
}
