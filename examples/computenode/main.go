package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0, 1 for a failure, 2 for wrong usage.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("computenode", flag.ContinueOnError)
	flags.SetOutput(stderr)
	socket := flags.String("socket", defaultSocket(), "unix `path` to serve on, which only this user can open; empty: none")
	listen := flags.String("listen", "", "`host:port` to serve on as well; whoever reaches it can deploy VMs, so loopback or a private network")
	var o options
	flags.StringVar(&o.state, "state", "", "JSON `file` that keeps the VMs over a restart; empty: vms.json in --data-dir with QEMU, else they end with the service")
	flags.StringVar(&o.driver, "driver", "auto", "what runs the VMs: memory plays them, qemu does, auto takes qemu if it is installed and --images is given")
	flags.StringVar(&o.images, "images", "", "`directory` of what VMs boot with QEMU: <name>/kernel with initrd and cmdline, or <name>.qcow2, .raw or .img")
	flags.StringVar(&o.dataDir, "data-dir", defaultDataDir(), "`directory` of the VMs' disks and logs with QEMU")
	flags.DurationVar(&o.grace, "grace", 5*time.Second, "how long a VM may take to shut down with QEMU before it is ended")
	flags.Uint64Var(&o.memoryMB, "memory-mb", 0, "memory in `MiB` for all VMs together with QEMU; 0: three quarters of this machine's")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "computenode: unexpected argument %q; see --help\n", flags.Arg(0))
		return 2
	}
	if *socket == "" && *listen == "" {
		fmt.Fprintln(stderr, "computenode: nowhere to serve; give --socket or --listen")
		return 2
	}
	if err := o.validate(); err != nil {
		fmt.Fprintf(stderr, "computenode: %v\n", err)
		return 2
	}
	if err := start(ctx, *socket, *listen, o, slog.New(slog.NewTextHandler(stderr, nil))); err != nil {
		fmt.Fprintf(stderr, "computenode: %v\n", err)
		return 1
	}
	return 0
}

// defaultSocket is where the agent looks for the node's compute service.
func defaultSocket() string {
	dir := os.Getenv("HERO_SOCKET_DIR")
	if dir == "" {
		home, _ := os.UserHomeDir() // none: a path relative to the working directory
		dir = filepath.Join(home, "hero", "var", "sockets")
	}
	return filepath.Join(dir, "hero_compute", "rpc.sock")
}

// start opens the listeners before it reads the state, so that only one service
// at a time uses both.
func start(ctx context.Context, socket, listen string, o options, log *slog.Logger) error {
	listeners, err := open(ctx, socket, listen)
	if err != nil {
		return err
	}
	svc, err := o.service(ctx, log)
	if err != nil {
		return errors.Join(err, closeAll(listeners))
	}
	return serve(ctx, svc, listeners, log)
}

// serve serves until ctx ends, lets the calls that run then finish, and ends the
// VMs.
func serve(ctx context.Context, svc *compute.Service, listeners []net.Listener, log *slog.Logger) error {
	srv := &http.Server{
		Handler:           svc.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	srv.RegisterOnShutdown(svc.EndStreams)
	failed := make(chan error, len(listeners))
	for _, l := range listeners {
		log.Info("serving", "network", l.Addr().Network(), "addr", l.Addr().String())
		go func() { failed <- srv.Serve(l) }()
	}
	var err error
	select {
	case err = <-failed:
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 8*time.Second)
	defer cancel()
	// A call that does not finish in time must not hold up the end of the VMs.
	return errors.Join(err, srv.Shutdown(bounded), srv.Close(), svc.Close(bounded))
}

// open opens a listener for each address that is not empty.
func open(ctx context.Context, socket, listen string) (listeners []net.Listener, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(listeners))
		}
	}()
	if socket != "" {
		l, err := listenUnix(ctx, socket)
		if err != nil {
			return listeners, err
		}
		listeners = append(listeners, l)
	}
	if listen != "" {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
		if err != nil {
			return listeners, err
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// listenUnix listens on a socket that only this user can open, and takes the
// place of one that a crash left behind.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if c, err := new(net.Dialer).DialContext(ctx, "unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("another process serves on %s; stop it or give another --socket", path)
	}
	if info, err := os.Lstat(path); err == nil {
		if info.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("%s is there and is no socket; give another --socket", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
