package compute

import (
	"context"
	"io"
)

// Driver runs the machines. The service never calls it twice at a time for one
// machine, except for Running, Follow and Console, and calls it concurrently for
// different ones. Methods may block until ctx ends; Running must not block.
//
// An error that is a *jsonrpc.Error reaches the caller as it is; any other
// becomes one with CodeDriver.
type Driver interface {
	// Keep is called once, before all others, with the machines that the service
	// knows. Others that a crash left running are ended.
	Keep(ctx context.Context, sids []string) error
	// Close ends all machines, with less patience as ctx ends, and refuses to
	// start any. Start boots them again, with what they had, in a new driver.
	Close(ctx context.Context) error
	// Start boots a machine and returns its address. vm.IP is the address it had
	// when it ran before. A machine that runs already is left as it is.
	Start(ctx context.Context, vm VM) (ip string, err error)
	// Stop shuts a machine down. One that does not run is no error.
	Stop(ctx context.Context, sid string) error
	// Delete stops a machine and drops all that belongs to it.
	Delete(ctx context.Context, sid string) error
	// Running reports whether a machine runs: it may have ended by itself.
	Running(sid string) bool
	// Stats measures a machine.
	Stats(ctx context.Context, sid string) (Stats, error)
	// Logs returns the last lines, at most as many as asked for, oldest first.
	Logs(ctx context.Context, sid string, lines int) ([]string, error)
	// Follow reads the log as it grows, beginning with the last lines, at most as
	// many as asked for. ctx bounds the attaching only.
	Follow(ctx context.Context, sid string, lines int) (LogReader, error)
	// Console attaches to the serial console of a running machine, beside others.
	// Reading gives what the machine writes from now on, io.EOF once it has
	// stopped, and serial.ErrBehind to one that reads too slowly; writing types.
	// Close detaches, and ends a Read that waits. ctx bounds the attaching only.
	Console(ctx context.Context, sid string) (io.ReadWriteCloser, error)
	// Exec runs a command inside a running machine and waits for its end.
	Exec(ctx context.Context, sid string, command []string) (ExecResult, error)
}

// LogReader follows the log of one machine. The machine never waits for it: who
// reads too slowly misses lines.
type LogReader interface {
	// Next waits for the next line. It returns io.EOF after the last one of a
	// machine that is deleted, and of a reader that is closed.
	Next() (string, error)
	// Close ends a Next that waits.
	Close() error
}

// Stats is a measurement of one VM. A machine that does not run has zeros.
type Stats struct {
	CPUPercent float64 `json:"cpu_percent"` // 100 is one core
	MemoryUsed uint64  `json:"memory_used"` // bytes
	UptimeS    uint64  `json:"uptime_s"`    // since the last start
}

// ExecResult is what a command inside a VM left behind.
type ExecResult struct {
	ExitCode int    `json:"exit_code"`
	Stdout   string `json:"stdout"`
	Stderr   string `json:"stderr"`
}
