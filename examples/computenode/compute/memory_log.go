package compute

import (
	"context"
	"fmt"
	"io"
	"sync"
)

// memoryLog reads the log of a played machine.
type memoryLog struct {
	driver  *memoryDriver
	machine *memoryMachine
	next    int // the number of the next line, counted from the first that ever was

	once   sync.Once
	closed chan struct{}
}

func (d *memoryDriver) Follow(_ context.Context, sid string, lines int) (LogReader, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.machines[sid]
	if m == nil {
		return nil, fmt.Errorf("machine %s is not there", sid)
	}
	return &memoryLog{
		driver: d, machine: m, closed: make(chan struct{}),
		next: m.dropped + max(0, len(m.log)-lines),
	}, nil
}

func (l *memoryLog) Next() (string, error) {
	for {
		line, more := l.take()
		if more == nil {
			return line, nil
		}
		select {
		case <-more:
			if l.ended() {
				return "", io.EOF
			}
		case <-l.closed:
			return "", io.EOF
		}
	}
}

// take returns the next line, or what to wait for.
func (l *memoryLog) take() (line string, more <-chan struct{}) {
	l.driver.mu.Lock()
	defer l.driver.mu.Unlock()
	m := l.machine
	l.next = max(l.next, m.dropped)
	if l.next == m.dropped+len(m.log) {
		return "", m.more
	}
	line = m.log[l.next-m.dropped]
	l.next++
	return line, nil
}

// ended reports whether no line will come.
func (l *memoryLog) ended() bool {
	l.driver.mu.Lock()
	defer l.driver.mu.Unlock()
	return l.machine.gone && l.next >= l.machine.dropped+len(l.machine.log)
}

func (l *memoryLog) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}
