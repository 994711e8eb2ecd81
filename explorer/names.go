package explorer

import (
	"slices"
	"strings"
)

// Prefix stands before every method's name. The bare name works too.
const Prefix = "ExplorerService."

// bareName returns a method's name without the prefix.
func bareName(method string) string { return strings.TrimPrefix(method, Prefix) }

// Methods of the API by their bare names.
var methodNames = []string{
	"register_node", "node_heartbeat", "node_heartbeats",
	"list_nodes", "get_node", "drain_node", "undrain_node", "label_node", "remove_node",
	"list_vms", "get_vm",
	"deploy_vm", "start_vm", "stop_vm", "restart_vm", "delete_vm", "vm_stats", "vm_logs", "vm_exec", "proxy",
	"masters", "stats", "diff", "end_preservation", "rpc.discover", "events",
}

func knownMethod(name string) bool { return slices.Contains(methodNames, bareName(name)) }

// ProxyMethods are the methods of a node's compute service that proxy may
// call, bare or behind "ComputeService.". Config.ProxyMethods adds to them.
var ProxyMethods = []string{
	"deploy_vm", "start_vm", "stop_vm", "restart_vm", "delete_vm",
	"list_vms", "get_vm", "vm_stats", "vm_logs", "vm_exec",
	"inject_ssh_keys", "deploy_webgateway",
	"rpc.discover", "health",
}
