package explorer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// How long a node may take to answer. Deploying fetches an image, and what runs
// by vm_exec takes what it takes.
const (
	callTimeout     = 30 * time.Second
	slowCallTimeout = 120 * time.Second
	maxCallTimeout  = 300 * time.Second
)

type (
	vmParams struct {
		SID     string `json:"sid" need:"true" doc:"The VM's sid."`
		NodeID  string `json:"node_id" doc:"The node that runs it, where the sid alone is not enough."`
		NodeSID string `json:"node_sid" doc:"Another name for node_id."`
	}
	// vmCallParams are those of a call that goes to the node. Whatever else is
	// given goes there too.
	vmCallParams struct {
		NodeID  string `json:"node_id" doc:"The node to call. May be left out where sid names a VM of one node only."`
		NodeSID string `json:"node_sid" doc:"Another name for node_id."`
		SID     string `json:"sid" doc:"The VM's sid, for calls about one."`
		OpID    string `json:"op_id" doc:"Names the operation: the node's agent carries it out once, however often it is asked, and gives the first answer. 1 to 128 printable ASCII characters."`
		OpAgain bool   `json:"op_again" doc:"The answer to a call with this op_id was lost. It is repeated only where the node's agent can tell whether it ran."`
	}
	proxyParams struct {
		NodeID   string          `json:"node_id" doc:"The node to call."`
		NodeSID  string          `json:"node_sid" doc:"Another name for node_id."`
		Method   string          `json:"method" need:"true" doc:"The method of the node's compute service; bare, or behind ComputeService."`
		Params   json.RawMessage `json:"params" doc:"Its params, by name or by position."`
		OpID     string          `json:"op_id" doc:"Names the operation: the node's agent carries it out once, however often it is asked, and gives the first answer. 1 to 128 printable ASCII characters."`
		OpAgain  bool            `json:"op_again" doc:"The answer to a call with this op_id was lost. It is repeated only where the node's agent can tell whether it ran."`
		TimeoutS float64         `json:"timeout_s" doc:"How many seconds the node may take: more than 0, at most 300; default 30."`
	}
)

// ProxyMethods are the methods of a node's compute service that proxy may
// call, bare or behind "ComputeService.". Config.ProxyMethods adds to them.
var ProxyMethods = []string{
	"deploy_vm", "start_vm", "stop_vm", "restart_vm", "delete_vm",
	"list_vms", "get_vm", "vm_stats", "vm_logs", "vm_exec",
	"inject_ssh_keys", "deploy_webgateway",
	"rpc.discover", "health",
}

// vmCall is a method that is forwarded under its own name.
type vmCall struct {
	name, summary string
	timeout       time.Duration
}

var vmCalls = []vmCall{
	{"deploy_vm", "Deploys a VM on a node.", slowCallTimeout},
	{"start_vm", "Starts a VM.", callTimeout},
	{"stop_vm", "Stops a VM.", callTimeout},
	{"restart_vm", "Restarts a VM.", callTimeout},
	{"delete_vm", "Deletes a VM.", callTimeout},
	{"vm_stats", "Returns the usage of a VM.", callTimeout},
	{"vm_logs", "Returns the log of a VM.", callTimeout},
	{"vm_exec", "Runs a command in a VM.", slowCallTimeout},
}

