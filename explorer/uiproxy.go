package explorer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

const (
	maxRPCBody    = 4 << 20
	maxRPCAnswer  = 64 << 20
	mastersToTry  = 4
	masterTimeout = maxCallTimeout + 10*time.Second
)

// uiRPC answers a call of the page by this master, in this process. While this
// master cannot serve, it asks the other live masters in turn.
func (s *Server) uiRPC(w http.ResponseWriter, r *http.Request) {
	others := s.insteadOfMe()
	if len(others) == 0 {
		s.rpc.ServeHTTP(w, r)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRPCBody))
	if err != nil {
		writeError(w, http.StatusRequestEntityTooLarge, failure(jsonrpc.CodeInvalidRequest, "request cannot be read",
			errorData{Hint: "send at most 4 MiB"}))
		return
	}
	calls, batch := sketch(body)
	var last error
	lost := false // a master may have passed the calls on
	for _, base := range others {
		sent, err := s.askMaster(w, r, base+"/rpc", body)
		if err == nil {
			return
		}
		last = err
		s.log.Debug("master does not answer for the page", slog.String("url", base), slog.Any("error", err))
		if !sent {
			continue
		}
		if lost = true; slices.ContainsFunc(calls, func(c sketched) bool { return !s.repeatable(c) }) {
			answerCalls(w, calls, batch, failure(jsonrpc.CodeOutcomeUnknown, "the call was sent to another master and not answered",
				errorData{Hint: "it may have run; look before you repeat it"}))
			return
		}
		body = s.repetition(body)
	}
	s.log.Warn("no master answers for the page", slog.Any("error", last))
	if lost && slices.ContainsFunc(calls, s.isOperation) {
		answerCalls(w, calls, batch, failure(jsonrpc.CodeOutcomeUnknown, "the call was sent to other masters and not answered",
			errorData{Retryable: true, Hint: "repeat it with the same op_id, and op_again"}))
		return
	}
	answerCalls(w, calls, batch, failure(jsonrpc.CodeInternal, "no master can serve now",
		errorData{Retryable: true, Hint: "try again in a moment; /health of each master says more", RetryAfterS: 1}))
}

// uiEvents streams this master's events, or those of another live one.
func (s *Server) uiEvents(w http.ResponseWriter, r *http.Request) {
	for _, base := range s.insteadOfMe() {
		target := base + "/events"
		if r.URL.RawQuery != "" {
			target += "?" + r.URL.RawQuery
		}
		if s.pipeEvents(w, r, target) {
			return
		}
	}
	s.events(w, r)
}

// insteadOfMe returns the API addresses of other live masters while this one
// cannot serve; nothing while it can, or where it is alone.
func (s *Server) insteadOfMe() (bases []string) {
	if s.store.Health() == nil {
		return nil
	}
	for _, m := range s.store.Masters() {
		if m.Status != crdtstore.MasterAlive || m.ID == s.store.ID() {
			continue
		}
		for _, raw := range m.RPCURLs {
			u, err := url.Parse(raw)
			// An address that is ours as well, such as a loopback one told by a
			// master elsewhere, leads back here.
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || slices.Contains(s.rpcURLs, raw) {
				continue
			}
			if bases = append(bases, strings.TrimSuffix(strings.TrimSuffix(raw, "/"), "/rpc")); len(bases) == mastersToTry {
				return bases
			}
		}
	}
	return bases
}

