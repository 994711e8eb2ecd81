package jsonrpc

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Codes that JSON-RPC 2.0 defines.
const (
	CodeParse          = -32700 // the body is not JSON
	CodeInvalidRequest = -32600 // JSON, but not a request
	CodeMethodNotFound = -32601
	CodeInvalidParams  = -32602 // data.field names the parameter
	CodeInternal       = -32603
)

// Codes of the explorer. Their data is [ErrorData], or holds its fields.
const (
	CodeNodeNotFound     = -32001
	CodeNodeOffline      = -32002
	CodeCannotReach      = -32003 // the node could not be reached; nothing was done
	CodeOutcomeUnknown   = -32004 // sent to the node, but no answer came back
	CodeUnauthorized     = -32005
	CodeRefusedIdentity  = -32006 // key mismatch, bad signature or removed boot
	CodeLimit            = -32007 // too much or too often; data.retry_after_s
	CodeNotFound         = -32008 // no such VM or master
	CodeUnknownCursor    = -32009
	CodeMethodNotAllowed = -32010 // proxy does not pass this method on
)

// Error is a JSON-RPC error object. A [Handler] that returns one answers with
// it as it is.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	// Data is anything that encodes to JSON. In an error that was received it
	// is a json.RawMessage, or nil.
	Data any `json:"data,omitempty"`

	// Raw is the object as it was received, nil in an error made here. Where it
	// is set it is written instead of the fields above, so that an error can be
	// handed on byte for byte.
	Raw json.RawMessage `json:"-"`
}

// ErrorData is the data of errors made in this package.
type ErrorData struct {
	// Retryable: the same request may be sent again and may then succeed.
	Retryable bool `json:"retryable"`
	// Hint says to a person what to do.
	Hint string `json:"hint"`
	// Field names the parameter that cannot be taken, as in "usage.cru" or
	// "beats[3].node_id".
	Field string `json:"field,omitempty"`
	// By tells who made the error, where services pass on what others answer: [ByMaster],
	// [ByAgent]. Empty: the service that carries calls out.
	By string `json:"by,omitempty"`
}

// Who passes calls on and makes errors of its own.
const (
	ByMaster = "master"
	ByAgent  = "agent" // of the node; it calls the compute service
)

// Error returns the message and the code.
func (e *Error) Error() string { return e.Message + " (" + strconv.Itoa(e.Code) + ")" }

// MarshalJSON returns Raw where it is set, else the fields.
func (e *Error) MarshalJSON() ([]byte, error) {
	if e.Raw != nil {
		return e.Raw, nil
	}
	type plain Error // without this method
	return json.Marshal((*plain)(e))
}

// UnmarshalJSON decodes an error object and keeps it in Raw.
func (e *Error) UnmarshalJSON(b []byte) error {
	var in struct {
		Code    *int            `json:"code"`
		Message string          `json:"message"`
		Data    json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	if in.Code == nil {
		return fmt.Errorf("error object without a code")
	}
	*e = Error{Code: *in.Code, Message: in.Message, Raw: append(json.RawMessage(nil), b...)}
	if in.Data != nil {
		e.Data = in.Data
	}
	return nil
}

// DecodeData decodes the data of an error, wherever it came from.
func (e *Error) DecodeData(into any) error {
	raw, ok := e.Data.(json.RawMessage)
	if !ok {
		var err error
		if raw, err = json.Marshal(e.Data); err != nil {
			return err
		}
	}
	return json.Unmarshal(raw, into)
}

// InvalidParams returns the error for a parameter that cannot be taken. The
// problem continues a sentence that begins with the name of the field.
func InvalidParams(field, problem string) *Error {
	return &Error{
		Code: CodeInvalidParams, Message: "invalid params: " + field + " " + problem,
		Data: ErrorData{Hint: field + " " + problem, Field: field},
	}
}

func invalidRequest(field, hint string) *Error {
	return &Error{Code: CodeInvalidRequest, Message: "invalid request: " + hint, Data: ErrorData{Hint: hint, Field: field}}
}

func internalError(hint string, retryable bool) *Error {
	return &Error{Code: CodeInternal, Message: "internal error", Data: ErrorData{Retryable: retryable, Hint: hint}}
}