func (s *Server) vmMethods() []method {
	forwarded := []int{
		jsonrpc.CodeUnauthorized, jsonrpc.CodeNodeNotFound, jsonrpc.CodeNodeOffline, jsonrpc.CodeCannotReach,
		jsonrpc.CodeOutcomeUnknown, jsonrpc.CodeLimit, jsonrpc.CodeNotFound,
	}
	all := []method{
		takes(method{
			name:    "list_vms",
			summary: "Lists VMs as their nodes last reported them, or have answered through this master since, page by page. Secrets are not among it.",
			errors:  []int{jsonrpc.CodeUnknownCursor},
		}, s.listVMs),
		takes(method{
			name:    "get_vm",
			summary: "Returns a VM as its node last reported it, or has answered through this master since.",
			errors:  []int{jsonrpc.CodeNotFound},
		}, s.getVM),
	}
	for _, c := range vmCalls {
		all = append(all, method{
			name: c.name, access: accessVM, errors: forwarded,
			summary: c.summary + " The call goes to the node, without node_id, node_sid, op_id and op_again, and its answer, result or error, comes back as it is.",
			params:  reflect.TypeFor[vmCallParams](), open: true,
			handle: func(ctx context.Context, params json.RawMessage) (any, error) { return s.callVM(ctx, c, params) },
		})
	}
	proxy := takes(method{
		name: "proxy", access: accessVM, errors: append(forwarded, jsonrpc.CodeMethodNotAllowed),
		summary: "Calls a method of a node's compute service; its answer comes back as it is. Allowed are " + strings.Join(ProxyMethods, ", ") + ", and what the configuration adds.",
	}, s.proxy)
	proxy.result = nil
	return append(all, proxy)
}

func (s *Server) listVMs(_ context.Context, q crdtstore.VMQuery) (crdtstore.VMPage, error) {
	if err := validLimit(q.Limit); err != nil {
		return crdtstore.VMPage{}, err
	}
	if q.NodeID != "" {
		if err := record.ValidNodeID(q.NodeID); err != nil {
			return crdtstore.VMPage{}, err
		}
	}
	page, err := s.store.VMs(q)
	if page.VMs == nil {
		page.VMs = []crdtstore.VM{}
	}
	return page, err
}

func (s *Server) getVM(_ context.Context, p vmParams) (crdtstore.VM, error) {
	id, err := oneNode(p.NodeID, p.NodeSID)
	if err != nil {
		return crdtstore.VM{}, err
	}
	vm, err := s.store.VM(id, p.SID)
	if errors.Is(err, crdtstore.ErrNotFound) {
		err = notFound("VM " + p.SID)
	}
	return vm, err
}

// callVM forwards a call. What it does to the VM is not guessed: the node's
// next report says it. That a VM is there, or gone, is remembered until then.
func (s *Server) callVM(ctx context.Context, c vmCall, raw json.RawMessage) (any, error) {
	raw, err := jsonrpc.Named(raw)
	if err != nil {
		return nil, err
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(raw, &given); err != nil {
		return nil, badField("params", "must be an object")
	}
	var p vmCallParams
	for name, to := range map[string]*string{"node_id": &p.NodeID, "node_sid": &p.NodeSID, "sid": &p.SID, "op_id": &p.OpID} {
		if v, ok := given[name]; ok && json.Unmarshal(v, to) != nil {
			return nil, badField(name, "must be a string")
		}
	}
	if v, ok := given["op_again"]; ok && json.Unmarshal(v, &p.OpAgain) != nil {
		return nil, badField("op_again", "must be true or false")
	}
	if err := validOp(p.OpID, p.OpAgain); err != nil {
		return nil, err
	}
	node, err := s.nodeOf(p)
	if err != nil {
		return nil, err
	}
	for _, ours := range []string{"node_id", "node_sid", "op_id", "op_again"} {
		delete(given, ours)
	}
	return s.forward(ctx, call{node, c.name, jsonrpc.EncodeObject(given), c.timeout, p.OpID, p.OpAgain})
}

func (s *Server) proxy(ctx context.Context, p proxyParams) (any, error) {
	timeout := callTimeout
	if p.TimeoutS != 0 {
		timeout = time.Duration(p.TimeoutS * float64(time.Second))
		if !(p.TimeoutS > 0 && timeout <= maxCallTimeout) {
			return nil, badField("timeout_s", fmt.Sprintf("is %v; must be more than 0 and at most %v", p.TimeoutS, maxCallTimeout.Seconds()))
		}
	}
	if err := validOp(p.OpID, p.OpAgain); err != nil {
		return nil, err
	}
	switch c := firstByte(p.Params); c {
	case 0, '{', '[':
	case 'n':
		p.Params = nil
	default:
		return nil, badField("params", "must be an object or an array")
	}
	bare := strings.TrimPrefix(p.Method, "ComputeService.")
	if !slices.Contains(ProxyMethods, bare) && !slices.Contains(s.cfg.ProxyMethods, p.Method) {
		return nil, failure(jsonrpc.CodeMethodNotAllowed, "method "+p.Method+" may not be called by proxy",
			errorData{Hint: "allowed are " + strings.Join(append(slices.Clone(ProxyMethods), s.cfg.ProxyMethods...), ", "), Field: "method"})
	}
	node, err := s.nodeOf(vmCallParams{NodeID: p.NodeID, NodeSID: p.NodeSID})
	if err != nil {
		return nil, err
	}
	return s.forward(ctx, call{node, p.Method, p.Params, timeout, p.OpID, p.OpAgain})
}

// validOp checks the name of an operation.
func validOp(id string, again bool) error {
	switch {
	case id == "" && again:
		return badField("op_id", "is missing; op_again says that a call with that op_id was made before")
	case len(id) > 128:
		return badField("op_id", fmt.Sprintf("has %d bytes, at most 128 are allowed", len(id)))
	case strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }):
		return badField("op_id", "has characters that are not printable ASCII, or spaces")
	}
	return nil
}

