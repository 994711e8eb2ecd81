package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// Client calls one of several services that are as good as each other. It stays
// with the one that answered last, and goes on to the next when that one cannot
// be reached, breaks off, or says that it cannot serve now. Each service has a time
// of its own: beside one that is silent for 3 s the next is asked as well, and the
// first answer counts, wherever a call may be repeated.
type Client struct {
	conns   []*Conn
	opts    Options
	current atomic.Uint32
}

// New returns a Client over the given addresses, in the order of preference;
// see [Parse], with [DefaultPort]. It does no I/O.
func New(addrs []string, opts Options) (*Client, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = 10 * time.Second
	}
	c := &Client{opts: opts.withDefaults()}
	seen := map[Endpoint]bool{}
	for _, addr := range addrs {
		ep, err := Parse(strings.TrimSpace(addr), DefaultPort)
		if err != nil {
			return nil, err
		}
		if !seen[ep] {
			seen[ep] = true
			c.conns = append(c.conns, Dial(ep, opts))
		}
	}
	if len(c.conns) == 0 {
		return nil, errors.New("no address is given")
	}
	return c, nil
}

// Endpoint returns the endpoint that answered last, at first the one that is
// tried first.
func (c *Client) Endpoint() Endpoint { return c.conns[c.current.Load()].ep }

// Close closes the connections that are not in use.
func (c *Client) Close() {
	for _, conn := range c.conns {
		conn.Close()
	}
}

// Call calls a method like [Conn.Call]. Where no service answers, the error is
// a [*TransportError] about all of them; its Sent is true when any of them may
// have carried the call out. A call that may not be repeated goes on to the next
// service only where it certainly was not carried out.
//
// A call that [Mutates] VMs is an operation: it gets an op_id, unless params have
// one, and goes on to the next service whatever happened to it; see "At most
// once" above. Its params are an object, or an array with one object in it.
func (c *Client) Call(ctx context.Context, method string, params, result any) error {
	timeout := c.opts.Timeout
	switch {
	case c.opts.Mutates(method):
		members, err := named(method, params)
		if err != nil {
			return err
		}
		if bare(method) != "proxy" || !c.opts.Idempotent(proxied(members)) {
			return c.operate(ctx, method, members, result)
		}
		timeout += proxyTime(members)
	case !c.opts.Idempotent(method) && !Repeatable(method):
		return c.each(ctx, func(conn *Conn) (next bool, err error) {
			err = conn.call(ctx, method, params, result, 0, nil)
			if t := (*TransportError)(nil); errors.As(err, &t) {
				return !t.Sent, err
			}
			return cannotServe(err), err
		})
	}
	answer, done, err := race(ctx, c, func(ctx context.Context, conn *Conn) (answer json.RawMessage, next bool, err error) {
		err = conn.call(ctx, method, params, &answer, timeout, nil)
		t := (*TransportError)(nil)
		return answer, errors.As(err, &t) || cannotServe(err), err
	}, func(json.RawMessage) {})
	if done(); err != nil {
		return err
	}
	if err := into(result, method, answer); err != nil {
		return &TransportError{URL: c.Endpoint().URL, Sent: true, Err: err}
	}
	return nil
}

// operate carries out an operation.
func (c *Client) operate(ctx context.Context, method string, params map[string]json.RawMessage, result any) error {
	o, err := c.newOperation(method, params)
	if err != nil {
		return err
	}
	answer, err := o.run(ctx)
	if err != nil {
		return err
	}
	if err := into(result, method, answer); err != nil {
		return &TransportError{URL: c.Endpoint().URL, Sent: true, OpID: o.name, Err: err}
	}
	return nil
}

// cannotServe reports whether a master answered that it cannot serve just now
// and has done nothing. The same error of a node would come by the next master, too.
func cannotServe(err error) bool {
	var e *jsonrpc.Error
	var data jsonrpc.ErrorData
	return errors.As(err, &e) && e.Code == jsonrpc.CodeInternal && e.DecodeData(&data) == nil && data.Retryable && data.By == jsonrpc.ByMaster
}

// Get sends an HTTP GET like [Conn.Get], to the first service that answers with
// anything. It does not bound how long that takes: ctx does, so it suits streams. The
// caller closes the body of the answer. Where there is another service, and this one
// gives no sign of life for about 4 s, neither in the body nor when it is asked for its
// health, the body fails with a [*TransportError], and the next call goes to the next
// service.
func (c *Client) Get(ctx context.Context, path string, header http.Header) (*http.Response, error) {
	return c.get(ctx, path, header, anyAnswer)
}

// each tries the services one after the other, from the current one on, until one
// has served, for what must not be sent to two of them. try says whether to go on to
// the next.
func (c *Client) each(ctx context.Context, try func(*Conn) (next bool, err error)) error {
	begin := int(c.current.Load())
	var failed []error
	for i := range c.conns {
		at := (begin + i) % len(c.conns)
		next, err := try(c.conns[at])
		if !next {
			if OutcomeUnknown(err) {
				return err
			}
			c.current.Store(uint32(at))
			return err
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	if len(failed) == 1 {
		return failed[0]
	}
	return together(failed)
}

// together makes one error of those of several services.
func together(failed []error) error {
	all := &TransportError{Err: errors.Join(failed...)}
	for _, err := range failed {
		all.Sent = all.Sent || OutcomeUnknown(err)
	}
	return all
}
