// Package compute is a small compute service: it runs virtual machines on one
// node and answers the VM calls that a master of the explorer forwards to it
// (deploy_vm, start_vm, stop_vm, restart_vm, delete_vm, list_vms, get_vm,
// vm_stats, vm_logs, vm_exec).
//
// A [Service] keeps the VMs, checks their secrets and serves JSON-RPC over HTTP;
// a [Driver] does the machines. [NewMemoryDriver] is a driver that only plays
// them: nothing is ever run on the host.
//
//	svc, err := compute.New(compute.Config{StatePath: "vms.json"})
//	if err != nil { … }
//	defer svc.Close()
//	http.Serve(listener, svc.Handler())
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
// Everything that comes from outside is bounded. All methods of [Service] may be
// called concurrently.
package compute
