package qemu

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
)

const (
	// keepLog is how much of a machine's log can be read, in bytes.
	keepLog = 1 << 20
	// trimEvery is how much a machine writes between two looks at the size of its
	// log, in bytes.
	trimEvery = 1 << 20
	// maxLogLine is the longest line, in bytes. A longer one becomes several.
	maxLogLine = 4 << 10
	// logInterval is how often a log is read that is followed. QEMU tells nobody
	// when it has written.
	logInterval = 100 * time.Millisecond
)

// logReader reads a log as it grows. Close ends the next look at it.
type logReader struct {
	*os.File
	gone   <-chan struct{} // the machine is deleted
	text   []byte          // read and not yet returned
	offset int64           // of what follows text
}

// openLog opens the log of a machine, which holds all of its runs, at what is kept of it.
func (d *Driver) openLog(sid string) (*logReader, error) {
	m, err := d.machine(sid)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(m.path(serialLog), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	l := &logReader{File: f, gone: m.gone}
	if err := l.skip(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

// Logs returns the last lines that the machine wrote to its serial line.
func (d *Driver) Logs(_ context.Context, sid string, lines int) ([]string, error) {
	l, err := d.openLog(sid)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	all := []string{}
	for len(l.text) > 0 {
		line, _ := l.cut(true)
		all = append(all, line)
	}
	return all[max(0, len(all)-lines):], nil
}

// Follow reads the log as it grows.
func (d *Driver) Follow(_ context.Context, sid string, lines int) (compute.LogReader, error) {
	l, err := d.openLog(sid)
	if err != nil {
		return nil, err
	}
	at := len(l.text)
	for range lines + 1 { // the last one may not be whole yet
		at = bytes.LastIndexByte(l.text[:max(0, at)], '\n')
	}
	l.text = l.text[at+1:]
	return l, nil
}

// Next waits for a line that is whole.
func (l *logReader) Next() (string, error) {
	for {
		if line, ok := l.cut(false); ok {
			return line, nil
		}
		gone := isClosed(l.gone) // before reading, so that the last lines are not missed
		more, err := l.read()
		switch {
		case errors.Is(err, fs.ErrClosed), err == nil && !more && gone:
			return "", io.EOF
		case err != nil:
			return "", err
		case !more:
			time.Sleep(logInterval)
		}
	}
}

// cut takes the first line, if there is one that is whole, too long, or the last.
func (l *logReader) cut(last bool) (line string, ok bool) {
	at := bytes.IndexByte(l.text[:min(len(l.text), maxLogLine+1)], '\n')
	next := at + 1
	if at < 0 {
		at = min(len(l.text), maxLogLine)
		if next = at; !last && at == len(l.text) {
			return "", false
		}
	}
	line = strings.TrimRight(string(l.text[:at]), "\r")
	l.text = l.text[next:]
	return line, true
}

// read reads on, and reports whether there was something.
func (l *logReader) read() (bool, error) {
	info, err := l.Stat()
	if err != nil {
		return false, err
	}
	switch size := info.Size(); {
	case size < l.offset: // it was cut to nothing
		l.text, l.offset = nil, 0
	case size-l.offset > keepLog: // the reader is too slow
		return true, l.skip()
	}
	buf := make([]byte, 16<<10)
	n, err := l.ReadAt(buf, l.offset)
	l.text = append(l.text, buf[:n]...)
	l.offset += int64(n)
	return n > 0, notEOF(err)
}

// skip goes to what is kept of the log, from the beginning of a line on.
func (l *logReader) skip() error {
	info, err := l.Stat()
	if err != nil {
		return err
	}
	begin := max(0, info.Size()-keepLog)
	text := make([]byte, info.Size()-begin)
	n, err := l.ReadAt(text, begin)
	l.text, l.offset = text[:n], begin+int64(n)
	if begin > 0 {
		_, l.text, _ = bytes.Cut(l.text, []byte("\n"))
	}
	return notEOF(err)
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// trimLog keeps the log of a machine from filling the disk, while QEMU appends to it. It
// gives the disk back what is older than what is kept, or, where the file system cannot do
// that, all.
func trimLog(path string) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return // not there yet
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() <= 2*keepLog {
		return
	}
	if freeStart(f, info.Size()-keepLog) != nil {
		_ = f.Truncate(0) // it is tried again after the next bytes
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
