package workeragent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent/internal/ops"
)

const (
	maxGatewayCalls   = 64               // at once, and as many operations; each may hold a body and an answer
	maxGatewayStreams = 64               // at once
	maxGatewayAnswer  = 16 << 20         // bytes of the answer to an operation
	queueTimeout      = 5 * time.Second  // how long a call waits for others to end
	bodyTimeout       = 30 * time.Second // how long a body may take to come
)

// gateway is where an agent takes calls for the compute service of its node, and
// passes them on: POST /rpc, GET /vms/{sid}/logs and the WebSocket GET
// /vms/{sid}/console. A call with the header Idempotency-Key is an operation, which
// is carried out at most once; see package ops.
//
// Who may call is decided by who can connect. Streams end with the context of their
// request, so a server that is to stop ends that.
type gateway struct {
	node    string // id
	compute client.Endpoint
	journal *ops.Journal
	log     *slog.Logger
	calls   chan struct{} // holds a token for each call
	streams chan struct{}
	running chan struct{} // for each operation; it may outlast its call
	conn    *client.Conn  // for calls that are no operations
	proxy   *httputil.ReverseProxy
	long    *client.Conn // for the proxy; streams must not keep calls waiting
	// carriedOut takes a token after each operation that may have changed a VM. nil:
	// nobody wants to know.
	carriedOut chan<- struct{}
}

func newGateway(node string, compute client.Endpoint, journal *ops.Journal, log *slog.Logger) *gateway {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d := &gateway{
		node: node, compute: compute, journal: journal, log: log,
		calls: make(chan struct{}, maxGatewayCalls), streams: make(chan struct{}, maxGatewayStreams),
		running: make(chan struct{}, maxGatewayCalls),
		conn:    client.Dial(compute, client.Options{MaxConns: maxGatewayCalls}),
		long:    client.Dial(compute, client.Options{MaxConns: maxGatewayStreams}),
	}
	d.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.RawQuery = r.In.URL.RawQuery
			// What a caller shows to a master is not for the compute service.
			for _, name := range []string{"Authorization", "Cookie", client.HeaderOperation, "X-" + client.HeaderOperation, client.HeaderAgain, client.HeaderNode} {
				r.Out.Header.Del(name)
			}
		},
		Transport:     d.long,
		FlushInterval: -1, // a line of a log is sent when it is there
		ErrorHandler:  streamFailed,
		ErrorLog:      slog.NewLogLogger(log.Handler(), slog.LevelDebug), // callers that hang up
	}
	return d
}

// close ends connections that are not in use.
func (d *gateway) close() {
	d.conn.Close()
	d.long.Close()
}

func (d *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch node := r.Header.Get(client.HeaderNode); {
	case node != "" && node != d.node:
		refuseStream(w, http.StatusMisdirectedRequest, "this is the agent of another node", "nothing was done")
	case r.URL.Path == "/rpc" && r.Method == http.MethodPost:
		d.call(w, r)
	case r.URL.Path == "/rpc":
		w.Header().Set("Allow", http.MethodPost)
		refuseStream(w, http.StatusMethodNotAllowed, "requests are sent by HTTP POST", "send a JSON-RPC request")
	case r.Method == http.MethodGet && isStream(r.URL):
		d.stream(w, r)
	default:
		refuseStream(w, http.StatusNotFound, "not found", "an agent passes on POST /rpc, GET /vms/{sid}/logs and GET /vms/{sid}/console")
	}
}

// call answers POST /rpc.
func (d *gateway) call(w http.ResponseWriter, r *http.Request) {
	release, ok := enter(r.Context(), d.calls, queueTimeout)
	if !ok {
		respondError(w, http.StatusOK, []byte("null"), tooManyCalls())
		return
	}
	defer release()
	body, err := readCall(w, r)
	if err != nil {
		w.Header().Set("Connection", "close")
		respondError(w, http.StatusRequestEntityTooLarge, []byte("null"), gatewayError(jsonrpc.CodeInvalidRequest, "invalid request: "+err.Error(),
			errorData{Hint: "send less at once"}))
		return
	}
	req, bad := jsonrpc.ParseRequest(body)
	if bad != nil {
		respondError(w, http.StatusOK, req.ID, bad)
		return
	}
	if keys, ok := r.Header[client.HeaderOperation]; ok {
		d.operation(w, r, keys, req)
	} else {
		d.pass(w, r, body, req)
	}
}

var errCallTooLong = errors.New("a body may have 4 MiB")

// readCall reads a body. Where it does not come, there is nobody to answer.
func readCall(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > jsonrpc.MaxBody {
		return nil, errCallTooLong
	}
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(bodyTimeout)) // where there is one
	body, err := io.ReadAll(io.LimitReader(r.Body, jsonrpc.MaxBody+1))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_ = conn.SetReadDeadline(time.Time{})
	if len(body) > jsonrpc.MaxBody {
		return nil, errCallTooLong
	}
	return body, nil
}

