package qemu

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
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

// Logs returns the last lines that the machine wrote to its serial line, of all
// its runs.
func (d *Driver) Logs(_ context.Context, sid string, lines int) ([]string, error) {
	m, err := d.machine(sid)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(m.path(serialLog))
	if errors.Is(err, fs.ErrNotExist) {
		return []string{}, nil
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	text, _, err := readEnd(f)
	if err != nil {
		return nil, err
	}
	all := []string{}
	for len(text) > 0 {
		var line string
		line, text = cutLine(text, true)
		all = append(all, line)
	}
	return all[max(0, len(all)-lines):], nil
}

// readEnd returns what is kept of a log, from the beginning of a line, and where
// in the file it ends.
func readEnd(f *os.File) (text []byte, end int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	end = info.Size()
	begin := max(0, end-keepLog)
	text = make([]byte, end-begin)
	n, err := f.ReadAt(text, begin)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	text, end = text[:n], begin+int64(n)
	if begin > 0 {
		_, text, _ = bytes.Cut(text, []byte("\n"))
	}
	return text, end, nil
}

// cutLine cuts the first line off. If there is none that is whole, all is
// returned as rest, or as the line if it is the last or too long.
func cutLine(text []byte, last bool) (line string, rest []byte) {
	at := bytes.IndexByte(text[:min(len(text), maxLogLine+1)], '\n')
	switch {
	case at >= 0:
		return strings.TrimRight(string(text[:at]), "\r"), text[at+1:]
	case len(text) > maxLogLine:
		return string(text[:maxLogLine]), text[maxLogLine:]
	case last:
		return strings.TrimRight(string(text), "\r"), nil
	}
	return "", text
}

// logReader follows a log.
type logReader struct {
	file   *os.File
	gone   <-chan struct{} // the machine is deleted
	text   []byte          // read and not yet returned
	offset int64           // of what follows text

	once   sync.Once
	closed chan struct{}
}

// Follow reads the log as it grows.
func (d *Driver) Follow(_ context.Context, sid string, lines int) (compute.LogReader, error) {
	m, err := d.machine(sid)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(m.path(serialLog), os.O_RDONLY|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	text, end, err := readEnd(f)
	if err != nil {
		f.Close()
		return nil, err
	}
	return &logReader{file: f, gone: m.gone, text: lastLines(text, lines), offset: end, closed: make(chan struct{})}, nil
}

// lastLines returns the last lines and what has been written of the next.
func lastLines(text []byte, lines int) []byte {
	at := len(text)
	for range lines + 1 {
		at = bytes.LastIndexByte(text[:max(0, at)], '\n')
	}
	return text[at+1:]
}

// Next waits for a line that is whole.
func (l *logReader) Next() (string, error) {
	for {
		before := len(l.text)
		line, rest := cutLine(l.text, false)
		if l.text = rest; len(rest) < before {
			return line, nil
		}
		gone := l.isGone() // before reading, so that the last lines are not missed
		read, err := l.read()
		if errors.Is(err, fs.ErrClosed) {
			return "", io.EOF
		} else if err != nil {
			return "", err
		}
		if read {
			continue
		}
		if gone {
			return "", io.EOF
		}
		select {
		case <-time.After(logInterval):
		case <-l.gone:
		case <-l.closed:
			return "", io.EOF
		}
	}
}

func (l *logReader) isGone() bool {
	select {
	case <-l.gone:
		return true
	default:
		return false
	}
}

// read reads on, and reports whether there was something.
func (l *logReader) read() (bool, error) {
	info, err := l.file.Stat()
	if err != nil {
		return false, err
	}
	switch size := info.Size(); {
	case size < l.offset: // it was cut to nothing
		l.text, l.offset = nil, 0
	case size-l.offset > keepLog: // the reader is too slow
		if l.text, l.offset, err = readEnd(l.file); err != nil {
			return false, err
		}
		return true, nil
	}
	buf := make([]byte, 16<<10)
	n, err := l.file.ReadAt(buf, l.offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	l.text = append(l.text, buf[:n]...)
	l.offset += int64(n)
	return n > 0, nil
}

func (l *logReader) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closed)
		err = l.file.Close()
	})
	return err
}

// trimmer keeps the log of a machine from filling the disk. QEMU appends to it
// meanwhile.
type trimmer struct {
	path  string
	since int // bytes written since the last check
}

func (t *trimmer) wrote(n int) {
	if t.since += n; t.since >= trimEvery {
		t.check()
	}
}

// check gives the disk back what is older than what is kept, or, where the file
// system cannot do that, all.
func (t *trimmer) check() {
	t.since = 0
	f, err := os.OpenFile(t.path, os.O_RDWR, 0)
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
