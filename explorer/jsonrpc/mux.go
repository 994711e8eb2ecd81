package jsonrpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strconv"
	"sync"
)

// Limits on what one HTTP request may hold and cause.
const (
	MaxBody        = 4 << 20  // bytes of a body
	MaxBatch       = 1000     // requests in a batch
	MaxID          = 1024     // bytes of an id
	MaxBatchAnswer = 64 << 20 // bytes of the answers to a batch, beyond which requests are refused
)

// Handler carries out one method. ctx ends when the caller hangs up. params is
// an object or an array in JSON, or nil; it may be kept. The result is encoded
// with encoding/json, but a json.RawMessage is written as it is and must hold
// JSON. An [Error], also a wrapped one, is the answer as it is; any other error
// is logged, and the caller learns only that it was an internal one.
//
// A Handler is called from many goroutines at once.
type Handler func(ctx context.Context, params json.RawMessage) (result any, err error)

// Mux serves methods by their names. Its zero value has none. Methods are
// registered before it serves.
type Mux struct {
	// Logger takes panics and unforeseen errors of handlers. nil: they are not
	// logged.
	Logger *slog.Logger
	// By is put into the data of errors that are made by this package. Empty: nothing is.
	By string

	handlers map[string]Handler
}

// Handle registers the handler of a method. It panics where the name is empty
// or taken.
func (m *Mux) Handle(method string, h Handler) {
	if _, taken := m.handlers[method]; taken || method == "" || h == nil {
		panic(fmt.Sprintf("jsonrpc: cannot handle method %q: no name, no handler, or registered before", method))
	}
	if m.handlers == nil {
		m.handlers = map[string]Handler{}
	}
	m.handlers[method] = h
}

// Answer carries out what a body asks for, and appends the answer to dst. It
// appends nothing where no answer is due. The requests of a batch run one after
// the other, in their order.
func (m *Mux) Answer(ctx context.Context, dst, body []byte) []byte {
	in, err := parse(body)
	if err != nil {
		return m.appendError(dst, nullID, err)
	}
	if in.isBatch {
		return m.batch(ctx, dst, in)
	}
	return m.single(ctx, dst, in.request)
}

func (m *Mux) batch(ctx context.Context, dst []byte, in message) []byte {
	switch {
	case in.size == 0:
		return m.appendError(dst, nullID, invalidRequest("", "a batch must hold at least one request"))
	case in.size > MaxBatch:
		return m.appendError(dst, nullID, invalidRequest("", fmt.Sprintf("a batch may hold %d requests, this one has %d", MaxBatch, in.size)))
	}
	begin := len(dst)
	dst = append(dst, '[')
	for _, r := range in.batch {
		switch {
		case r.bad != nil:
		case ctx.Err() != nil:
			r.bad = internalError("the request was given up before this part of the batch", true)
		case len(dst)-begin > MaxBatchAnswer:
			r.bad = &Error{Code: CodeLimit, Message: "the answers to this batch are too long", Data: ErrorData{
				Retryable: true, Hint: "send smaller batches, or ask for shorter lists",
			}}
		}
		dst = m.single(ctx, dst, r)
		if dst[len(dst)-1] == '}' {
			dst = append(dst, ',')
		}
	}
	if len(dst) == begin+1 {
		return dst[:begin] // notifications alone
	}
	dst[len(dst)-1] = ']'
	return dst
}

// single appends the answer to one request; nothing for a notification.
func (m *Mux) single(ctx context.Context, dst []byte, r request) []byte {
	var result any
	err := error(r.bad)
	if r.bad == nil {
		result, err = m.call(ctx, r)
	}
	if r.id == nil {
		return dst
	}
	if err != nil {
		return m.appendError(dst, r.id, m.wireError(r.method, err))
	}
	begin := len(dst)
	dst = append(dst, `{"jsonrpc":"2.0","result":`...)
	if dst, err = appendValue(dst, result); err != nil {
		return m.appendError(dst[:begin], r.id, m.wireError(r.method, fmt.Errorf("encode result: %w", err)))
	}
	return appendID(dst, r.id)
}

// call runs the handler of a method.
func (m *Mux) call(ctx context.Context, r request) (result any, err error) {
	h, ok := m.handlers[string(r.method)]
	if !ok {
		return nil, &Error{Code: CodeMethodNotFound, Message: "method not found: " + shown(r.method), Data: ErrorData{
			Hint: "rpc.discover, where the service has it, lists the methods",
		}}
	}
	defer func() {
		if v := recover(); v != nil {
			if m.Logger != nil {
				m.Logger.ErrorContext(ctx, "method panicked", slog.String("method", shown(r.method)),
					slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
			}
			err = internalError("the log of the service says more", false)
		}
	}()
	return h(ctx, r.params)
}

// wireError turns an error of a handler into the one that is sent. What nobody
// foresaw may speak of files and addresses, so it is logged and not sent.
func (m *Mux) wireError(method []byte, err error) *Error {
	if wire := (*Error)(nil); errors.As(err, &wire) && wire != nil {
		return wire
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return internalError("the request was given up; try again", true)
	}
	if m.Logger != nil {
		m.Logger.Error("method failed", slog.String("method", shown(method)), slog.Any("error", err))
	}
	return internalError("the log of the service says more", false)
}

// appendError appends an answer that is an error, and says who made it.
func (m *Mux) appendError(dst, id []byte, e *Error) []byte {
	if data, ok := e.Data.(ErrorData); ok && e.Raw == nil && data.By == "" && m.By != "" {
		data.By = m.By
		e = &Error{Code: e.Code, Message: e.Message, Data: data}
	}
	return appendError(dst, id, e)
}

func appendError(dst, id []byte, e *Error) []byte {
	dst = append(dst, `{"jsonrpc":"2.0","error":`...)
	if e.Raw != nil {
		return appendID(append(dst, e.Raw...), id)
	}
	begin := len(dst)
	dst = strconv.AppendInt(append(dst, `{"code":`...), int64(e.Code), 10)
	dst, _ = appendValue(append(dst, `,"message":`...), e.Message)
	if e.Data != nil {
		var err error
		if dst, err = appendValue(append(dst, `,"data":`...), e.Data); err != nil {
			// Better an error without its data than none.
			return appendError(dst[:begin-len(`{"jsonrpc":"2.0","error":`)], id, &Error{Code: e.Code, Message: e.Message})
		}
	}
	return appendID(append(dst, '}'), id)
}

func appendID(dst, id []byte) []byte {
	return append(append(append(dst, `,"id":`...), id...), '}')
}

// encoders reuse their buffers; what they encode is copied into the answer.
var encoders = sync.Pool{New: func() any {
	e := new(encoder)
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false) // this is no HTML
	return e
}}

type encoder struct {
	buf  bytes.Buffer
	json *json.Encoder
}

func appendValue(dst []byte, v any) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case json.RawMessage:
		if len(v) == 0 {
			return append(dst, "null"...), nil
		}
		return append(dst, v...), nil
	}
	e := encoders.Get().(*encoder)
	if err := e.json.Encode(v); err != nil {
		return dst, err // the encoder stays broken, so it does not go back
	}
	dst = append(dst, bytes.TrimSuffix(e.buf.Bytes(), []byte("\n"))...)
	if e.buf.Cap() <= maxPooled {
		e.buf.Reset()
		encoders.Put(e)
	}
	return dst, nil
}

// shown is a name from outside, fit for a message.
func shown(name []byte) string {
	if len(name) > 64 {
		name = append(bytes.Clone(name[:64]), "..."...)
	}
	return strconv.Quote(string(name))
}
