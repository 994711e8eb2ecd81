package compute_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/examples/computenode/compute"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

func Example() {
	ctx := context.Background()
	svc, err := compute.New(compute.Config{})
	if err != nil {
		panic(err)
	}
	vm, err := svc.Deploy(ctx, compute.Deployment{Name: "web", Image: "debian-13", CPU: 2, Memory: 1 << 30, Secret: "sesame-3"})
	if err != nil {
		panic(err)
	}
	vm, err = svc.Stop(ctx, vm.SID, "sesame-3")
	fmt.Println(vm.Name, vm.State, err)
	_, err = svc.Start(ctx, vm.SID, "a guess")
	fmt.Println(err != nil)
	// Output:
	// web stopped <nil>
	// true
}

func TestLifeOfAVM(t *testing.T) {
	h := newService(t, compute.Config{}).Handler()
	var vm compute.VM
	mustCall(t, h, "deploy_vm", `{"name":"web","cpu_count":2,"memory_mb":512,"slice_sid":"sl-1","secret":"sesame-3"}`, &vm)
	if vm.SID == "" || vm.Name != "web" || vm.State != compute.Running || vm.CPU != 2 || vm.Memory != 512<<20 ||
		vm.IP == "" || vm.Image == "" || vm.SliceSID != "sl-1" {
		t.Errorf("deployed %+v", vm)
	}
	one := fmt.Sprintf(`{"sid":%q,"secret":"sesame-3"}`, vm.SID)

	for _, step := range []struct {
		method string
		want   compute.State
	}{
		{"get_vm", compute.Running},
		{"start_vm", compute.Running}, // is left as it is
		{"stop_vm", compute.Stopped},
		{"stop_vm", compute.Stopped},
		{"ComputeService.get_vm", compute.Stopped},
		{"ComputeService.start_vm", compute.Running},
		{"restart_vm", compute.Running},
		{"delete_vm", compute.Deleted},
	} {
		var got compute.VM
		mustCall(t, h, step.method, one, &got)
		if got.State != step.want || got.SID != vm.SID || got.IP != vm.IP {
			t.Errorf("%s: %+v, want state %s", step.method, got, step.want)
		}
	}
	if e := call(t, h, "get_vm", one, nil); e == nil || e.Code != compute.CodeVMNotFound {
		t.Errorf("get_vm after delete_vm: %+v", e)
	}
	var list []compute.Summary
	if mustCall(t, h, "list_vms", `{}`, &list); len(list) != 0 {
		t.Errorf("listed after delete_vm: %+v", list)
	}
}

func TestInsideAVM(t *testing.T) {
	h := newService(t, compute.Config{}).Handler()
	var vm compute.VM
	mustCall(t, h, "deploy_vm", `{"name":"web","memory":1073741824}`, &vm)
	one := fmt.Sprintf(`"sid":%q`, vm.SID)

	var res compute.ExecResult
	mustCall(t, h, "vm_exec", `{`+one+`,"command":["echo","a  b"]}`, &res)
	if res.Stdout != "a  b\n" || res.ExitCode != 0 {
		t.Errorf("echo: %+v", res)
	}
	mustCall(t, h, "vm_exec", `{`+one+`,"command":"rm -rf /"}`, &res)
	if res.ExitCode != 127 {
		t.Errorf("an unknown command: %+v", res)
	}

	var logs struct{ Lines []string }
	mustCall(t, h, "vm_logs", `{`+one+`,"lines":2}`, &logs)
	if len(logs.Lines) != 2 || !strings.HasSuffix(logs.Lines[1], `exec "rm"`) {
		t.Errorf("logs: %q", logs.Lines)
	}
	var st struct {
		State  compute.State
		Memory uint64
		Used   uint64 `json:"memory_used"`
	}
	mustCall(t, h, "vm_stats", `{`+one+`}`, &st)
	if st.State != compute.Running || st.Memory != 1<<30 || st.Used == 0 {
		t.Errorf("stats: %+v", st)
	}

	mustCall(t, h, "stop_vm", `{`+one+`}`, nil)
	e := call(t, h, "vm_exec", `{`+one+`,"command":"true"}`, nil)
	if e == nil || e.Code != compute.CodeWrongState {
		t.Fatalf("vm_exec on a stopped VM: %+v", e)
	}
	var data compute.ErrorData
	if err := json.Unmarshal(e.Data, &data); err != nil || data.CodeName != "wrong_state" || data.SID != vm.SID ||
		data.State != compute.Stopped || data.Hint == "" {
		t.Errorf("its data: %+v, %v", data, err)
	}
}

