package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
)

const (
	// maxLogLine bounds a line of a log, in bytes.
	maxLogLine = 1 << 20
	// resumeLines is how many lines are asked for again when a log goes on at another
	// master, to find the last that was printed among them.
	resumeLines = 1000
	// logTail is how many lines are compared for that.
	logTail = 20
	// caughtUp is how long nothing may come until a log counts as told up to now.
	caughtUp = 300 * time.Millisecond
)

// follow prints the log of a VM as it grows. Where its master dies or freezes it goes on
// at the next one, behind the line that it has printed last.
func (v *onVM) follow(ctx context.Context, sid string, lines int) error {
	c, err := v.dial()
	if err != nil {
		return err
	}
	defer c.Close()
	f := &logFollower{out: v.out}
	const soon = 100 * time.Millisecond // there may be another master
	for wait := soon; ; wait = min(2*wait, 15*time.Second) {
		began := time.Now()
		err := v.followOnce(ctx, c, sid, lines, f)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // interrupted, which is how it ends
		case err == nil || !f.began || f.outErr != nil:
			return errors.Join(f.outErr, err)
		}
		if refused := (*client.StatusError)(nil); errors.As(err, &refused) && refused.Status < 500 {
			return err // such as that the VM is gone
		}
		if time.Since(began) > time.Minute {
			wait = soon
		}
		fmt.Fprintf(v.err, "explorer: %s; going on in %v\n", printable(err.Error()), wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		lines = max(lines, resumeLines)
	}
}

// followOnce follows at one master. No error: the log has ended.
func (v *onVM) followOnce(ctx context.Context, c *client.Client, sid string, lines int, f *logFollower) error {
	path, header, err := v.stream(ctx, c, sid, "logs", url.Values{"follow": {"true"}, "lines": {strconv.Itoa(lines)}})
	if err != nil {
		return err
	}
	body, err := c.Download(ctx, path, header)
	if err != nil {
		return err
	}
	if err := f.take(ctx, body); err != nil {
		return fmt.Errorf("the log breaks off: %w", err)
	}
	return f.outErr
}

// logFollower prints one log that comes in several pieces, which overlap.
type logFollower struct {
	out    io.Writer
	outErr error
	began  bool
	tail   [][sha256.Size]byte // of the lines that were printed last
}

// take prints a piece of the log, without what is known already.
func (f *logFollower) take(ctx context.Context, body io.ReadCloser) error {
	ctx, cancel := context.WithCancel(ctx)
	lines, done := make(chan string), make(chan error, 1)
	go func() {
		in := bufio.NewScanner(body)
		in.Buffer(nil, maxLogLine)
		for in.Scan() {
			select {
			case lines <- in.Text():
			case <-ctx.Done():
			}
		}
		done <- in.Err()
		close(lines)
	}()
	defer func() { // the goroutine ends with the body
		cancel()
		_ = body.Close()
		for range lines {
		}
	}()
	f.began = true
	again := []string(nil) // what may have been printed
	catchingUp := len(f.tail) > 0
	quiet := time.NewTimer(caughtUp)
	defer quiet.Stop()
	for {
		select {
		case line, more := <-lines:
			if !more {
				f.print(f.news(again)...)
				return <-done
			}
			if !catchingUp {
				f.print(line)
				break
			}
			if again = append(again, line); len(again) < resumeLines {
				quiet.Reset(caughtUp)
				break
			}
			catchingUp = false
			f.print(f.news(again)...)
			again = nil
		case <-quiet.C:
			catchingUp = false
			f.print(f.news(again)...)
			again = nil
		}
		if f.outErr != nil {
			return nil
		}
	}
}

// news returns which of the lines, told once more, come behind those that were printed:
// all, where these are not among them.
func (f *logFollower) news(again []string) []string {
	sums := make([][sha256.Size]byte, len(again))
	for i, line := range again {
		sums[i] = sha256.Sum256([]byte(line))
	}
	for end := len(again); end >= len(f.tail); end-- {
		if slices.Equal(sums[end-len(f.tail):end], f.tail) {
			return again[end:]
		}
	}
	return again
}

func (f *logFollower) print(lines ...string) {
	for _, line := range lines {
		if f.outErr == nil {
			_, f.outErr = fmt.Fprintln(f.out, printable(line))
		}
		if f.tail = append(f.tail, sha256.Sum256([]byte(line))); len(f.tail) > logTail {
			f.tail = f.tail[1:]
		}
	}
}