// pass passes a call on as it is, and the answer back as it is.
func (d *gateway) pass(w http.ResponseWriter, r *http.Request, body []byte, req jsonrpc.Incoming) {
	out, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "/rpc", bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	out.Header.Set("Content-Type", "application/json")
	resp, err := d.conn.RoundTrip(out)
	if err != nil {
		if r.Context().Err() != nil {
			panic(http.ErrAbortHandler) // nobody is there, or the agent stops
		}
		respondError(w, http.StatusOK, req.ID, callFailed(err, client.Idempotent(req.Method)))
		return
	}
	defer resp.Body.Close()
	for _, name := range []string{"Content-Type", "Content-Length"} {
		if v, ok := resp.Header[name]; ok {
			w.Header()[name] = v
		}
	}
	w.WriteHeader(resp.StatusCode)
	if _, err := io.Copy(w, resp.Body); err != nil {
		panic(http.ErrAbortHandler) // the caller must not take it for the whole
	}
}

// operation answers a call that is to be carried out at most once.
func (d *gateway) operation(w http.ResponseWriter, r *http.Request, keys []string, req jsonrpc.Incoming) {
	if len(keys) != 1 || !validOperation(keys[0]) {
		respondError(w, http.StatusOK, req.ID, jsonrpc.InvalidParams("op_id", "must have 1 to 128 printable ASCII characters"))
		return
	}
	id := keys[0]
	do := d.journal.Do
	if r.Header.Get(client.HeaderAgain) != "" {
		do = d.journal.Repeat
	}
	member, err := do(r.Context(), id, fingerprint(req), func(ctx context.Context) ([]byte, error) {
		return d.carryOut(ctx, id, req)
	})
	switch {
	case err != nil && r.Context().Err() != nil:
		panic(http.ErrAbortHandler)
	case err != nil:
		respondError(w, http.StatusOK, req.ID, operationFailed(err))
	case req.ID == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		respond(w, http.StatusOK, jsonrpc.AppendAnswer(nil, member, req.ID))
	}
}

// carryOut sends an operation to the compute service, and returns the member of the
// answer that is the result or the error. It takes a connection of its own: of one
// that the service closes just when it is used again, nobody can tell whether the
// request arrived.
func (d *gateway) carryOut(ctx context.Context, id string, req jsonrpc.Incoming) ([]byte, error) {
	release, ok := enter(ctx, d.running, queueTimeout)
	if !ok {
		return nil, ops.NotRun(errTooManyCalls)
	}
	defer release()
	conn := client.Dial(d.compute, client.Options{MaxConns: 1, MaxAnswer: maxGatewayAnswer})
	defer conn.Close()
	var result json.RawMessage
	err := conn.Call(ctx, req.Method, req.Params, &result)
	defer signal(d.carriedOut)
	if err == nil {
		return append([]byte(`"result":`), result...), nil
	}
	var theirs *jsonrpc.Error
	var transport *client.TransportError
	switch {
	case errors.As(err, &transport) && !transport.Sent:
		return nil, ops.NotRun(err)
	case errors.As(err, &transport):
		d.log.Warn("the outcome of an operation is unknown", "op_id", id, "method", req.Method, "error", err)
		return nil, err
	case errors.As(err, &theirs):
		return append([]byte(`"error":`), theirs.Raw...), nil
	}
	return nil, err
}

// fingerprint tells calls apart. Repetitions of one come with other JSON-RPC ids.
func fingerprint(req jsonrpc.Incoming) [32]byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(len(req.Method)))
	return sha256.Sum256(append(append(b, req.Method...), req.Params...))
}

func validOperation(id string) bool {
	return id != "" && len(id) <= ops.MaxID && !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r > '~' })
}

// isStream reports whether a URL is that of a stream of a VM.
func isStream(u *url.URL) bool {
	parts := strings.Split(u.EscapedPath(), "/")
	if len(parts) != 4 || parts[0] != "" || parts[1] != "vms" || !slices.Contains([]string{"logs", "console"}, parts[3]) {
		return false
	}
	sid, err := url.PathUnescape(parts[2])
	// What may mean another path to the compute service is no sid.
	return err == nil && sid != "" && sid != "." && sid != ".." && !strings.ContainsAny(sid, `/\`)
}

func (d *gateway) stream(w http.ResponseWriter, r *http.Request) {
	release, ok := enter(r.Context(), d.streams, 0)
	if !ok {
		w.Header().Set("Retry-After", "1")
		refuseStream(w, http.StatusServiceUnavailable, "too many streams from this node at once", "close some")
		return
	}
	defer release()
	d.proxy.ServeHTTP(w, r)
}

// enter takes a token of a bounded number, within a time.
func enter(ctx context.Context, endpoints chan struct{}, within time.Duration) (release func(), ok bool) {
	release = func() { <-endpoints }
	select {
	case endpoints <- struct{}{}:
		return release, true
	default:
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case endpoints <- struct{}{}:
		return release, true
	case <-ctx.Done():
	case <-timer.C:
	}
	return nil, false
}
