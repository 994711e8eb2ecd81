package explorer

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// A VM can be called by its sid as soon as the caller knows it, and is not found any more
// when it was deleted, whichever way the node was called.
func TestDeployedVMIsFoundAtOnce(t *testing.T) {
	m := startReal(t, testConfig(t))
	_, addr := startNode(t, "tcp", func(w http.ResponseWriter, id, body json.RawMessage) {
		answer := `{"sid":"vm-1","name":"web","state":"starting","cpu":2,"memory":1073741824}`
		if strings.Contains(string(body), "delete_vm") {
			answer = `{"sid":"vm-1","state":"deleted"}`
		}
		result(answer)(w, id, body)
	})
	m.must(nil, "register_node", `{"node_id":"n1","socket_path":"`+addr+`"}`)
	for name, calls := range map[string][2][2]string{
		"by its own method": {{"deploy_vm", `{"node_id":"n1","name":"web"}`}, {"delete_vm", `{"sid":"vm-1"}`}},
		"by proxy": {
			{"proxy", `{"node_id":"n1","method":"ComputeService.deploy_vm","params":{"name":"web"}}`},
			{"proxy", `{"node_id":"n1","method":"delete_vm","params":{"sid":"vm-1"}}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m.must(nil, calls[0][0], calls[0][1])
			m.must(nil, "stop_vm", `{"sid":"vm-1"}`)
			var vm crdtstore.VM
			if m.must(&vm, "get_vm", `{"sid":"vm-1"}`); vm.NodeID != "n1" || vm.Name != "web" || vm.CPU != 2 || vm.Memory != 1<<30 {
				t.Errorf("get_vm has %+v", vm)
			}
			var page crdtstore.VMPage
			if m.must(&page, "list_vms", `{"q":"WEB"}`); page.Total != 1 {
				t.Errorf("list_vms has %+v", page)
			}
			m.must(nil, calls[1][0], calls[1][1])
			m.fails(jsonrpc.CodeNotFound, "", "get_vm", `{"sid":"vm-1"}`)
		})
	}
}
