// Package explorer is the master: a server on top of [crdtstore.Store] that
// takes registrations and heartbeats of compute nodes, answers questions about
// nodes, VMs and masters, and forwards VM calls to the node that runs the VM.
//
// [Run] serves until its context ends; [New], [Server.Start] and [Server.Stop]
// do the same in steps. A [Config] says where; [DefaultConfig] is a single
// master on this machine.
//
// It speaks JSON-RPC 2.0 over HTTP on a unix socket and on TCP, and follows the
// conventions of Hero services (rpc.discover, /health, /openrpc.json,
// /.well-known/heroservice.json). /events streams changes, and with ?log=1 what
// happened too, which the method events lists; /metrics serves Prometheus,
// /backup gives all records as a file and /restore merges one. A second listener
// serves the page.
//
// # In another program
//
// A Config takes a store, a listener and a Prometheus registerer that the program has, and
// [Server.Handler] is the API for its own HTTP server. Without any listener the server
// opens no socket.
//
// # Guarantees
//
//   - Input that cannot be taken changes nothing, and the error names the field.
//   - The answer of a node to a VM call, result or error, is handed on byte for
//     byte. Codes from -32001 to -32010 are about this master's own part only.
//   - A VM call that changes something is sent at most once. Where its answer
//     got lost, the caller is told that the outcome is unknown (-32004).
//   - Everything from outside is bounded: bodies, lists, streams, connections
//     to nodes, and time.
//
// # Who may do what
//
// See [AuthMode]. A loopback connection is trusted as the user of this machine
// is, but a page in this user's browser is not: requests from other sites are
// refused, and so are host names that this master does not know as its own.
package explorer
