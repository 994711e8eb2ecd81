package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// Options configure connections. The zero Options are good.
type Options struct {
	// Token is sent as a bearer token. Empty: none is.
	Token string
	// FreshToken returns the token to send with a request, in place of Token, where it
	// may change. It is called by several goroutines at once. nil: it does not change.
	FreshToken func() string
	// DialTimeout bounds how long connecting may take. 0: 3 s.
	DialTimeout time.Duration
	// Timeout bounds one call, connecting included, besides its context. 0: for
	// a Conn the context alone, for a Client 10 s. A Client does not apply it
	// to a method that may not be repeated, for giving up such a call leaves its
	// outcome unknown. It also bounds how long one service may be silent before
	// another one is asked as well, where that is less than 3 s.
	Timeout time.Duration
	// MaxAnswer is how many bytes an answer may have. 0: 64 MiB.
	MaxAnswer int64
	// MaxConns is how many connections there may be to one endpoint; calls
	// beyond wait for one. 0: 64.
	MaxConns int
	// IdleTimeout is how long a connection is kept that is not in use. 0: 50 s, which is
	// less than servers usually wait.
	IdleTimeout time.Duration
	// UserAgent is sent along. Empty: "hero_explorer".
	UserAgent string
	// TLS configures https. nil: the certificates that the system trusts.
	TLS *tls.Config
	// Dial connects in the place of the endpoint's network and address. nil: those
	// count.
	Dial func(ctx context.Context) (net.Conn, error)
	// Idempotent and Mutates replace the functions of those names, for methods
	// with other names.
	Idempotent, Mutates func(method string) bool
}

func (o Options) withDefaults() Options {
	if o.DialTimeout <= 0 {
		o.DialTimeout = 3 * time.Second
	}
	if o.MaxAnswer <= 0 {
		o.MaxAnswer = 64 << 20
	}
	if o.MaxConns <= 0 {
		o.MaxConns = 64
	}
	if o.IdleTimeout <= 0 {
		// So it is rarely the other side that closes a connection just when it is used
		// again.
		o.IdleTimeout = 50 * time.Second
	}
	if o.UserAgent == "" {
		o.UserAgent = "hero_explorer"
	}
	if o.Idempotent == nil {
		o.Idempotent = Idempotent
	}
	if o.Mutates == nil {
		o.Mutates = Mutates
	}
	return o
}

// Conn calls the service at one endpoint. Connections are made when they are
// needed, kept alive for the next calls and made again after they broke.
type Conn struct {
	ep   Endpoint
	opts Options
	http *http.Transport
	url  string // of the service, without a slash at the end
	id   atomic.Uint64
}

// Dial returns a Conn. It does no I/O.
func Dial(ep Endpoint, opts Options) *Conn {
	opts = opts.withDefaults()
	dialer := &net.Dialer{Timeout: opts.DialTimeout}
	var protocols http.Protocols
	// With HTTP/2 the transport would repeat requests on its own judgement.
	protocols.SetHTTP1(true)
	dial := opts.Dial
	if dial == nil {
		dial = func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, ep.Network, ep.Address) }
	}
	c := &Conn{ep: ep, opts: opts, http: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		TLSClientConfig:     opts.TLS,
		TLSHandshakeTimeout: opts.DialTimeout,
		// A service that does not say whether it wants a body gets it then.
		// By then Upload has asked another one, if there is one.
		ExpectContinueTimeout:  2 * opts.DialTimeout,
		Protocols:              &protocols,
		MaxConnsPerHost:        opts.MaxConns,
		MaxIdleConnsPerHost:    min(opts.MaxConns, 8),
		IdleConnTimeout:        opts.IdleTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}}
	host := strings.ReplaceAll(ep.Address, "%", "%25") // the zone of an IPv6 address
	switch {
	case ep.Network == "unix":
		c.url = "http://localhost" // only for the Host header
	case ep.scheme() == "https":
		c.url = "https://" + host + ep.base()
	default:
		c.url = "http://" + host + ep.base()
	}
	return c
}

// Endpoint returns what was dialled.
func (c *Conn) Endpoint() Endpoint { return c.ep }

// Close closes the connections that are not in use. Calls under way end as they
// would have.
func (c *Conn) Close() { c.http.CloseIdleConnections() }

// Call calls a method. params is anything that encodes to an object or an
// array, or nil. result is a pointer to what the result is decoded into, or
// nil; a *json.RawMessage gets it byte for byte. Errors: [*jsonrpc.Error] for
// what the service answered, [*TransportError] where there is no answer of it,
// and others where params cannot be encoded.
func (c *Conn) Call(ctx context.Context, method string, params, result any) error {
	return c.call(ctx, method, params, result, c.opts.Timeout, nil)
}

