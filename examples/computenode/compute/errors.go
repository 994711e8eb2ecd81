package compute

import (
	"fmt"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// The service's own error codes. They lie outside the range that JSON-RPC and
// the explorer use, so that who reads an error knows that the node said it.
const (
	CodeVMNotFound = -33001 // no such VM, or the secret does not fit
	CodeWrongState = -33002 // the VM is not in a state for this call
	CodeNoRoom     = -33003 // the node takes no more VMs
	CodeDriver     = -33004 // the driver could not do it
	CodeNotSaved   = -33005 // done, but the state file could not be written
)

// ErrorData goes with each of the service's own errors.
type ErrorData struct {
	CodeName  string `json:"code_name"`
	Retryable bool   `json:"retryable"`
	Hint      string `json:"hint"`
	SID       string `json:"sid,omitempty"`
	State     State  `json:"state,omitempty"`
}

func errNotFound(sid string) error {
	return &jsonrpc.Error{Code: CodeVMNotFound, Message: fmt.Sprintf("VM %q not found", sid), Data: ErrorData{
		CodeName: "vm_not_found", SID: sid,
		Hint: "check the sid and the secret; list_vms shows the VMs of this node",
	}}
}

func errNotRunning(vm VM) error {
	return &jsonrpc.Error{Code: CodeWrongState, Message: fmt.Sprintf("VM %q is %s", vm.Name, vm.State), Data: ErrorData{
		CodeName: "wrong_state", SID: vm.SID, State: vm.State,
		Hint: "start it first with start_vm",
	}}
}

func errNoRoom() error {
	return &jsonrpc.Error{Code: CodeNoRoom, Message: fmt.Sprintf("the node has its most of %d VMs", MaxVMs), Data: ErrorData{
		CodeName: "no_room", Retryable: true,
		Hint: "delete a VM or deploy on another node",
	}}
}

func errDriver(sid string, err error) error {
	return &jsonrpc.Error{Code: CodeDriver, Message: "the driver failed: " + err.Error(), Data: ErrorData{
		CodeName: "driver_failed", Retryable: true, SID: sid,
		Hint: "vm_logs may tell more",
	}}
}

func errNotSaved(sid string, err error) error {
	return &jsonrpc.Error{Code: CodeNotSaved, Message: "done, but not saved: " + err.Error(), Data: ErrorData{
		CodeName: "not_saved", SID: sid,
		Hint: "the change is lost if the service stops now; check the state file's disk",
	}}
}

// invalid names the parameter that cannot be taken.
func invalid(field, format string, args ...any) error {
	return jsonrpc.InvalidParams(field, fmt.Sprintf(format, args...))
}
