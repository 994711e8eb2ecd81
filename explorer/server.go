package explorer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	storemetrics "forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/metrics"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/descriptors"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/statelog"
)

// maxSplices bounds the connections of other masters to nodes whose tunnels are here.
const maxSplices = 4096

const (
	// stopTime is how long Run gives a graceful stop; it ends within 10 s.
	stopTime = 9 * time.Second
	// stopGrace is what each step has at the least when that is over.
	stopGrace = 100 * time.Millisecond
)

// Server is a master. Make one with [New].
type Server struct {
	cfg    Config
	log    *slog.Logger
	states *statelog.Log // for what every request may run into
	open   func(context.Context, crdtstore.Config) (store, error)
	store  store // set before ready

	rpc       jsonrpc.Mux
	metrics   *metrics
	tokens    *tokens
	answers   answers
	nodes     *nodePool
	edge      *edge         // nil: agents have no tunnels here
	vmStreams chan struct{} // one element for each open log and console of a VM
	splices   chan struct{} // one element for each connection of another master to a node
	toMasters *http.Client
	hosts     map[string]bool
	rpcURLs   []string
	streams   chan struct{} // one element for each open event stream
	transfers chan struct{} // one element for each backup and restore

	docOnce sync.Once
	doc     json.RawMessage

	ready    atomic.Bool   // requests get through to the store
	closing  chan struct{} // closed when the server begins to stop
	failed   chan error    // why a listener ended on its own
	started  bool
	stopOnce sync.Once
	stopErr  error

	rpcAddr, uiAddr net.Addr
	steps           []step // to undo what Start has done, last in first out
}

// New checks the configuration and makes a server that does nothing yet. The
// error is a [crdtstore.FieldError] that names the flag, where it is about one.
// A nil log discards.
func New(cfg Config, log *slog.Logger) (*Server, error) {
	cfg, err := cfg.resolve()
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{
		cfg: cfg, log: log, states: statelog.New(log), open: openStore,
		tokens:    newTokens(cfg.DataDir),
		toMasters: newMasterClient(),
		hosts:     ownHosts(cfg),
		streams:   make(chan struct{}, maxStreams),
		splices:   make(chan struct{}, maxSplices),
		vmStreams: make(chan struct{}, maxVMStreams),
		transfers: make(chan struct{}, maxTransfers),
		closing:   make(chan struct{}),
		failed:    make(chan error, 3),
	}
	s.metrics = newMetrics(s)
	s.nodes = newNodePool()
	s.rpc.Logger, s.rpc.By = log, jsonrpc.ByMaster
	s.route()
	return s, nil
}

