// Package jsonrpc speaks JSON-RPC 2.0 (https://www.jsonrpc.org/specification)
// over HTTP: the wire types, and [Mux], an http.Handler that serves methods.
//
//	mux := new(jsonrpc.Mux)
//	mux.Handle("add", func(_ context.Context, params json.RawMessage) (any, error) {
//		var p struct{ A, B int }
//		if err := jsonrpc.DecodeParams(params, &p); err != nil {
//			return nil, err
//		}
//		return p.A + p.B, nil
//	})
//	http.Handle("POST /rpc", mux)
//
// A request, a batch or a notification is the body of one POST. Every request
// that can be answered in JSON-RPC gets HTTP status 200, errors too; what
// consists of notifications alone gets 204 and no body. The exceptions are not
// about the request but about its transport: 405 for another HTTP method than
// POST and 413 for a body over [MaxBody]; both carry a JSON-RPC error.
//
// # Guarantees
//
//   - Nothing that arrives stops the process: a handler that panics answers
//     with [CodeInternal].
//   - Bodies, batches, ids and the answers to batches are bounded.
//   - Names are matched exactly, a member given twice is refused, and
//     [DecodeParams] refuses fields that it does not know and names them.
//   - A [json.RawMessage] result, and an [Error] that came from another server,
//     are written byte for byte.
package jsonrpc
