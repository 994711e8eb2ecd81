package compute

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/serial"
)

// maxTyped bounds a line that is typed on the console of a played machine.
const maxTyped = 4 << 10

// memoryConsole is one of the consoles of a played machine.
type memoryConsole struct {
	*serial.Tap
	driver *memoryDriver
	sid    string
}

// Console attaches to a toy: it echoes what is typed, and on Enter runs what
// Exec runs.
func (d *memoryDriver) Console(_ context.Context, sid string) (io.ReadWriteCloser, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := d.machines[sid]
	if m == nil || m.line == nil {
		return nil, fmt.Errorf("machine %s does not run", sid)
	}
	return &memoryConsole{Tap: m.line.Tap(), driver: d, sid: sid}, nil
}

func (c *memoryConsole) Write(p []byte) (int, error) {
	c.driver.mu.Lock()
	defer c.driver.mu.Unlock()
	m := c.driver.machines[c.sid]
	if m == nil || m.line == nil {
		return 0, io.ErrClosedPipe
	}
	m.keys(p)
	return len(p), nil
}

// keys is called with the driver's lock held.
func (m *memoryMachine) keys(p []byte) {
	var out bytes.Buffer
	for _, key := range p {
		switch {
		case key == '\r' || key == '\n':
			out.WriteString("\r\n")
			if command := strings.Fields(string(m.typed)); len(command) > 0 {
				res := m.exec(command)
				out.WriteString(strings.ReplaceAll(res.Stdout+res.Stderr, "\n", "\r\n"))
			}
			m.typed = m.typed[:0]
			fmt.Fprintf(&out, "%s$ ", m.vm.Name)
		case key == 0x7f || key == '\b':
			if n := len(m.typed); n > 0 {
				m.typed = m.typed[:n-1]
				out.WriteString("\b \b")
			}
		case len(m.typed) < maxTyped:
			m.typed = append(m.typed, key)
			out.WriteByte(key)
		}
	}
	_, _ = m.line.Write(out.Bytes()) // does not fail
}
