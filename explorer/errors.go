package explorer

import (
	"context"
	"errors"
	"log/slog"
	"syscall"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// errorData is the data of every error of this master's own.
type errorData struct {
	// Retryable: the same request may be sent again and may then succeed.
	Retryable bool `json:"retryable"`
	// Hint says to a person what to do.
	Hint   string `json:"hint"`
	Field  string `json:"field,omitempty"`
	Reason string `json:"reason,omitempty"`
	NodeID string `json:"node_id,omitempty"`
	// RetryAfterS is how many seconds to wait before the next try.
	RetryAfterS float64 `json:"retry_after_s,omitempty"`
	// By is [jsonrpc.ByMaster]. What a node answers is passed on as it is, with codes that
	// may be the same.
	By string `json:"by" doc:"master: this master made the error itself. agent: the node's agent did. Without it the error is the compute service's, passed on as it is."`
}

func failure(code int, message string, data errorData) *jsonrpc.Error {
	data.By = jsonrpc.ByMaster
	return &jsonrpc.Error{Code: code, Message: message, Data: data}
}

// badField is the error for a parameter that cannot be taken. The problem goes
// on with a sentence that begins with the field.
func badField(field, problem string) *jsonrpc.Error {
	return ours(jsonrpc.InvalidParams(field, problem))
}

func nodeNotFound(id string) *jsonrpc.Error {
	return failure(jsonrpc.CodeNodeNotFound, "node "+id+" is not known",
		errorData{Hint: "list_nodes shows the nodes; one that has just registered elsewhere is here in a moment", NodeID: id})
}

func notFound(what string) *jsonrpc.Error {
	return failure(jsonrpc.CodeNotFound, what+" is not known",
		errorData{Hint: "list_vms and masters show what there is"})
}

// wireError turns an error of a handler into what goes over the wire. Errors
// that nobody foresaw are logged here, and only here; their text may speak of
// files, so it is not sent.
func (s *Server) wireError(method string, err error) *jsonrpc.Error {
	var (
		wire    *jsonrpc.Error
		field   *crdtstore.FieldError
		refused *crdtstore.RefusedError
	)
	switch {
	case errors.As(err, &wire):
		return ours(wire)
	case errors.As(err, &field):
		return badField(field.Field, field.Problem)
	case errors.As(err, &refused):
		return failure(jsonrpc.CodeRefusedIdentity, refused.Error(),
			errorData{Hint: refused.Hint, Reason: refused.Reason, NodeID: refused.NodeID})
	case errors.Is(err, crdtstore.ErrCursor):
		return failure(jsonrpc.CodeUnknownCursor, "cursor is not known",
			errorData{Hint: "start again without a cursor", Field: "cursor"})
	case errors.Is(err, crdtstore.ErrNotFound):
		return notFound("what was asked for")
	case errors.Is(err, crdtstore.ErrUnavailable), errors.Is(err, crdtstore.ErrClosed):
		// Why is logged once, by the store. Every call of every agent runs into it,
		// and a log on a full disk would be the last straw.
		s.log.Debug("request refused, the store cannot take it", slog.String("method", method), slog.Any("error", err))
		return failure(jsonrpc.CodeInternal, "this master cannot take it now"+because(err),
			errorData{Retryable: true, Hint: "try another master; /health of this one says more", RetryAfterS: 1})
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return failure(jsonrpc.CodeInternal, "the request was given up",
			errorData{Retryable: true, Hint: "the caller hung up or this master is stopping; try again or another master"})
	}
	// The same one may come with every request, and others differ in little but their text.
	s.states.State(slog.LevelError, "request "+method, err.Error(), "request failed", slog.String("method", method), slog.Any("error", err))
	return failure(jsonrpc.CodeInternal, "internal error",
		errorData{Hint: "the log of this master says more"})
}

// ours completes an error, unless a node made it.
func ours(wire *jsonrpc.Error) *jsonrpc.Error {
	if wire.Raw != nil {
		return wire
	}
	switch data := wire.Data.(type) {
	case nil:
		return failure(wire.Code, wire.Message, errorData{Hint: wire.Message})
	case jsonrpc.ErrorData:
		return failure(wire.Code, wire.Message, errorData{Retryable: data.Retryable, Hint: data.Hint, Field: data.Field})
	}
	return wire
}

// because says why a store cannot write, where the reason is one that callers can
// make use of.
func because(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return ": its disk is full"
	case errors.Is(err, syscall.EROFS):
		return ": its disk is read-only"
	case errors.Is(err, crdtstore.ErrDiskHangs):
		return ": its disk does not answer; what was sent before may be taken later"
	case errors.Is(err, crdtstore.ErrDiskSlow):
		return " in time: its disk is slow; it may be taken later"
	}
	return ""
}