// Whoever guesses a secret must not learn even that the VM exists.
func TestWrongSecretLooksLikeNoVM(t *testing.T) {
	h := newService(t, compute.Config{}).Handler()
	var vm compute.VM
	mustCall(t, h, "deploy_vm", `{"name":"web","secret":"right"}`, &vm)

	for _, method := range []string{"start_vm", "stop_vm", "restart_vm", "delete_vm", "get_vm", "vm_stats", "vm_logs", "vm_exec"} {
		more := ""
		if method == "vm_exec" {
			more = `,"command":"true"`
		}
		for _, secret := range []string{`"wrong"`, `""`, `"righ"`, `"right "`} {
			wrong := call(t, h, method, fmt.Sprintf(`{"sid":%q,"secret":%s%s}`, vm.SID, secret, more), nil)
			none := call(t, h, method, fmt.Sprintf(`{"sid":"vm-none","secret":%s%s}`, secret, more), nil)
			if wrong == nil || none == nil {
				t.Fatalf("%s with secret %s: %v, %v", method, secret, wrong, none)
			}
			a, _ := json.Marshal(wrong)
			b, _ := json.Marshal(none)
			if strings.ReplaceAll(string(a), vm.SID, "vm-none") != string(b) {
				t.Errorf("%s tells a wrong secret from no VM:\n%s\n%s", method, a, b)
			}
		}
	}
	mustCall(t, h, "get_vm", fmt.Sprintf(`{"sid":%q,"secret":"right"}`, vm.SID), &vm)
	if vm.State != compute.Running {
		t.Errorf("a call with a wrong secret changed the VM: %+v", vm)
	}
}

func TestListVMs(t *testing.T) {
	h := newService(t, compute.Config{}).Handler()
	for _, secret := range []string{"a", "b", ""} {
		mustCall(t, h, "deploy_vm", fmt.Sprintf(`{"name":"of-%s","secret":%q}`, secret, secret), nil)
	}
	names := func(params string) string {
		var list []map[string]any
		mustCall(t, h, "list_vms", params, &list)
		var out []string
		for _, vm := range list {
			for field := range vm {
				if !strings.Contains(" sid name state cpu memory ip ", " "+field+" ") {
					t.Errorf("the list shows the field %q", field)
				}
			}
			out = append(out, vm["name"].(string))
		}
		return fmt.Sprint(len(out), strings.Contains(fmt.Sprint(out), "of-a"), strings.Contains(fmt.Sprint(out), "of-b"))
	}
	for params, want := range map[string]string{
		`{}`:             "3 true true",
		`{"secret":""}`:  "3 true true",
		`{"secret":"a"}`: "2 true false", // and the one that nothing protects
		`{"secret":"x"}`: "1 false false",
	} {
		if got := names(params); got != want {
			t.Errorf("list_vms %s: %s, want %s", params, got, want)
		}
	}
}

