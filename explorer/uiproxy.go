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
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/internal/attempts"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

const (
	maxRPCBody    = 4 << 20
	maxRPCAnswer  = 64 << 20
	mastersToTry  = 4
	masterTimeout = maxCallTimeout + 10*time.Second
	masterSilence = 3 * time.Second // then another one is asked beside it
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
	calls, batch := readEnvelopes(body)
	repeatable := !slices.ContainsFunc(calls, func(c requestEnvelope) bool { return !s.repeatable(c) })
	answer, lost, err := s.askMasters(r, others, body, repeatable)
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body)
	case lost && !repeatable:
		answerCalls(w, calls, batch, failure(jsonrpc.CodeOutcomeUnknown, "the call was sent to another master and not answered",
			errorData{Hint: "it may have run; look before you repeat it"}))
	case lost && slices.ContainsFunc(calls, s.isOperation):
		answerCalls(w, calls, batch, failure(jsonrpc.CodeOutcomeUnknown, "the call was sent to other masters and not answered",
			errorData{Retryable: true, Hint: "repeat it with the same op_id, and op_again"}))
	default:
		s.states.State(slog.LevelWarn, "page", "no master", "no master answers for the page", slog.Any("error", err))
		answerCalls(w, calls, batch, failure(jsonrpc.CodeInternal, "no master can serve now",
			errorData{Retryable: true, Hint: "try again in a moment; /health of each master says more", RetryAfterS: 1}))
	}
}

// masterAnswer is what another master answered.
type masterAnswer struct {
	status int
	body   []byte
}

// askMasters hands a request to other masters in turn, until one has answered. Beside
// one that is silent the next is asked as well, where the request may be repeated. lost
// says that one without an answer may have carried it out.
func (s *Server) askMasters(r *http.Request, bases []string, body []byte, repeatable bool) (a masterAnswer, lost bool, err error) {
	type outcome struct {
		masterAnswer
		base string
		sent bool
		err  error
	}
	ctx, cancel := context.WithTimeout(r.Context(), masterTimeout)
	defer cancel()
	outcomes := make(chan outcome, len(bases))
	calls := attempts.Call{Repeatable: repeatable}
	asked := 0
	ask := func() {
		base := bases[asked]
		if calls.Begin() {
			body = s.repetition(body)
		}
		asked++
		req, got, err := s.requestTo(ctx, r, http.MethodPost, base+"/rpc", bytes.NewReader(body))
		go func() {
			out := outcome{base: base, err: err}
			if err == nil {
				out.masterAnswer, out.sent, out.err = s.askMaster(req, got)
			}
			outcomes <- out
		}()
	}
	silent := time.NewTicker(masterSilence)
	defer silent.Stop()
	for ask(); calls.Open() > 0; {
		select {
		case <-silent.C:
			if calls.Next() && asked < len(bases) {
				ask()
			}
		case out := <-outcomes:
			calls.Ended(out.sent)
			if out.err == nil {
				return out.masterAnswer, false, nil
			}
			err = out.err
			s.log.Debug("master does not answer for the page", slog.String("url", out.base), slog.Any("error", err))
			if calls.Next() && asked < len(bases) && ctx.Err() == nil {
				ask()
				silent.Reset(masterSilence)
			}
		}
	}
	return a, calls.MayRun(), err
}

// uiEvents streams this master's events, or those of another live one.
func (s *Server) uiEvents(w http.ResponseWriter, r *http.Request) {
	if others := s.insteadOfMe(); len(others) > 0 && s.pipeEvents(w, r, others) {
		return
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

// askMaster sends a request to another master. sent tells whether it may have run when
// there is an error; got, whether there was a connection.
func (s *Server) askMaster(req *http.Request, got *atomic.Bool) (a masterAnswer, sent bool, err error) {
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.toMasters.Do(req)
	if err != nil {
		return a, got.Load(), err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK, http.StatusNoContent:
	case http.StatusServiceUnavailable:
		return a, false, errors.New(resp.Status) // it says so before it does anything
	default:
		return a, true, errors.New(resp.Status)
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxRPCAnswer+1))
	if err == nil && len(answer) > maxRPCAnswer {
		err = errors.New("answer is too long")
	}
	return masterAnswer{resp.StatusCode, answer}, err != nil, err
}

// pipeEvents hands the event stream of another master on, and reports whether
// there was one.
func (s *Server) pipeEvents(w http.ResponseWriter, r *http.Request, bases []string) bool {
	ctx, cancel := s.untilStop(r.Context())
	defer cancel()
	others, err := client.New(bases, client.Options{})
	if err != nil {
		return false
	}
	defer others.Close()
	header := http.Header{"Last-Event-ID": {r.Header.Get("Last-Event-ID")}}
	s.nameCaller(header, r)
	path := "/events"
	if r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	// The client goes on from a master that is silent; this is for all of them.
	giveUp := time.AfterFunc(masterSilence*time.Duration(len(bases)+1), cancel)
	body, err := others.Download(ctx, path, header)
	if giveUp.Stop(); err != nil {
		return false
	}
	defer body.Close()
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
		n, err := body.Read(buf)
		out.write(buf[:n])
		if out.flush() != nil || err != nil {
			return true
		}
		if s.store.Health() == nil {
			return true // the page connects again, and to this master
		}
	}
}

// requestTo makes a request to another master in the name of a caller. got is true
// once there is a connection for it, in the last attempt.
func (s *Server) requestTo(ctx context.Context, r *http.Request, method, target string, body io.Reader) (req *http.Request, got *atomic.Bool, err error) {
	got = new(atomic.Bool) // the transport may still write it when Do has returned
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { got.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { got.Store(true) },
	})
	if req, err = http.NewRequestWithContext(ctx, method, target, body); err == nil {
		s.nameCaller(req.Header, r)
	}
	return req, got, err
}

// nameCaller says in whose name a request is made: with the caller's token, and that
// the caller is elsewhere.
func (s *Server) nameCaller(to http.Header, r *http.Request) {
	if a := r.Header.Get("Authorization"); a != "" {
		to.Set("Authorization", a)
	}
	from := forwardedFor(r.Header)
	if from == "" {
		from, _, _ = net.SplitHostPort(r.RemoteAddr)
	}
	if from != "" {
		to.Set("X-Forwarded-For", from)
	}
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

// requestEnvelope is what of a call has to be known to hand it on.
type requestEnvelope struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// readEnvelopes reads the calls in a body, none where it is not JSON-RPC: the other
// master says then what is wrong.
func readEnvelopes(body []byte) (calls []requestEnvelope, batch bool) {
	if firstByte(body) == '[' {
		_ = json.Unmarshal(body, &calls)
		return calls, true
	}
	var one requestEnvelope
	_ = json.Unmarshal(body, &one)
	return []requestEnvelope{one}, false
}

// answerCalls answers all calls with the same error.
func answerCalls(w http.ResponseWriter, calls []requestEnvelope, batch bool, err *jsonrpc.Error) {
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
func (s *Server) repeatable(c requestEnvelope) bool {
	return client.Repeatable(s.realName(c.Method)) || s.isOperation(c)
}

// isOperation reports whether a call carries a name by which its node tells a
// repetition.
func (s *Server) isOperation(c requestEnvelope) bool {
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
		var c requestEnvelope
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
