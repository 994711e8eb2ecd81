package compute

import (
	"errors"
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
	CodeNotOffered = -33006 // the driver has no such thing
	CodeBusy       = -33007 // as many streams as the service takes, or it ends
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

// NoRoom is the error of a node that cannot take another VM, for the reason
// given.
func NoRoom(reason string) error {
	return &jsonrpc.Error{Code: CodeNoRoom, Message: reason, Data: ErrorData{
		CodeName: "no_room", Retryable: true,
		Hint: "stop or delete a VM, or deploy on another node",
	}}
}

// NotOffered is the error of a driver that cannot do what is asked of it, with
// what to do instead.
func NotOffered(sid, problem, hint string) error {
	return &jsonrpc.Error{Code: CodeNotOffered, Message: problem, Data: ErrorData{
		CodeName: "not_offered", SID: sid, Hint: hint,
	}}
}

func errBusy(problem, hint string) error {
	return &jsonrpc.Error{Code: CodeBusy, Message: problem, Data: ErrorData{
		CodeName: "busy", Retryable: true, Hint: hint,
	}}
}

// errDriver is what the caller hears of an error of the driver.
func errDriver(sid string, err error) error {
	if own := (*jsonrpc.Error)(nil); errors.As(err, &own) {
		return own
	}
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