// CallHeader is Call with further headers of the HTTP request. One with an
// Idempotency-Key, spelled so, is sent again by itself where a kept connection
// breaks; that leave is not taken from a header that is spelled in another way.
func (c *Conn) CallHeader(ctx context.Context, method string, params, result any, header http.Header) error {
	return c.call(ctx, method, params, result, c.opts.Timeout, header)
}

func (c *Conn) call(ctx context.Context, method string, params, result any, timeout time.Duration, header http.Header) error {
	id := c.id.Add(1)
	body, err := jsonrpc.EncodeRequest(id, method, params)
	if err != nil {
		return err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	answer, status, state, err := c.post(ctx, body, header)
	// The service may have closed a kept connection just as it was used. On a
	// new one the same request will do, where it may be repeated.
	if err != nil && state.reused && ctx.Err() == nil && c.opts.Idempotent(method) {
		answer, status, state, err = c.post(ctx, body, header)
	}
	if err != nil {
		return &TransportError{URL: c.ep.URL, Sent: state.sent, Status: status, Err: err}
	}
	return c.decode(id, method, answer, status, result)
}

func (c *Conn) decode(id uint64, method string, answer []byte, status int, result any) error {
	fail := func(sent bool, err error) error {
		return &TransportError{URL: c.ep.URL, Sent: sent, Status: status, Err: err}
	}
	resp, err := jsonrpc.DecodeResponse(id, answer)
	switch {
	case status == http.StatusServiceUnavailable:
		// The service, or a proxy before it, did not take the request.
		if err == nil && resp.Error != nil {
			return fail(false, fmt.Errorf("HTTP status 503: %w", resp.Error))
		}
		return fail(false, errors.New("HTTP status 503"))
	case err == nil && resp.Error != nil:
		return resp.Error
	case status != http.StatusOK:
		// A server that does not know the path, or the caller, did nothing. Of
		// a 5xx nobody can tell: a gateway may have sent the request on. With
		// 202 a service has taken it, and after 303 may have carried it out.
		return fail(status < 400 || status >= 500, fmt.Errorf("HTTP status %d, is this a JSON-RPC service?", status))
	case err != nil:
		return fail(true, err)
	}
	if err := into(result, method, resp.Result); err != nil {
		return fail(true, err)
	}
	return nil
}

// into decodes a result.
func into(to any, method string, result json.RawMessage) error {
	switch to := to.(type) {
	case nil:
	case *json.RawMessage:
		*to = result
	default:
		if err := json.Unmarshal(result, to); err != nil {
			return fmt.Errorf("result of %s: %w", method, err)
		}
	}
	return nil
}

// attempt is how far a request came.
type attempt struct{ sent, reused bool }

// post sends a request and reads the whole answer.
func (c *Conn) post(ctx context.Context, body []byte, header http.Header) (answer []byte, status int, at attempt, err error) {
	// The transport repeats a POST by itself if a kept connection turned out to be
	// closed before a byte was written, or if it carries an Idempotency-Key. Then
	// GetConn fires again, and what counts is how far the last attempt came.
	var got atomic.Uint32
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { got.Store(0) },
		GotConn: func(info httptrace.GotConnInfo) {
			if info.Reused {
				got.Store(2)
			} else {
				got.Store(1)
			}
		},
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/rpc", bytes.NewReader(body))
	if err != nil {
		return nil, 0, at, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	c.header(req)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.RoundTrip(req)
	at = attempt{sent: got.Load() > 0, reused: got.Load() == 2}
	if err != nil {
		return nil, 0, at, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, c.opts.MaxAnswer+1))
	if err == nil && int64(len(answer)) > c.opts.MaxAnswer {
		err = fmt.Errorf("the answer has more than %d bytes", c.opts.MaxAnswer)
		at.reused = false // asking again would not help
	}
	return answer, resp.StatusCode, at, err
}

func (c *Conn) header(req *http.Request) {
	req.Header.Set("User-Agent", c.opts.UserAgent)
	token := c.opts.Token
	if c.opts.FreshToken != nil {
		token = c.opts.FreshToken()
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
}

// Get sends an HTTP GET for a path of the service, such as "/health", with
// further headers. The caller closes the body of the answer, whatever its
// status. The context alone bounds it, so it also suits streams. Errors are
// [*TransportError].
func (c *Conn) Get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path, nil)
	if err != nil {
		return nil, &TransportError{URL: c.ep.URL, Err: err}
	}
	for k, v := range header {
		req.Header[k] = v
	}
	c.header(req)
	resp, err := c.http.RoundTrip(req)
	if err != nil {
		return nil, &TransportError{URL: c.ep.URL, Err: err}
	}
	return resp, nil
}
