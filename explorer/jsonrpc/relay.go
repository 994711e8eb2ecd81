package jsonrpc

import "encoding/json"

// Incoming is one request as it was received, for programs that pass requests on
// rather than carry them out. Its fields point into the body.
type Incoming struct {
	Method string
	Params json.RawMessage // an object or an array; nil: none
	ID     json.RawMessage // nil: a notification
}

// ParseRequest reads a body that holds one request. With an error the ID is that of
// the answer.
func ParseRequest(body []byte) (Incoming, *Error) {
	in, err := parse(body)
	if err == nil && in.isBatch {
		err = invalidRequest("", "batches are not taken here; send one request at a time")
	}
	if err != nil {
		return Incoming{ID: nullID}, err
	}
	return Incoming{Method: string(in.method), Params: in.params, ID: in.id}, in.bad
}

// AppendAnswer appends an answer that consists of a member, which is `"result":…` or
// `"error":…` in JSON, and the id of a request.
func AppendAnswer(dst, member, id []byte) []byte {
	return appendID(append(append(dst, `{"jsonrpc":"2.0",`...), member...), id)
}

// AppendError appends an answer that is an error.
func AppendError(dst []byte, e *Error, id []byte) []byte { return appendError(dst, id, e) }
