package jsonrpc

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Request is a request as a client sends it.
type Request struct {
	Version string          `json:"jsonrpc"` // "2.0"
	Method  string          `json:"method"`
	Params  json.RawMessage `json:"params,omitempty"`
	ID      any             `json:"id,omitempty"` // nil: a notification
}

// Response is the answer to one request. Either Result or Error is set; a
// result of null is the four bytes of it.
type Response struct {
	Version string          `json:"jsonrpc"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *Error          `json:"error,omitempty"`
	ID      json.RawMessage `json:"id"`
}

// EncodeRequest encodes a request with the given id. params is anything that
// encodes to an object or an array, or nil; a json.RawMessage is taken as it is.
func EncodeRequest(id uint64, method string, params any) ([]byte, error) {
	dst, err := appendValue(append(make([]byte, 0, 256), `{"jsonrpc":"2.0","method":`...), method)
	if err != nil {
		return nil, err
	}
	if params != nil {
		begin := len(dst) + len(`,"params":`)
		if dst, err = appendValue(append(dst, `,"params":`...), params); err != nil {
			return nil, fmt.Errorf("encode params of %s: %w", method, err)
		}
		switch kindOf(dst[begin:]) {
		case '{', '[':
		case 'n':
			dst = dst[:begin-len(`,"params":`)]
		default:
			return nil, fmt.Errorf("params of %s are neither an object nor an array", method)
		}
	}
	return fmt.Appendf(dst, `,"id":%d}`, id), nil
}

// DecodeResponse decodes the answer to the request of the given id.
func DecodeResponse(id uint64, body []byte) (Response, error) {
	var r Response
	if err := json.Unmarshal(body, &r); err != nil {
		return r, fmt.Errorf("not a JSON-RPC answer: %w", err)
	}
	switch got := string(r.ID); {
	case r.Version != "2.0":
		return r, errors.New("not a JSON-RPC 2.0 answer")
	case (r.Result == nil) == (r.Error == nil):
		return r, errors.New("a JSON-RPC answer must have either a result or an error")
	// An error about the request as a whole has no id.
	case got != fmt.Sprint(id) && !(r.Error != nil && (got == "null" || got == "")):
		return r, fmt.Errorf("the answer is to another request, %s", shown(r.ID))
	}
	return r, nil
}
