package explorer

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
	"forge.ourworld.tf/lhumina_code/hero_explorer/internal/conncap"
)

const (
	serviceName  = "hero_explorer"
	serviceTitle = "Hero Explorer"
	serviceAbout = "Registry of compute nodes and their VMs, kept by several masters that merge."
)

// Handler returns the API, for an HTTP server of the program that embeds this one; under
// a path of its own it takes an [http.StripPrefix]. Who asks is told as on the server's own
// listeners, see [AuthMode]: a connection over a unix socket or loopback is trusted, as the
// request names it. Before Start and after Stop it answers with status 503.
//
// Stop ends event streams, but knows nothing of other requests that run: an HTTP server is
// shut down after it, and a store of the program's own is closed last.
func (s *Server) Handler() http.Handler {
	api := s.apiHandler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		api.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, newCaller(local, r.RemoteAddr))))
	})
}

// apiHandler serves the API on the unix socket and on TCP.
func (s *Server) apiHandler() http.Handler {
	mux := http.NewServeMux()
	s.handleAPI(mux)
	mux.Handle("POST /rpc", http.HandlerFunc(s.serveRPC))
	mux.Handle("POST /explorer/rpc", http.HandlerFunc(s.serveRPC))
	s.handleVMStreams(mux, "")
	mux.Handle("GET /events", s.counted("/events", s.protected(s.events)))
	mux.Handle("GET /explorer/events", s.counted("/events", s.protected(s.events)))
	s.handleTransfers(mux)
	return s.protect(mux)
}

// handleAPI registers what the API and the page's listener have in common.
func (s *Server) handleAPI(mux *http.ServeMux) {
	mux.Handle("GET /health", s.counted("/health", s.health))
	mux.Handle("GET /openrpc.json", s.counted("/openrpc.json", s.protected(func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, s.openRPC())
	})))
	mux.Handle("GET /.well-known/heroservice.json", s.counted("/.well-known/heroservice.json", s.protected(s.wellKnown)))
	mux.Handle("GET /metrics", s.counted("/metrics", s.protected(s.metrics.handler().ServeHTTP)))
}

// serveRPC is the hot path.
func (s *Server) serveRPC(w http.ResponseWriter, r *http.Request) { s.rpc.ServeHTTP(w, r) }

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	status, answer := http.StatusOK, map[string]string{
		"status": "ok", "service": serviceName, "version": s.cfg.Version,
	}
	err := s.store.Health()
	select {
	case <-s.closing:
		err = errors.New("stopping")
	default:
	}
	if err != nil {
		status, answer["status"] = http.StatusServiceUnavailable, "unavailable"
		answer["reason"] = err.Error()
	}
	writeJSON(w, status, mustEncode(answer))
}

func (s *Server) wellKnown(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, mustEncode(map[string]string{
		"protocol": "openrpc", "name": serviceName, "title": serviceTitle,
		"version": s.cfg.Version, "description": serviceAbout, "socket": "rpc",
	}))
}

// protect wraps the handler that every request passes: it keeps web pages of other sites out and
// finds out who asks.
func (s *Server) protect(next http.Handler) http.Handler {
	// A page of another site can make the user's browser send requests here,
	// over a loopback that we trust. For writes the browser says where they
	// come from.
	var otherSites http.CrossOriginProtection
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.ready.Load() {
			is := "starting"
			select {
			case <-s.closing:
				is = "stopping"
			default:
			}
			w.Header().Set("Retry-After", "1")
			writeError(w, http.StatusServiceUnavailable, failure(jsonrpc.CodeInternal, "this master is "+is,
				errorData{Retryable: true, Hint: "try another master, or this one in a moment", RetryAfterS: 1}))
			return
		}
		// A node may have given the address of a master as its own. checkTarget knows the
		// listeners of this one, but not an HTTP server that Handler is in.
		if r.Header[client.HeaderNode] != nil {
			writeError(w, http.StatusMisdirectedRequest, failure(jsonrpc.CodeCannotReach, "the call is meant for a node, and this is a master",
				errorData{Hint: "socket_path of node " + r.Header.Get(client.HeaderNode) + " has to lead to its compute service"}))
			return
		}
		if callerOf(r.Context()).origin != fromUnix { // no browser gets there
			if err := otherSites.Check(r); err != nil {
				writeError(w, http.StatusForbidden, failure(jsonrpc.CodeUnauthorized, "request of another web site",
					errorData{Hint: "pages of other sites may not call this API; use the page of this master, or a program that is no browser"}))
				return
			}
			// And a name of the other site may lead to us (DNS rebinding), which
			// makes its page one of ours in the eyes of the browser.
			// Where a token is asked for, that page has none.
			trusting := callerOf(r.Context()).origin == fromLoopback || s.cfg.Auth == AuthOff && r.Header.Get("Origin") != ""
			if trusting && !s.ownHost(r.Host) {
				writeError(w, http.StatusMisdirectedRequest, failure(jsonrpc.CodeUnauthorized, "unknown host name in the request",
					errorData{Hint: "use localhost or an IP address, or start the master with --advertise " + hostOnly(r.Host)}))
				return
			}
		}
		w.Header()["X-Content-Type-Options"] = noSniff
		next.ServeHTTP(w, s.identify(r))
	})
}

var noSniff = []string{"nosniff"}

// protected guards what is open but in mode AuthAll.
func (s *Server) protected(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := s.allow(callerOf(r.Context()), accessOpen); err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+serviceName+`"`)
			writeError(w, http.StatusUnauthorized, s.wireError(r.URL.Path, err))
			return
		}
		next(w, r)
	}
}

// counted counts requests by path and status. An answer that was broken off
// counts as "aborted", whatever status it began with.
func (s *Server) counted(path string, next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		status := "aborted"
		defer func() { s.metrics.http.WithLabelValues(path, status).Inc() }()
		next(c, r)
		status = strconv.Itoa(c.status)
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets [http.ResponseController] through.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func writeJSON(w http.ResponseWriter, status int, body json.RawMessage) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body)
	_, _ = w.Write([]byte{'\n'})
}

// writeError answers a request that does not get as far as JSON-RPC, with the
// same error object that JSON-RPC would carry.
func writeError(w http.ResponseWriter, status int, err *jsonrpc.Error) {
	writeJSON(w, status, mustEncode(map[string]any{"jsonrpc": "2.0", "id": nil, "error": err}))
}

// newHTTPServer bounds what a connection can take. Reading and writing a
// request may last as long as the longest call to a node; event streams, backups
// and restores lift that for themselves.
func (s *Server) newHTTPServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: conncap.Handler(handler),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return connCaller(conncap.ConnContext(ctx, c), c)
		},
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       maxCallTimeout + 30*time.Second,
		WriteTimeout:      maxCallTimeout + 60*time.Second,
		IdleTimeout:       5 * time.Minute, // agents keep theirs over many heartbeats
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}
