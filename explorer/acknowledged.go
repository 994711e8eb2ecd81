package explorer

import (
	"encoding/json"
	"math"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
)

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
