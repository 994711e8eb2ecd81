package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

func init() {
	// On Linux the programs end with the thread that has started them. The main
	// thread stays until the end.
	runtime.LockOSThread()
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0, 1 for a failure, 2 for wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	bin := flags.String("bin", "bin", "`directory` of explorer, workeragent and computenode")
	dir := flags.String("dir", ".run/demo", "`directory` that tells later runs of this one")
	port := flags.Int("port", 9100, "the `port` from which on 30 are used")
	nodes := flags.Int("nodes", 20, "how many nodes, at most 99")
	stop := flags.Bool("stop", false, "end the demo that runs")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 || *nodes < 1 || *nodes > 99 || *port < 1 || *port > 65000 {
		fmt.Fprintln(stderr, "demo: see --help")
		return 2
	}
	do := func() error { return demo(ctx, *bin, *dir, *port, *nodes, stdout) }
	if *stop {
		do = func() error { return end(*dir, stdout) }
	}
	if err := do(); err != nil {
		fmt.Fprintf(stderr, "demo: %v\n", err)
		return 1
	}
	return 0
}

// demo runs the grid until ctx ends.
func demo(ctx context.Context, bin, dir string, port, nodes int, out io.Writer) (err error) {
	mark, err := claim(dir)
	if err != nil {
		return err
	}
	defer mark.release()
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	g := newGrid(bin, mark.files, port, out)
	defer func() { g.stop() }()

	fmt.Fprintf(out, "starting 3 masters and %d nodes, with their logs in %s\n", nodes, mark.files)
	began := time.Now()
	err = g.start(ctx, nodes)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "ready after %v\n\n", time.Since(began).Round(100*time.Millisecond))
	g.explain()
	return g.watch(ctx)
}

// restartAfter is how long a program that was killed stays away: long enough
// to look at the pages of the other masters.
const restartAfter = 30 * time.Second

// watch starts again what ends, until ctx ends.
func (g *grid) watch(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			fmt.Fprintln(g.out, "\nending the demo")
			return nil
		case p := <-g.ended:
			fmt.Fprintf(g.out, "%s has ended; it starts again in %v\n", p.name, restartAfter)
			time.AfterFunc(restartAfter, func() { g.due <- p })
		case p := <-g.due:
			if err := g.launch(p); err != nil {
				return err
			}
			fmt.Fprintf(g.out, "%s has started again (pid %d)\n", p.name, p.pid())
		}
	}
}
