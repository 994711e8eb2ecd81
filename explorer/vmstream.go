package explorer

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// maxVMStreams bounds the logs that are followed and the consoles that are open.
const maxVMStreams = 1024

// handleVMStreams registers what of a VM does not fit into one answer: logs that go on,
// and the console, a WebSocket.
func (s *Server) handleVMStreams(mux *http.ServeMux, base string) {
	for _, what := range []string{"logs", "console"} {
		mux.Handle("GET "+base+"/vms/{sid}/"+what, s.counted("/vms/"+what, func(w http.ResponseWriter, r *http.Request) {
			s.vmStream(w, r, what)
		}))
	}
}

// vmStream passes a request on to the node that runs the VM, and what comes back to the
// caller, for as long as both stay.
func (s *Server) vmStream(w http.ResponseWriter, r *http.Request, what string) {
	fail := func(status int, err error) { writeError(w, status, s.wireError("/vms/"+what, err)) }
	if err := s.allow(callerOf(r.Context()), accessVM); err != nil {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+serviceName+`"`)
		fail(http.StatusUnauthorized, err)
		return
	}
	// A browser asks nobody before it opens a WebSocket to another site.
	if !sameOrigin(r) {
		fail(http.StatusForbidden, failure(jsonrpc.CodeUnauthorized, "request of another web site",
			errorData{Hint: "pages of other sites may not open consoles; use the page of this master, or a program that is no browser"}))
		return
	}
	sid := r.PathValue("sid")
	if sid == "." || sid == ".." || strings.ContainsAny(sid, `/\`) {
		fail(http.StatusBadRequest, badField("sid", "is no sid")) // it may mean another path to the node
		return
	}
	query := r.URL.Query()
	node, err := s.nodeOf(vmCallParams{NodeID: query.Get("node_id"), SID: sid})
	if err != nil {
		fail(streamStatus(err), err)
		return
	}
	if node.Status == crdtstore.Offline && len(node.SeenBy) > 0 {
		fail(http.StatusBadGateway, s.offline(node))
		return
	}
	select {
	case s.vmStreams <- struct{}{}:
		defer func() { <-s.vmStreams }()
	default:
		fail(http.StatusTooManyRequests, failure(jsonrpc.CodeLimit, "too many streams of VMs are open",
			errorData{Retryable: true, Hint: "try again in a moment, or another master", RetryAfterS: 1}))
		return
	}
	ctx, cancel := s.untilStop(r.Context())
	defer cancel()
	conn := http.NewResponseController(w)
	_, _ = conn.SetReadDeadline(time.Time{}), conn.SetWriteDeadline(time.Time{})
	query.Del("node_id")
	s.vmProxy(node, what, sid, query).ServeHTTP(w, r.WithContext(ctx))
}

func (s *Server) vmProxy(node crdtstore.Node, what, sid string, query url.Values) *httputil.ReverseProxy {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL = &url.URL{Scheme: "http", Host: "node", Path: "/vms/" + sid + "/" + what, RawQuery: query.Encode()}
			r.Out.Host = "localhost"
			// Between the caller and this master.
			for _, h := range []string{"Authorization", "Cookie", "Origin", "Referer"} {
				r.Out.Header.Del(h)
			}
			r.Out.Header.Set(client.HeaderNode, node.NodeID)
		},
		ModifyResponse: harmless,
		Transport: &http.Transport{
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return s.dialNode(ctx, node) },
			DisableKeepAlives: true, DisableCompression: true, Protocols: &protocols,
			ResponseHeaderTimeout: callTimeout, MaxResponseHeaderBytes: 64 << 10,
		},
		FlushInterval: -1, // what a VM says is to be seen at once
		ErrorLog:      slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() != nil {
				return
			}
			s.log.Debug("stream of a VM", "node", node.NodeID, "err", err)
			var wire *jsonrpc.Error
			if !errors.As(err, &wire) {
				err = failure(jsonrpc.CodeCannotReach, "node "+node.NodeID+" does not answer",
					errorData{Retryable: true, NodeID: node.NodeID, Hint: "see that its compute service runs and has such streams"})
			}
			writeError(w, http.StatusBadGateway, s.wireError("/vms/"+what, err))
		},
	}
}

// harmless takes from an answer of a node, which anybody may have registered, what a
// browser would act on: to it, this is a page of the master.
func harmless(resp *http.Response) error {
	if resp.StatusCode == http.StatusSwitchingProtocols {
		resp.Header.Del("Set-Cookie")
		return nil
	}
	kind := "text/plain; charset=utf-8"
	if resp.StatusCode >= 400 && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		kind = "application/json"
	}
	header := http.Header{
		"Content-Type": {kind}, "X-Content-Type-Options": noSniff,
		"Content-Security-Policy": {"sandbox; default-src 'none'"}, "Cache-Control": {"no-store"},
	}
	for _, h := range []string{"Content-Length", "Retry-After"} {
		if v, ok := resp.Header[h]; ok {
			header[h] = v
		}
	}
	resp.Header = header
	return nil
}

// dialNode connects to a node by the first path that leads there.
func (s *Server) dialNode(ctx context.Context, node crdtstore.Node) (net.Conn, error) {
	c := call{node: node}
	all, err := s.pathsFor(c, false)
	if err != nil {
		return nil, err
	}
	for _, p := range all {
		conn, err := p.dial(ctx)
		if err == nil {
			s.metrics.forwarded(p, "stream")
			return conn, nil
		}
		s.unreachable(ctx, p)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, s.cannotReach(c, "tried "+tried(all)+"; check that its agent and its compute service run, or ask another master")
}

// streamStatus is the HTTP status for an error in what a stream was asked for by.
func streamStatus(err error) int {
	var wire *jsonrpc.Error
	var field *crdtstore.FieldError
	switch {
	case errors.As(err, &field):
		return http.StatusBadRequest
	case !errors.As(err, &wire):
		return http.StatusInternalServerError
	case wire.Code == jsonrpc.CodeNotFound, wire.Code == jsonrpc.CodeNodeNotFound:
		return http.StatusNotFound
	case wire.Code == jsonrpc.CodeInvalidParams:
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

// sameOrigin reports whether a request comes from a page of this master, or from no
// page at all.
func sameOrigin(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "same-origin", "none":
	default:
		return false // also where a page of another site only links to it
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}
