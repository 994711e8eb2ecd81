package client

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"slices"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/internal/attempts"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

const (
	// operationLimit bounds an operation. A node may take 120 s to deploy, and
	// finding a way to it takes time as well.
	operationLimit = 150 * time.Second
	// refusalLimit is how long masters are asked again that did nothing: one that
	// has just lost its way to the node finds another one in this time.
	refusalLimit = 10 * time.Second
	// switchAfter is how long a master may be silent before another one is asked
	// besides. In an operation it doubles once all were asked.
	switchAfter = 3 * time.Second
	// pause is between two rounds through the masters, at first; it doubles.
	pause, maxPause = 100 * time.Millisecond, time.Second
)

// operation is a call that changes a VM. Its name goes with every attempt, so
// that the node carries it out once however many attempts reach it.
type operation struct {
	client       *Client
	method, name string
	first, again json.RawMessage // params, and those of a repetition
	limit        time.Duration

	done     chan outcome
	over     chan struct{}
	attempts sync.WaitGroup

	began       time.Time
	calls       attempts.Call
	tries       int           // attempts that were begun
	switchAfter time.Duration // before the next attempt beside those under way
	pause       time.Duration // after this round
	hope        bool          // a master was reached in this round, and could not serve just now
	closed      error         // a master has said that repeating tells nothing
	failed      []error       // by master: how the last attempt there ended
}

// outcome is how an attempt ended.
type outcome struct {
	at     int // the master
	result json.RawMessage
	err    error
}

// newOperation names an operation, unless its caller did.
func (c *Client) newOperation(method string, params map[string]json.RawMessage) (*operation, error) {
	o := &operation{
		client: c, method: method, limit: operationLimit, switchAfter: min(switchAfter, c.opts.Timeout), pause: pause,
		calls: attempts.Call{Repeatable: true}, done: make(chan outcome), over: make(chan struct{}), failed: make([]error, len(c.conns)),
	}
	if given, ok := params["op_id"]; !ok {
		o.name = rand.Text()
	} else if err := json.Unmarshal(given, &o.name); err != nil || o.name == "" {
		return nil, fmt.Errorf("params of %s: op_id must be a text that is not empty", method)
	}
	if bare(method) == "proxy" {
		o.limit = max(o.limit, proxyTime(params)+operationLimit-slowest)
	}
	params = maps.Clone(params)
	if params == nil {
		params = map[string]json.RawMessage{}
	}
	params["op_id"], _ = json.Marshal(o.name)
	o.first = jsonrpc.EncodeObject(params)
	params["op_again"] = json.RawMessage("true")
	o.again = jsonrpc.EncodeObject(params)
	return o, nil
}

// run attempts the operation at one master after the other until one answers
// for the node. Attempts whose master is silent stay under way meanwhile.
func (o *operation) run(ctx context.Context) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, o.limit)
	defer o.attempts.Wait()
	defer close(o.over)
	defer cancel()
	o.began = time.Now()
	begin := int(o.client.current.Load())
	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			for o.calls.Open() > 0 { // they end now, and tell how far they came
				if out := <-o.done; o.take(out) {
					return out.result, out.err
				}
			}
			return nil, o.failure(context.Cause(ctx))
		case <-next.C:
			o.attempt(ctx, (begin+o.tries)%len(o.client.conns))
			next.Reset(o.switchAfter)
			if o.tries >= len(o.client.conns) {
				o.switchAfter *= 2
			}
		case out := <-o.done:
			if o.take(out) {
				o.client.current.Store(uint32(out.at))
				return out.result, out.err
			}
			wait, ok := o.wait()
			switch {
			case ok:
				next.Reset(wait)
			case o.calls.Open() > 0:
				next.Stop()
			case o.closed != nil:
				return nil, o.closed
			default:
				return nil, o.failure(nil)
			}
		}
	}
}

// attempt begins an attempt.
func (o *operation) attempt(ctx context.Context, at int) {
	params := o.first
	if o.calls.Begin() {
		params = o.again
	}
	o.tries++
	o.attempts.Go(func() {
		out := outcome{at: at}
		out.err = o.client.conns[at].call(ctx, o.method, params, &out.result, 0, nil)
		select {
		case o.done <- out:
		case <-o.over:
		}
	})
}

// take notes how an attempt ended, and reports whether that is the answer.
func (o *operation) take(out outcome) (answered bool) {
	var transport *TransportError
	var theirs *jsonrpc.Error
	o.calls.Ended(OutcomeUnknown(out.err))
	switch {
	case errors.As(out.err, &transport):
		o.hope = o.hope || transport.Status == 503
	case errors.As(out.err, &theirs):
		var data jsonrpc.ErrorData
		_ = theirs.DecodeData(&data) // none: not retryable
		switch {
		case theirs.Code == jsonrpc.CodeOutcomeUnknown:
			if !data.Retryable {
				o.closed = out.err
			}
		case data.By == "" || !ofMaster[theirs.Code]: // the compute service has answered
			return true
		case data.Retryable && theirs.Code != jsonrpc.CodeNodeOffline:
			o.hope = true
		case data.Retryable:
		// What a master says that knows the node badly or the caller not at all
		// is an answer, but not to what an earlier attempt has done.
		case theirs.Code == jsonrpc.CodeInternal || !o.calls.MayRun():
			return true
		}
	default:
		return true
	}
	o.failed[out.at] = out.err
	return false
}

// ofMaster are the codes with which a master, or the node's agent, answers that has
// sent nothing on, where another master may do better. A compute service may have the
// same codes, and says by them what became of the call.
var ofMaster = map[int]bool{
	jsonrpc.CodeInternal: true, jsonrpc.CodeNodeNotFound: true, jsonrpc.CodeNodeOffline: true,
	jsonrpc.CodeCannotReach: true, jsonrpc.CodeUnauthorized: true, jsonrpc.CodeLimit: true, jsonrpc.CodeNotFound: true,
}

// wait tells when to make the next attempt, if at all.
func (o *operation) wait() (wait time.Duration, ok bool) {
	switch {
	case o.closed != nil:
		return 0, false
	case o.tries%len(o.client.conns) != 0:
		return 0, true
	case o.calls.MayRun() || o.hope && time.Since(o.began) < refusalLimit:
		wait = o.pause/2 + mathrand.N(o.pause) // not in step with others who wait
		o.pause, o.hope = min(2*o.pause, maxPause), false
		return wait, true
	}
	return 0, false // nobody is there, or nobody can reach the node
}

// failure is the error of an operation without an answer. cause says what ended
// it, if not the masters did.
func (o *operation) failure(cause error) error {
	failed := slices.DeleteFunc(slices.Clone(o.failed), func(err error) bool { return err == nil })
	if o.calls.MayRun() {
		// That a master has sent nothing must not be taken for the end of it all.
		for i, err := range failed {
			if e := (*jsonrpc.Error)(nil); !errors.As(err, &e) || e.Code != jsonrpc.CodeOutcomeUnknown {
				failed[i] = errors.New(err.Error())
			}
		}
		return &TransportError{Sent: true, OpID: o.name, Err: errors.Join(append(failed, cause)...)}
	}
	for _, err := range failed {
		if e := (*jsonrpc.Error)(nil); errors.As(err, &e) {
			if cause != nil {
				return fmt.Errorf("%w (%w)", err, cause)
			}
			return err
		}
	}
	if len(failed) == 1 && cause == nil {
		return failed[0]
	}
	return &TransportError{Err: errors.Join(append(failed, cause)...)}
}
