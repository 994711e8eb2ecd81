package compute_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
)

func TestDiscovery(t *testing.T) {
	h := newService(t, compute.Config{}).Handler()
	type document struct {
		OpenRPC string
		Info    struct{ Version string }
		Methods []struct {
			Name   string
			Errors []struct {
				Ref string `json:"$ref"`
			}
		}
		Components struct{ Errors map[string]struct{ Code int } }
	}
	var doc, discovered document
	if err := json.Unmarshal([]byte(get(t, h, "/openrpc.json")), &doc); err != nil {
		t.Fatal(err)
	}
	if mustCall(t, h, "rpc.discover", `{}`, &discovered); !reflect.DeepEqual(doc, discovered) {
		t.Error("rpc.discover and /openrpc.json differ")
	}
	if doc.OpenRPC == "" || doc.Info.Version != compute.Version {
		t.Errorf("openrpc %q, version %q, want version %q", doc.OpenRPC, doc.Info.Version, compute.Version)
	}
	var names []string
	for _, m := range doc.Methods {
		names = append(names, m.Name)
		for _, e := range m.Errors {
			if _, ok := doc.Components.Errors[strings.TrimPrefix(e.Ref, "#/components/errors/")]; !ok {
				t.Errorf("%s refers to %s, which is not there", m.Name, e.Ref)
			}
		}
	}
	if want := compute.MethodNames(); !slices.Equal(slices.Sorted(slices.Values(names)), want) {
		t.Errorf("documented %q, served %q", names, want)
	}
	var codes []int
	for e := range maps.Values(doc.Components.Errors) {
		codes = append(codes, e.Code)
	}
	slices.Sort(codes)
	if want := []int{compute.CodeBusy, compute.CodeNotOffered, compute.CodeNotSaved, compute.CodeDriver, compute.CodeNoRoom, compute.CodeWrongState, compute.CodeVMNotFound}; !slices.Equal(codes, want) {
		t.Errorf("documented error codes %v, want %v", codes, want)
	}
}

func TestWellKnown(t *testing.T) {
	h := newService(t, compute.Config{}).Handler()
	for path, want := range map[string][]string{
		"/health":                       {"status", "service", "version"},
		"/.well-known/heroservice.json": {"protocol", "name", "title", "version", "description", "socket"},
	} {
		var got map[string]string
		if err := json.Unmarshal([]byte(get(t, h, path)), &got); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, field := range want {
			if got[field] == "" {
				t.Errorf("%s lacks %s: %v", path, field, got)
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	h := newService(t, compute.Config{}).Handler()
	mustCall(t, h, "deploy_vm", `{"name":"a"}`, nil)
	mustCall(t, h, "ComputeService.deploy_vm", `{"name":"b"}`, nil)
	call(t, h, "deploy_vm", `{}`, nil)
	text := get(t, h, "/metrics")
	for _, line := range []string{
		`computenode_calls_total{method="deploy_vm",outcome="ok"} 2`,
		`computenode_calls_total{method="deploy_vm",outcome="error"} 1`,
		`computenode_vms{state="running"} 2`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
}
