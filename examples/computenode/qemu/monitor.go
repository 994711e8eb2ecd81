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
	conn    net.Conn
	replies chan reply    // holds the newest one
	closed  chan struct{} // QEMU has hung up

	one  sync.Mutex // held for a command: one at a time
	last uint64     // the id of the last command; one guards it
}

// reply is any message of QEMU.
type reply struct {
	ID     uint64          `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
}

var errHungUp = errors.New("QEMU has hung up")

// openMonitor takes over the connection, and waits until QEMU takes commands.
// The events are reported one after the other, as they come.
func openMonitor(ctx context.Context, conn net.Conn, event func(name string)) (*monitor, error) {
	m := &monitor{conn: conn, replies: make(chan reply, 1), closed: make(chan struct{})}
	go m.read(event)
	if err := m.execute(ctx, "qmp_capabilities", nil); err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

// read reads messages until the connection ends. One that nobody takes, as a greeting or
// an answer that came too late, makes room for the next.
func (m *monitor) read(event func(name string)) {
	defer close(m.closed)
	defer m.conn.Close()
	in := bufio.NewScanner(m.conn)
	in.Buffer(nil, maxMonitorLine)
	for in.Scan() {
		var r reply
		if json.Unmarshal(in.Bytes(), &r) != nil {
			return // not QEMU
		}
		if r.Event != "" {
			event(r.Event)
			continue
		}
		select {
		case <-m.replies:
		default:
		}
		m.replies <- r
	}
}

// execute runs a command and decodes what it returns, if result is not nil.
func (m *monitor) execute(ctx context.Context, command string, result any) error {
	ctx, cancel := context.WithTimeout(ctx, monitorTimeout)
	defer cancel()
	m.one.Lock()
	defer m.one.Unlock()
	m.last++
	deadline, _ := ctx.Deadline()
	if err := m.conn.SetWriteDeadline(deadline); err != nil {
		return errHungUp
	}
	if _, err := fmt.Fprintf(m.conn, "{\"execute\":%q,\"id\":%d}\n", command, m.last); err != nil {
		return fmt.Errorf("QMP %s: %w (%w)", command, errHungUp, err)
	}
	for {
		select {
		case r := <-m.replies:
			switch {
			case r.ID != m.last:
				continue
			case r.Error != nil:
				return fmt.Errorf("QMP %s: %s", command, r.Error.Desc)
			case result == nil:
				return nil
			}
			return json.Unmarshal(r.Return, result)
		case <-m.closed:
			return errHungUp
		case <-ctx.Done():
			return fmt.Errorf("QMP %s: %w", command, ctx.Err())
		}
	}
}