// askMaster hands a request to another master and its answer back. sent tells
// whether the request may have run when there is an error; after an error
// nothing was written to w.
func (s *Server) askMaster(w http.ResponseWriter, r *http.Request, target string, body []byte) (sent bool, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), masterTimeout)
	defer cancel()
	var got atomic.Bool // a connection, in the last attempt; the transport may still call when Do has returned
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { got.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	req, err := s.requestTo(ctx, r, http.MethodPost, target, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.toMasters.Do(req)
	if err != nil {
		return got.Load(), err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK, http.StatusNoContent:
	case http.StatusServiceUnavailable:
		return false, errors.New(resp.Status) // it says so before it does anything
	default:
		return true, errors.New(resp.Status)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxRPCAnswer+1))
	if err == nil && len(answer) > maxRPCAnswer {
		err = errors.New("answer is too long")
	}
	if err != nil {
		return true, err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(answer)
	return true, nil
}

// pipeEvents hands the event stream of another master on, and reports whether
// there was one.
func (s *Server) pipeEvents(w http.ResponseWriter, r *http.Request, target string) bool {
	ctx, cancel := s.untilStop(r.Context())
	defer cancel()
	req, err := s.requestTo(ctx, r, http.MethodGet, target, nil)
	if err != nil {
		return false
	}
	req.Header.Set("Last-Event-ID", r.Header.Get("Last-Event-ID"))
	resp, err := s.toMasters.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		return false
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	out := &stream{w: w, conn: http.NewResponseController(w)}
	_ = out.conn.SetReadDeadline(time.Time{})
	buf := make([]byte, 16<<10)
	for {
		n, err := resp.Body.Read(buf)
		out.write(buf[:n])
		if out.flush() != nil || err != nil {
			return true
		}
		if s.store.Health() == nil {
			return true // the page connects again, and to this master
		}
	}
}

// requestTo makes a request to another master in the name of a caller: with
// its token, and saying that it comes from elsewhere.
func (s *Server) requestTo(ctx context.Context, r *http.Request, method, target string, body io.Reader) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if a := r.Header.Get("Authorization"); a != "" {
		req.Header.Set("Authorization", a)
	}
	from := forwardedFor(r.Header)
	if from == "" {
		from, _, _ = net.SplitHostPort(r.RemoteAddr)
	}
	if from != "" {
		req.Header.Set("X-Forwarded-For", from)
	}
	return req, nil
}

func newMasterClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			TLSHandshakeTimeout:   5 * time.Second,
			ResponseHeaderTimeout: masterTimeout,
			MaxConnsPerHost:       64,
			IdleConnTimeout:       time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// sketched is what of a call has to be known to hand it on.
type sketched struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// sketch reads the calls in a body, none where it is not JSON-RPC: the other
// master says then what is wrong.
func sketch(body []byte) (calls []sketched, batch bool) {
	if firstByte(body) == '[' {
		_ = json.Unmarshal(body, &calls)
		return calls, true
	}
	var one sketched
	_ = json.Unmarshal(body, &one)
	return []sketched{one}, false
}

// answerCalls answers all calls with the same error.
func answerCalls(w http.ResponseWriter, calls []sketched, batch bool, err *jsonrpc.Error) {
	answers := make([]json.RawMessage, 0, len(calls))
	for _, c := range calls {
		if c.ID == nil && batch {
			continue // a notification
		}
		answers = append(answers, mustEncode(map[string]any{"jsonrpc": "2.0", "id": c.ID, "error": err}))
	}
	switch {
	case len(answers) == 0:
		w.WriteHeader(http.StatusNoContent)
	case batch:
		writeJSON(w, http.StatusOK, mustEncode(answers))
	default:
		writeJSON(w, http.StatusOK, answers[0])
	}
}

// repeatable reports whether a call may be sent again when its outcome is not
// known.
func (s *Server) repeatable(c sketched) bool {
	return client.Idempotent(s.realName(c.Method)) || s.isOperation(c)
}

// isOperation reports whether a call carries a name by which its node tells a
// repetition.
func (s *Server) isOperation(c sketched) bool {
	_, ok := operationParams(c.Params)
	return ok && client.Mutates(s.realName(c.Method))
}

func (s *Server) realName(method string) string {
	if real, ok := s.cfg.Aliases[method]; ok {
		return real
	}
	return method
}

// operationParams returns the params of a call that names an operation.
func operationParams(raw json.RawMessage) (params map[string]json.RawMessage, ok bool) {
	var name string
	raw, err := jsonrpc.Named(raw)
	if err != nil || json.Unmarshal(raw, &params) != nil || json.Unmarshal(params["op_id"], &name) != nil {
		return nil, false
	}
	return params, name != ""
}

// repetition marks the operations in a body as such that were sent before.
func (s *Server) repetition(body []byte) []byte {
	mark := func(raw json.RawMessage) json.RawMessage {
		var c sketched
		var request map[string]json.RawMessage
		if json.Unmarshal(raw, &c) != nil || !s.isOperation(c) || json.Unmarshal(raw, &request) != nil {
			return raw
		}
		params, _ := operationParams(c.Params)
		params["op_again"] = json.RawMessage("true")
		request["params"] = jsonrpc.EncodeObject(params)
		return jsonrpc.EncodeObject(request)
	}
	if firstByte(body) != '[' {
		return mark(body)
	}
	var batch []json.RawMessage
	if json.Unmarshal(body, &batch) != nil {
		return body
	}
	marked := []byte{'['}
	for i, raw := range batch {
		if i > 0 {
			marked = append(marked, ',')
		}
		marked = append(marked, mark(raw)...)
	}
	return append(marked, ']')
}
