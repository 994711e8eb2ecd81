// Package compute is a small compute service: it runs virtual machines on one
// node and answers the VM calls that a master of the explorer forwards to it
// (deploy_vm, start_vm, stop_vm, restart_vm, delete_vm, list_vms, get_vm,
// vm_stats, vm_logs, vm_exec).
//
// A [Service] keeps the VMs, checks their secrets and serves JSON-RPC over HTTP;
// a [Driver] does the machines. [NewMemoryDriver] is a driver that only plays
// them: nothing is ever run on the host. Package qemu beside this one has one
// that runs them.
//
//	svc, err := compute.New(compute.Config{StatePath: "vms.json"})
//	if err != nil { … }
//	defer svc.Close(ctx)
//	http.Serve(listener, svc.Handler())
//
// # Streams
//
// Beside POST /rpc there are two requests that last, for which the VM's secret is
// in the header X-VM-Secret or the parameter secret:
//
//	GET /vms/{sid}/logs?follow=true&lines=100   lines of text, the last ones,
//	                                            then each as it comes
//	GET /vms/{sid}/console                      a WebSocket: each message is bytes of
//	                                            the serial console, in either direction
//
// All consoles of a VM show the same. A VM never waits for a client: one that
// reads its log too slowly misses lines, one that reads its console too slowly is
// disconnected. Where a stream cannot begin, the body is the error object that a
// call would get, with the HTTP status 400, 404, 409 or 503. A followed log ends
// when the VM is deleted, a console when the VM stops; both end with the service.
//
// # Secrets
//
// Each VM has the secret that it was deployed with. A call whose secret differs
// gets the answer that a VM which does not exist gets, to the letter. An empty
// secret protects nothing. Only a salted hash of a secret is kept, and none is
// ever sent.
//
// list_vms without a secret lists every VM, as a summary (sid, name, state, cpu,
// memory, ip): this is what the node's agent reports to the masters, and what
// the explorer shows to everyone. list_vms with a secret lists only the VMs that
// this secret opens. hero_compute is stricter, it hides VMs whose secret does
// not match from every list; a node that must not show its VMs does not run the
// agent against this service.
//
// # Guarantees
//
// A mutating call that returned without error is in the state file, if there is
// one, and survives a crash of the service; VMs that ran are started again. Calls
// for one VM run one after the other, calls for different VMs side by side.
// Everything that comes from outside is bounded. Close ends the machines, and the
// next service on the state file starts those again that ran. All methods of [Service] may be
// called concurrently.
package compute