func TestBadParamsNameTheField(t *testing.T) {
	h := newService(t, compute.Config{}).Handler()
	long := strings.Repeat("x", 300)
	for _, tt := range []struct{ method, params, field string }{
		{"deploy_vm", `{}`, "name"},
		{"deploy_vm", `{"name":"` + long + `"}`, "name"},
		{"deploy_vm", `{"name":7}`, "name"},
		{"deploy_vm", `{"name":"a","secret":"` + long + `"}`, "secret"},
		{"deploy_vm", `{"name":"a","cpu":0}`, "cpu"},
		{"deploy_vm", `{"name":"a","cpu_count":5000}`, "cpu_count"},
		{"deploy_vm", `{"name":"a","cpu":1,"cpu_count":1}`, "cpu_count"},
		{"deploy_vm", `{"name":"a","memory":5}`, "memory"},
		{"deploy_vm", `{"name":"a","memory_mb":17592186044417}`, "memory_mb"},
		{"deploy_vm", `{"name":"a","memroy":5}`, "memroy"},
		{"start_vm", `{"secret":"x"}`, "sid"},
		{"vm_logs", `{"sid":"x","lines":0}`, "lines"},
		{"vm_logs", `{"sid":"x","lines":100000}`, "lines"},
		{"vm_exec", `{"sid":"x"}`, "command"},
		{"vm_exec", `{"sid":"x","command":[]}`, "command"},
		{"vm_exec", `{"sid":"x","command":[` + strings.Repeat(`"a",`, 300) + `"a"]}`, "command"},
	} {
		e := call(t, h, tt.method, tt.params, nil)
		if e == nil || e.Code != jsonrpc.CodeInvalidParams {
			t.Errorf("%s %.60s: %+v, want %d", tt.method, tt.params, e, jsonrpc.CodeInvalidParams)
			continue
		}
		if !strings.Contains(string(e.Data), `"`+tt.field+`"`) {
			t.Errorf("%s %.60s: data %s does not name %s", tt.method, tt.params, e.Data, tt.field)
		}
	}
	var list []compute.Summary
	if mustCall(t, h, "list_vms", `{}`, &list); len(list) != 0 {
		t.Errorf("bad calls left VMs behind: %+v", list)
	}
}

func TestNoRoom(t *testing.T) {
	s := newService(t, compute.Config{})
	for range compute.MaxVMs {
		if _, err := s.Deploy(t.Context(), compute.Deployment{Name: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Deploy(t.Context(), compute.Deployment{Name: "a"})
	var e *jsonrpc.Error
	if !errors.As(err, &e) || e.Code != compute.CodeNoRoom {
		t.Errorf("one too many: %v", err)
	}
}

func TestRestartKeepsVMs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vms.json")
	h := newService(t, compute.Config{StatePath: path}).Handler()
	var runs, stopped, gone compute.VM
	mustCall(t, h, "deploy_vm", `{"name":"runs","secret":"sesame-3"}`, &runs)
	mustCall(t, h, "deploy_vm", `{"name":"stopped"}`, &stopped)
	mustCall(t, h, "stop_vm", fmt.Sprintf(`{"sid":%q}`, stopped.SID), &stopped)
	mustCall(t, h, "deploy_vm", `{"name":"gone"}`, &gone)
	mustCall(t, h, "delete_vm", fmt.Sprintf(`{"sid":%q}`, gone.SID), nil)

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "sesame") {
		t.Errorf("the state file shows a secret:\n%s", data)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the state file: %v, %v", info.Mode(), err)
	}

	h = newService(t, compute.Config{StatePath: path}).Handler()
	var got compute.VM
	mustCall(t, h, "get_vm", fmt.Sprintf(`{"sid":%q,"secret":"sesame-3"}`, runs.SID), &got)
	if got != runs {
		t.Errorf("after the restart %+v, before %+v", got, runs)
	}
	if e := call(t, h, "get_vm", fmt.Sprintf(`{"sid":%q,"secret":"other"}`, runs.SID), nil); e == nil {
		t.Error("the secret was lost in the restart")
	}
	mustCall(t, h, "get_vm", fmt.Sprintf(`{"sid":%q}`, stopped.SID), &got)
	if got != stopped {
		t.Errorf("after the restart %+v, before %+v", got, stopped)
	}
	var list []compute.Summary
	if mustCall(t, h, "list_vms", `{}`, &list); len(list) != 2 {
		t.Errorf("after the restart: %+v", list)
	}
}

func TestBadStateFile(t *testing.T) {
	for name, content := range map[string]string{
		"cut off": `{"version":1,"vms":[{"sid":`,
		"newer":   `{"version":99,"vms":[]}`,
	} {
		path := filepath.Join(t.TempDir(), "vms.json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := compute.New(compute.Config{StatePath: path}); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: error %v, want one that names the file", name, err)
		}
	}
}