// Start opens the store and begins to serve. ctx bounds the start only; nil: nothing does.
// When it fails, everything is undone. A server can be started once.
func (s *Server) Start(ctx context.Context) (err error) {
	ctx = orBackground(ctx)
	if s.started {
		return errors.New("server was started before")
	}
	s.started = true
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
		}
	}()

	// Listeners come first: they fail for reasons that people run into, and
	// their ports go into what the store tells to others.
	limit := descriptors.Limit()
	if limit < descriptors.Low {
		s.log.Warn("few file descriptors; raise the limit (ulimit -n, LimitNOFILE)", "limit", limit, "needed", descriptors.Low)
	}
	shares := descriptors.Of(limit)
	api, page := s.newHTTPServer(s.apiHandler()), s.newHTTPServer(s.uiHandler())
	type served struct {
		l   net.Listener
		srv *http.Server
	}
	var serve []served
	for _, l := range []struct {
		flag, addr string
		listen     func(string) (net.Listener, error)
		srv        *http.Server
		bound      *net.Addr
		share      int
	}{
		{"rpc-addr", s.cfg.RPCAddr, s.listenAPI, api, &s.rpcAddr, shares.API},
		{"rpc-socket", s.cfg.RPCSocket, listenUnix, api, nil, shares.Local},
		{"ui-addr", s.cfg.UIAddr, listenTCP, page, &s.uiAddr, shares.UI},
	} {
		if l.addr == "" {
			continue
		}
		listener, err := l.listen(l.addr)
		if err != nil {
			return fmt.Errorf("%s: %w", l.flag, err)
		}
		s.undo("close "+l.flag, func(context.Context) error { return ignoreClosed(listener.Close()) })
		if l.bound != nil {
			*l.bound = listener.Addr()
		}
		serve = append(serve, served{s.bounded(listener, l.flag, l.share), l.srv})
	}

	s.rpcURLs = urlsFor(s.cfg.Advertise, s.rpcAddr, func(a advertised) []string { return a.rpc })
	s.undo("close the store", func(context.Context) error {
		if s.store == nil || s.cfg.Store != nil {
			return nil
		}
		return s.store.Close()
	})
	if err := s.openEdge(ctx); err != nil {
		return err
	}
	if s.edge != nil {
		s.undo("close tunnels", func(context.Context) error { return s.edge.host.Close() })
	}
	s.undo("close connections to nodes", func(context.Context) error { s.nodes.close(); return nil })
	s.undo("refuse requests", func(context.Context) error { s.ready.Store(false); return nil })
	s.undo("stop serving", func(ctx context.Context) error {
		err := errors.Join(shutdown(ctx, page), shutdown(ctx, api))
		for _, v := range serve { // those that had not begun to serve are not closed by that
			err = errors.Join(err, ignoreClosed(v.l.Close()))
		}
		return err
	})
	// A client that comes while the store is being read is told at once to try
	// another master, rather than left to wait.
	for _, v := range serve {
		go func() {
			if err := v.srv.Serve(v.l); !errors.Is(err, http.ErrServerClosed) {
				s.failed <- fmt.Errorf("serving %s: %w", v.l.Addr(), err)
			}
		}()
	}
	if s.store, err = s.openWithin(ctx); err != nil {
		s.store = nil
		return s.openError(err)
	}
	s.metrics.registry.MustRegister(storemetrics.NewCollector(s.store))
	if s.cfg.Registerer != nil {
		if err := s.cfg.Registerer.Register(s.metrics.registry); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
		s.undo("unregister metrics", func(context.Context) error { s.cfg.Registerer.Unregister(s.metrics.registry); return nil })
	}
	if s.edge != nil {
		s.store.Serve(spliceName, s.spliced)
	}
	s.ready.Store(true)
	s.log.Info("serving", slog.String("id", s.store.ID()), slog.String("name", s.store.Name()),
		slog.String("socket", s.cfg.RPCSocket), slog.Any("rpc", s.rpcAddr), slog.Any("ui", s.uiAddr),
		slog.Any("edge", s.edgeAddrs()), slog.Bool("single_master", s.cfg.alone()))
	return nil
}

// Stop ends what Start began: event streams end, requests that run are waited
// for until ctx ends, then the store leaves the cluster. It may be called more
// than once; later calls return what the first returned.
func (s *Server) Stop(ctx context.Context) error {
	ctx = orBackground(ctx)
	s.stopOnce.Do(func() {
		close(s.closing)
		for _, step := range slices.Backward(s.steps) {
			if err := within(ctx, stopGrace, func() error { return step.undo(ctx) }); err != nil {
				s.stopErr = errors.Join(s.stopErr, fmt.Errorf("%s: %w", step.name, err))
			}
		}
		s.toMasters.CloseIdleConnections()
	})
	return s.stopErr
}

// untilStop returns a context that also ends when the server begins to stop, for what
// goes on for as long as a reader stays. The caller cancels it.
func (s *Server) untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-s.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// Reload takes over from a configuration what can change while the server runs, which is
// the cluster secret. Nothing else in it is looked at. It can be called from Start to Stop.
func (s *Server) Reload(cfg Config) error {
	cfg, err := cfg.resolve()
	if err != nil {
		return err
	}
	if s.cfg.Store != nil {
		return nil
	}
	if err := s.store.SetSecret(cfg.ClusterSecret); err != nil {
		return configErrorf("cluster-secret-file", "%v", err)
	}
	return nil
}

// orBackground is the context to use where a caller gave one or none.
func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// RPCAddr is the TCP address of the API, nil where there is none. Valid after
// Start.
func (s *Server) RPCAddr() net.Addr { return s.rpcAddr }

// UIAddr is the address of the page, nil where there is none. Valid after Start.
func (s *Server) UIAddr() net.Addr { return s.uiAddr }

// Run serves a master until ctx ends, then stops it gracefully within 10 s.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	s, err := New(cfg, log)
	if err != nil {
		return err
	}
	return s.Run(ctx, nil)
}

// Run starts the server, calls ready, which may be nil, and serves until ctx ends. Then it
// stops gracefully within 10 s.
func (s *Server) Run(ctx context.Context, ready func()) error {
	ctx = orBackground(ctx)
	if err := s.Start(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil // told to stop while starting
		}
		return err
	}
	if ready != nil {
		ready()
	}
	var failed error
	select {
	case <-ctx.Done():
	case failed = <-s.failed:
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	return errors.Join(failed, s.Stop(stop))
}
