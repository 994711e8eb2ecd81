package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"forge.ourworld.tf/lhumina_code/hero_explorer/cmd/internal/settings"
)

// version is set by the linker.
var version string

func main() {
	// Whoever reads the output or the log may go away: commands then say so, and what
	// serves goes on without.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	stderr := settings.NewBehind(os.Stderr)
	code := run(ctx, os.Args[1:], os.LookupEnv, os.Stdout, stderr)
	stderr.Close()
	os.Exit(code)
}