// brittle is a driver that fails on demand.
type brittle struct {
	compute.Driver
	mu  sync.Mutex
	err error
}

func (d *brittle) breakWith(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

func (d *brittle) Start(ctx context.Context, vm compute.VM) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err != nil {
		return "", d.err
	}
	return d.Driver.Start(ctx, vm)
}

func TestDriverFails(t *testing.T) {
	d := &brittle{Driver: compute.NewMemoryDriver()}
	h := newService(t, compute.Config{Driver: d}).Handler()
	var vm compute.VM
	mustCall(t, h, "deploy_vm", `{"name":"web"}`, &vm)
	one := fmt.Sprintf(`{"sid":%q}`, vm.SID)

	d.breakWith(errors.New("no memory left"))
	if e := call(t, h, "deploy_vm", `{"name":"other"}`, nil); e == nil || e.Code != compute.CodeDriver || !strings.Contains(e.Message, "no memory left") {
		t.Errorf("deploy_vm: %+v", e)
	}
	if e := call(t, h, "restart_vm", one, nil); e == nil || e.Code != compute.CodeDriver {
		t.Errorf("restart_vm: %+v", e)
	}
	var list []compute.Summary
	mustCall(t, h, "list_vms", `{}`, &list)
	if len(list) != 1 || list[0].State != compute.Stopped {
		t.Errorf("listed %+v, want the first VM, stopped", list)
	}
	d.breakWith(nil)
	mustCall(t, h, "start_vm", one, &vm)
	if vm.State != compute.Running {
		t.Errorf("started %+v", vm)
	}
}

// Many callers at once: nothing is lost, nothing runs twice, and the file holds
// what was acknowledged.
func TestConcurrentCalls(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vms.json")
	s := newService(t, compute.Config{StatePath: path})
	h := s.Handler()
	const callers, rounds = 8, 6
	shared, err := s.Deploy(t.Context(), compute.Deployment{Name: "shared"})
	if err != nil {
		t.Fatal(err)
	}
	one := fmt.Sprintf(`{"sid":%q}`, shared.SID)
	must := func(method, params string, result any) {
		if e := call(t, h, method, params, result); e != nil {
			t.Errorf("%s %s: %+v", method, params, *e)
		}
	}
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for r := range rounds {
				var vm compute.VM
				must("deploy_vm", fmt.Sprintf(`{"name":"vm-%d-%d","secret":"s"}`, c, r), &vm)
				mine := fmt.Sprintf(`{"sid":%q,"secret":"s"}`, vm.SID)
				must("stop_vm", mine, nil)
				must("restart_vm", one, nil)
				must("list_vms", `{}`, nil)
				if r%2 == 0 {
					must("delete_vm", mine, nil)
				}
			}
		})
	}
	wg.Wait()

	const left = 1 + callers*rounds/2
	if got := len(s.List("")); got != left {
		t.Errorf("%d VMs are left, want %d", got, left)
	}
	if got := len(newService(t, compute.Config{StatePath: path}).List("")); got != left {
		t.Errorf("%d VMs are in the file, want %d", got, left)
	}
	var calls map[string]compute.CallCount
	mustCall(t, h, "calls", `{}`, &calls)
	for method, want := range map[string]uint64{
		"deploy_vm": callers * rounds, "restart_vm": callers * rounds, "delete_vm": callers * rounds / 2,
	} {
		if got := calls[method]; got.OK != want || got.Error != 0 {
			t.Errorf("calls of %s: %+v, want %d", method, got, want)
		}
	}

	// Of many that delete one VM, one succeeds.
	errs := make(chan *rpcError, callers)
	for range callers {
		wg.Go(func() { errs <- call(t, h, "delete_vm", one, nil) })
	}
	wg.Wait()
	close(errs)
	ok := 0
	for e := range errs {
		if e == nil {
			ok++
		} else if e.Code != compute.CodeVMNotFound {
			t.Errorf("delete_vm: %+v", e)
		}
	}
	if ok != 1 {
		t.Errorf("%d of the deletes succeeded, want 1", ok)
	}
}
