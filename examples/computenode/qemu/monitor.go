package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// monitorTimeout bounds one command where ctx does not.
	monitorTimeout = 10 * time.Second
	// maxMonitorLine bounds one message of QEMU, in bytes.
	maxMonitorLine = 1 << 20
)

// monitor speaks QMP, the protocol by which QEMU is controlled: one JSON object
// a line. One process at a time may do so.
type monitor struct {
	conn   net.Conn
	closed chan struct{} // QEMU has hung up

	one sync.Mutex // held for a command: one at a time

	mu     sync.Mutex
	last   uint64       // the id of the last command
	answer chan<- reply // takes the reply to it; nil: it has come
}

// reply is any message of QEMU.
type reply struct {
	Greeting json.RawMessage `json:"QMP"`
	ID       uint64          `json:"id"`
	Return   json.RawMessage `json:"return"`
	Error    *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
}

var errHungUp = errors.New("QEMU has hung up")

// openMonitor takes over the connection, and waits until QEMU takes commands.
// The events are reported one after the other, as they come.
func openMonitor(ctx context.Context, conn net.Conn, event func(name string)) (*monitor, error) {
	m := &monitor{conn: conn, closed: make(chan struct{})}
	greeted := make(chan struct{})
	go m.read(greeted, event)
	select {
	case <-greeted:
	case <-m.closed:
		return nil, errHungUp
	case <-ctx.Done():
		conn.Close()
		return nil, fmt.Errorf("QEMU does not answer: %w", ctx.Err())
	}
	if err := m.execute(ctx, "qmp_capabilities", nil); err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

func (m *monitor) read(greeted chan<- struct{}, event func(name string)) {
	defer close(m.closed)
	defer m.conn.Close()
	in := bufio.NewScanner(m.conn)
	in.Buffer(nil, maxMonitorLine)
	for in.Scan() {
		var r reply
		if json.Unmarshal(in.Bytes(), &r) != nil {
			return // not QEMU
		}
		switch {
		case r.Greeting != nil:
			if greeted == nil {
				return
			}
			close(greeted)
			greeted = nil
		case r.Event != "":
			event(r.Event)
		default:
			m.deliver(r)
		}
	}
}

// execute runs a command and decodes what it returns, if result is not nil.
func (m *monitor) execute(ctx context.Context, command string, result any) error {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	m.one.Lock()
	defer m.one.Unlock()
	id, answer := m.expect()
	line, err := json.Marshal(map[string]any{"execute": command, "id": id})
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline()
	if err := m.conn.SetWriteDeadline(deadline); err != nil {
		return errHungUp
	}
	if _, err := m.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	select {
	case r := <-answer:
		if r.Error != nil {
			return fmt.Errorf("QMP %s: %s", command, r.Error.Desc)
		}
		if result == nil {
			return nil
		}
		return json.Unmarshal(r.Return, result)
	case <-m.closed:
		return errHungUp
	case <-ctx.Done():
		return fmt.Errorf("QMP %s: %w", command, ctx.Err())
	}
}

// expect returns the id of a new command and what its reply comes on.
func (m *monitor) expect() (uint64, <-chan reply) {
	answer := make(chan reply, 1)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	m.answer = answer
	return m.last, answer
}

// deliver drops a reply to a command that was not waited for.
func (m *monitor) deliver(r reply) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.answer != nil && r.ID == m.last {
		m.answer <- r
		m.answer = nil
	}
}
