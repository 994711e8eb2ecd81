package workeragent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/identity"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/tunnel"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/atomicfile"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent/internal/ops"
)

// ingress is how calls for the compute service come to this node: by a socket on this
// machine, and by tunnels to masters. All of them pass the gateway.
type ingress struct {
	gateway *gateway
	server  *http.Server
	serving sync.WaitGroup     // goroutines that take connections; close waits for them
	hangUp  context.CancelFunc // ends logs that go on and consoles
	journal *ops.Journal
	client  *tunnel.Client
}

// gatewaySocket is the socket on which masters on this machine call the agent.
func gatewaySocket(dataDir string) string { return filepath.Join(dataDir, "compute.sock") }

// openIngress opens the gateway. It returns the address to report for it, empty where this
// agent cannot promise that an operation runs once. newborn says that this node has not
// been there before. The caller holds the lock on the directory.
func (a *Agent) openIngress(r *running, id *identity.Identity, newborn bool) (agentPath string, err error) {
	in := &ingress{}
	if in.client, err = tunnel.NewClient(id); err != nil {
		return "", fmt.Errorf("tunnels: %w", err)
	}
	a.undo = append(a.undo, in.client.Close)
	r.tunnels = newTunnels(r.node.id, r.node.boot.Load, in.client, a.log)
	if a.cfg.Compute == "" {
		return "", nil
	}
	ep, err := parseAddress("compute", a.cfg.Compute, DefaultComputePort)
	if err != nil {
		return "", err
	}
	if err := a.noteDirect(); err != nil {
		return a.withoutCompute(r, err)
	}
	if in.journal, err = ops.Open(filepath.Join(a.cfg.DataDir, "operations"), ops.Options{Log: a.log, Late: !newborn}); errors.Is(err, ops.ErrNewer) {
		return "", fmt.Errorf("memory of operations: %w", err)
	} else if err != nil {
		return a.withoutCompute(r, err)
	}
	in.gateway = newGateway(r.node.id, ep, in.journal, a.log)
	in.gateway.carriedOut = r.carriedOut
	hungUp, cancel := context.WithCancel(context.Background())
	in.hangUp = cancel
	in.server = &http.Server{
		Handler:           endStreams(hungUp, in.gateway),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	a.undo = append(a.undo, in.close)
	in.serve(in.client)
	path := gatewaySocket(a.cfg.DataDir)
	ln, err := listenSocket(path)
	if err != nil && r.node.trouble(aboutDisk) != "" {
		return a.withoutCompute(r, err) // else they would call the service past the agent
	}
	if err != nil {
		a.log.Warn("no socket for masters on this machine; they call the compute service itself", "error", err)
		return "", nil
	}
	in.serve(ln)
	if a.cfg.direct {
		// Masters are told to call the service itself, past the gateway.
		return "", nil
	}
	return "unix://" + path, nil
}

// serve takes connections until close.
func (in *ingress) serve(ln net.Listener) {
	in.serving.Go(func() { _ = in.server.Serve(ln) }) // it ends with ErrServerClosed
}

// withoutCompute is for an agent that cannot know what was asked of its compute service,
// because its disk fails. It reports the node, and no way to call the service.
func (a *Agent) withoutCompute(r *running, err error) (agentPath string, _ error) {
	a.log.Error("no VM operations until the agent is started again", "error", err)
	r.node.profile.SocketPath = ""
	r.node.setTrouble(aboutOperations, "VM operations are refused until the agent is started again with a disk that works")
	return "", nil
}

// noteDirect keeps in mind that masters call the compute service past this agent. When
// they do no more, its journal begins anew: it does not know what they have asked for, and
// must not take a repetition of it for new.
func (a *Agent) noteDirect() error {
	mark := filepath.Join(a.cfg.DataDir, "direct")
	if _, err := os.Stat(mark); a.cfg.direct && err == nil {
		return nil
	}
	if a.cfg.direct {
		return atomicfile.Write(mark, []byte("Masters call the compute service past the agent.\n"))
	}
	if _, err := os.Stat(mark); err != nil {
		return nil // nothing of it is known
	}
	if err := os.Remove(filepath.Join(a.cfg.DataDir, "operations")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Remove(mark)
}

// endStreams ends the requests that are streams when a context ends; calls go on.
func endStreams(with context.Context, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/rpc" {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			defer context.AfterFunc(with, cancel)()
			r = r.WithContext(ctx)
		}
		next.ServeHTTP(w, r)
	})
}

// close ends streams, and lets the calls that run end, for a while.
func (in *ingress) close() error {
	in.hangUp()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), stopWithin)
	defer cancel()
	defer in.gateway.close()
	err := in.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = in.server.Close() // who waits is told that the outcome is unknown
	}
	in.serving.Wait()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	// An operation goes on when its caller is gone, as those are that came by a tunnel.
	// What still runs after that is remembered as of unknown outcome.
	left := stopWithin - time.Since(began)
	last, cancel := context.WithTimeout(context.Background(), max(left, stopWithin/10))
	defer cancel()
	return errors.Join(err, in.journal.Close(last))
}