// nodeOf finds the node that a call is for.
func (s *Server) nodeOf(p vmCallParams) (node crdtstore.Node, err error) {
	id, err := oneNode(p.NodeID, p.NodeSID)
	if err != nil {
		return node, err
	}
	if id == "" {
		if p.SID == "" {
			return node, badField("node_id", "is missing; say which node to call")
		}
		vm, err := s.store.VM("", p.SID)
		if errors.Is(err, crdtstore.ErrNotFound) {
			err = notFound("VM " + p.SID)
		}
		if err != nil {
			return node, err
		}
		id = vm.NodeID
	}
	if node, err = s.about(id)(s.store.Node(id)); err == nil && node.RemovedAt != nil {
		err = nodeNotFound(id)
	}
	return node, err
}

func oneNode(id, sid string) (string, error) {
	if id != "" && sid != "" && id != sid {
		return "", badField("node_sid", "names another node than node_id; give one of them")
	}
	if id == "" {
		id = sid
	}
	if id == "" {
		return "", nil
	}
	if err := record.ValidNodeID(id); err != nil {
		return "", err
	}
	return id, nil
}

// firstByte returns the first byte that is not space, 0 where there is none.
func firstByte(raw json.RawMessage) byte {
	if raw = bytes.TrimLeft(raw, " \t\r\n"); len(raw) == 0 {
		return 0
	}
	return raw[0]
}

// acknowledged has the store know of a VM that a node has made or deleted, before the node
// reports it. Nodes may answer with anything; what is not understood is not noted.
func (s *Server) acknowledged(c call, result json.RawMessage) {
	switch strings.TrimPrefix(c.method, "ComputeService.") {
	case "deploy_vm":
		var v struct {
			SID    string  `json:"sid"`
			Name   string  `json:"name"`
			State  string  `json:"state"`
			CPU    float64 `json:"cpu"`
			Memory float64 `json:"memory"`
			IP     string  `json:"ip"`
		}
		if json.Unmarshal(result, &v) == nil && v.SID != "" && v.State != crdtstore.VMDeleted {
			s.store.Acknowledged(crdtstore.VM{
				SID: v.SID, Name: v.Name, NodeID: c.node.NodeID, State: v.State, CPU: whole(v.CPU), Memory: whole(v.Memory), IP: v.IP,
			})
		}
	case "delete_vm":
		var given struct {
			SID string `json:"sid"`
		}
		if json.Unmarshal(c.params, &given) == nil && given.SID != "" {
			s.store.Acknowledged(crdtstore.VM{SID: given.SID, NodeID: c.node.NodeID, State: crdtstore.VMDeleted})
		}
	}
}

// whole makes a whole number of what a service calls one.
func whole(f float64) uint64 {
	if !(f > 0) { // also NaN
		return 0
	}
	return uint64(min(math.Ceil(f), 1<<62))
}
