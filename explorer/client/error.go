package client

import (
	"errors"
	"fmt"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// TransportError says that a call got no answer of the service.
type TransportError struct {
	// URL is that of the endpoint. Empty: Err is about each of several.
	URL string
	// Sent tells whether the request may have reached the service, and may have
	// been carried out. false: it certainly was not.
	Sent bool
	// OpID names the operation, if the call was one. Who calls again with it as
	// op_id, and with op_again, gets the answer that was lost.
	OpID string
	// Status is the HTTP status, where there was one.
	Status int
	Err    error
}

func (e *TransportError) Error() string {
	if e.URL == "" && e.Sent {
		return fmt.Sprintf("it may have been carried out, but no answer came:\n%v", e.Err)
	}
	if e.URL == "" {
		return fmt.Sprintf("no address answers:\n%v", e.Err)
	}
	if e.Sent {
		return fmt.Sprintf("%s was sent the request but gave no answer to it: %v", e.URL, e.Err)
	}
	return fmt.Sprintf("cannot reach %s: %v", e.URL, e.Err)
}

func (e *TransportError) Unwrap() error { return e.Err }

// OutcomeUnknown reports whether an error leaves open if the call was carried
// out.
func OutcomeUnknown(err error) bool {
	var t *TransportError
	var e *jsonrpc.Error
	return errors.As(err, &t) && t.Sent || errors.As(err, &e) && e.Code == jsonrpc.CodeOutcomeUnknown
}

// idempotent are the methods of masters and compute services that may be
// carried out twice. Reports and heartbeats are among them because their
// version tells a repeated one.
var idempotent = map[string]bool{
	"register_node": true, "node_heartbeat": true, "node_heartbeats": true,
	"list_nodes": true, "get_node": true, "list_vms": true, "get_vm": true,
	"vm_stats": true, "vm_logs": true,
	"masters": true, "stats": true, "diff": true, "events": true, "discover": true, "health": true,
}

// Idempotent reports whether a method of a master or of a compute service, bare
// or behind the name of its service, may be called again when it is not known
// whether it was carried out. It is false for methods that it does not know.
func Idempotent(method string) bool {
	return idempotent[bare(method)]
}

// overrides are the methods by which an operator sets something of a node or of the
// grid. The same again changes nothing more.
var overrides = map[string]bool{
	"drain_node": true, "undrain_node": true, "label_node": true, "remove_node": true, "end_preservation": true,
}

// Repeatable reports whether a method of a master, bare or behind the name of its
// service, may be sent to another master when it is not known whether the first has
// carried it out: it is [Idempotent], or an operator's override.
func Repeatable(method string) bool { return Idempotent(method) || overrides[bare(method)] }

// mutates are the methods that change VMs, which masters pass on to nodes.
var mutates = map[string]bool{
	"deploy_vm": true, "start_vm": true, "stop_vm": true, "restart_vm": true, "delete_vm": true,
	"vm_exec": true, "proxy": true,
}

// Mutates reports whether a method of a master, bare or behind the name of its
// service, changes a VM at a node and takes an op_id. Of proxy it is what it
// calls that decides.
func Mutates(method string) bool { return mutates[bare(method)] }

// bare is the name of a method without that of its service.
func bare(method string) string { return method[strings.LastIndexByte(method, '.')+1:] }
