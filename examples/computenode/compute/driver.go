package compute

import "context"

// Driver runs the machines. The service never calls it twice at a time for one
// machine, except for Running, and calls it concurrently for different ones.
// Methods may block until ctx ends; Running must not block.
type Driver interface {
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
	// Exec runs a command inside a running machine and waits for its end.
	Exec(ctx context.Context, sid string, command []string) (ExecResult, error)
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
