package explorer

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

func TestOpenRPCIsComplete(t *testing.T) {
	m := startMaster(t)
	var doc struct {
		OpenRPC string
		Info    struct{ Title, Version string }
		Methods []struct {
			Name, Summary string
			Params        []struct {
				Name     string
				Required bool
				Schema   map[string]any
			}
			Result struct {
				Name   string
				Schema map[string]any
			}
			Errors []map[string]string
		}
		Components struct {
			Schemas map[string]map[string]any
			Errors  map[string]struct {
				Code    int
				Message string
			}
		}
	}
	if err := json.Unmarshal(m.openRPC(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.OpenRPC != "1.3.2" || doc.Info.Version != "1.2.3" || doc.Info.Title == "" {
		t.Errorf("%+v", doc.Info)
	}
	var documented []string
	for _, d := range doc.Methods {
		documented = append(documented, bareName(d.Name))
		if d.Summary == "" || d.Result.Name == "" || d.Params == nil || len(d.Errors) < 4 {
			t.Errorf("%s is described badly: %+v", d.Name, d)
		}
		if d.Name != "rpc.discover" && !strings.HasPrefix(d.Name, Prefix) {
			t.Errorf("%s has no prefix", d.Name)
		}
		for _, p := range d.Params {
			if p.Schema == nil {
				t.Errorf("%s: param %s has no schema", d.Name, p.Name)
			}
			if !p.Required {
				continue
			}
			// What is said to be required is.
			if a := m.call(d.Name, `{}`); a.Error == nil || a.Error.Code != -32602 {
				t.Errorf("%s without %s: %+v", d.Name, p.Name, a)
			}
		}
	}
	if want := []string{
		"register_node", "node_heartbeat", "node_heartbeats",
		"list_nodes", "get_node", "drain_node", "undrain_node", "label_node", "remove_node",
		"list_vms", "get_vm",
		"deploy_vm", "start_vm", "stop_vm", "restart_vm", "delete_vm", "vm_stats", "vm_logs", "vm_exec", "proxy",
		"masters", "stats", "diff", "end_preservation", "rpc.discover", "events",
	}; !slices.Equal(documented, want) {
		t.Errorf("documented: %v\nmethods: %v", documented, want)
	}
	for _, name := range documented {
		for _, method := range []string{name, Prefix + name} {
			if a := m.call(method, `{"no_such_param":1}`); a.Error != nil && a.Error.Code == -32601 {
				t.Errorf("%s is documented and does not exist", method)
			}
		}
	}
	for code := -32010; code <= -32001; code++ {
		if doc.Components.Errors[errorName(code)].Code != code {
			t.Errorf("code %d is not described", code)
		}
	}
	for _, name := range []string{"Report", "Node", "VM", "Master", "Answer", "NodePage", "Stats", "Observer", "Conflict", "Event"} {
		if doc.Components.Schemas[name]["properties"] == nil && name != "Report" {
			t.Errorf("type %s is not described", name)
		}
	}
	var every any
	if err := json.Unmarshal(m.openRPC(), &every); err != nil {
		t.Fatal(err)
	}
	checkRefs(t, every, every)
}

// checkRefs fails where a $ref leads nowhere.
func checkRefs(t *testing.T, doc, v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			checkRefs(t, doc, e)
		}
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			at := doc
			for name := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
				at = at.(map[string]any)[name]
				if at == nil {
					t.Fatalf("%s leads nowhere", ref)
				}
			}
		}
		for _, e := range v {
			checkRefs(t, doc, e)
		}
	}
}
