package workeragent

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

func TestDecodeVMs(t *testing.T) {
	long := strings.Repeat("ü", 200) // 400 bytes
	for _, c := range []struct {
		in   string
		want []record.VM
		odd  string
		err  bool
	}{
		{in: `[]`, want: []record.VM{}},
		{in: `null`, want: []record.VM{}},
		{in: ` {"vms":[]} `, want: []record.VM{}},
		{in: `[{"sid":"b","name":"n","state":"running","cpu":2,"memory":4294967296,"ip":"10.0.0.2"},{"sid":"a"}]`,
			want: []record.VM{{SID: "a"}, {SID: "b", Name: "n", State: "running", CPU: 2, Memory: 4294967296, IP: "10.0.0.2"}}},
		{in: `{"vms":[{"sid":"a","secret":"s3cret","node_id":"x","as_of":"y","image":{}}]}`, want: []record.VM{{SID: "a"}}},
		{in: `[{"sid":"a","ip":null,"cpu":0.5,"memory":-1}]`, want: []record.VM{{SID: "a", CPU: 1}}},
		{in: `[{"sid":"a","memory":1e300}]`, want: []record.VM{{SID: "a", Memory: 1 << 62}}},
		{in: `[{"sid":"a","name":"1"},{"sid":"a","name":"2"},{"name":"3"},7,{"sid":9}]`,
			want: []record.VM{{SID: "a", Name: "1"}}, odd: "4 without"},
		{in: `[{"sid":"` + long + `"}]`, want: []record.VM{}, odd: "1 without"},
		{in: `[{"sid":"a","name":"x` + long + `"}]`, want: []record.VM{{SID: "a", Name: "x" + long[:254]}}},
		{in: `{}`, err: true}, {in: `"x"`, err: true}, {in: `{"vms":3}`, err: true}, {in: `[`, err: true},
	} {
		got, odd, err := decodeVMs(json.RawMessage(c.in))
		if (err != nil) != c.err || !reflect.DeepEqual(got, c.want) || !strings.Contains(odd, c.odd) || (c.odd == "") != (odd == "") {
			t.Errorf("%s:\ngot %+v, %q, %v\nwant %+v, %q", c.in, got, odd, err, c.want, c.odd)
		}
	}

	var many []string
	for i := range record.MaxVMs + 7 {
		many = append(many, fmt.Sprintf(`{"sid":"%05d"}`, i))
	}
	got, odd, err := decodeVMs(json.RawMessage("[" + strings.Join(many, ",") + "]"))
	if len(got) != record.MaxVMs || !strings.Contains(odd, "7 beyond") || err != nil {
		t.Errorf("%d VMs, %q, %v", len(got), odd, err)
	}
	// Names as long as they may be come to more bytes than a node may have before their
	// number does. What is reported is what a master takes, and not one VM less.
	all := make([]record.VM, record.MaxVMs)
	for i := range all {
		all[i] = record.VM{SID: fmt.Sprintf("%0*d", len(clip(long)), i), Name: clip(long), State: clip(long), IP: clip(long)}
	}
	in, _ := json.Marshal(all)
	got, odd, err = decodeVMs(in)
	if left := len(all) - len(got); err != nil || left == 0 || !strings.HasPrefix(odd, fmt.Sprintf("%d beyond", left)) {
		t.Fatalf("%d VMs, %q, %v", len(got), odd, err)
	}
	if r := (record.Report{NodeID: "n", VMs: got}); r.Validate() != nil {
		t.Error(r.Validate())
	}
	if r := (record.Report{NodeID: "n", VMs: all[:len(got)+1]}); r.Validate() == nil {
		t.Errorf("%d VMs would be taken, %d are reported", len(got)+1, len(got))
	}
	if n := count(math.NaN()); n != 0 {
		t.Errorf("NaN counts %d", n)
	}
}

// Whatever a compute service says, a report with it is one that a master takes.
func FuzzDecodeVMs(f *testing.F) {
	f.Add([]byte(`[{"sid":"a","name":"b","state":"running","cpu":1,"memory":1024,"ip":"::1"}]`))
	f.Add([]byte(`{"vms":[{"sid":"\ud800"},{"SID":"b"},null]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		vms, _, err := decodeVMs(in)
		if err != nil {
			return
		}
		r := record.Report{NodeID: "n", VMs: vms}
		if err := r.Validate(); err != nil {
			t.Errorf("%q: %v", in, err)
		}
	})
}

func TestWatchesVMs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const list = `[{"sid":"vm-1","name":"web","state":"running","cpu":1,"memory":1024,"secret":"s3cret"}]`
		answers := func(list string) func(call) (any, error) {
			return func(c call) (any, error) {
				if c.method != "list_vms" {
					t.Errorf("called %s", c.method)
				}
				return json.RawMessage(list), nil
			}
		}
		gone := func(call) (any, error) { return nil, errors.New("connect: no such file or directory") }
		compute, x := explorerThat(t, gone), explorerThat(t, nil)
		cfg := testConfig(t, "a:1")
		cfg.Compute = "compute:1"
		s := startAgent(t, cfg, map[string]*fakeService{"a:1": x, "compute": compute})
		state := func(want string) {
			t.Helper()
			if got := s.agent.Status().Compute; got.State != want || (got.LastError == "") != (want == ComputeOK) {
				t.Errorf("compute service is %+v, want %s", got, want)
			}
		}
		var trouble []string // of the last report
		vms := func() []record.VM {
			var last []record.VM
			synctest.Wait()
			for _, c := range x.take() {
				if c.method == "register_node" {
					last, trouble = c.report.VMs, c.report.Trouble
				}
			}
			return last
		}

		time.Sleep(time.Minute)
		state(ComputeAbsent)
		if got := vms(); got == nil || len(got) != 0 {
			t.Errorf("without a compute service the VMs are %#v, want none", got)
		}
		if n := len(compute.take()); n < 26 || n > 34 {
			t.Errorf("looked %d times in a minute, want about every 2s", n)
		}

		compute.set(answers(list))
		time.Sleep(2300 * time.Millisecond)
		state(ComputeOK)
		if got := vms(); len(got) != 1 || got[0].SID != "vm-1" || got[0].State != "running" {
			t.Errorf("VMs %+v", got)
		}
		if text, _ := json.Marshal(s.agent.Status()); strings.Contains(string(text), "s3cret") {
			t.Errorf("the secret is in %s", text)
		}

		compute.set(answers(strings.Replace(list, "running", "stopped", 1)))
		time.Sleep(2300 * time.Millisecond)
		if got := vms(); len(got) != 1 || got[0].State != "stopped" {
			t.Errorf("VMs %+v", got)
		}

		compute.set(gone)
		time.Sleep(25 * time.Second)
		state(ComputeLost)
		if got := vms(); got != nil {
			t.Errorf("new account %+v within the grace time", got)
		}
		time.Sleep(10 * time.Second)
		state(ComputeUnknown)
		if got := vms(); len(got) != 1 || got[0].SID != "vm-1" || got[0].State != "unknown" {
			t.Errorf("VMs %+v after the grace time", got)
		}
		time.Sleep(time.Hour)
		if got := vms(); got != nil {
			t.Errorf("new account %+v though nothing has changed", got)
		}
		compute.set(answers(`{"vms":[]}`))
		time.Sleep(2300 * time.Millisecond)
		state(ComputeOK)
		if got := vms(); got == nil || len(got) != 0 {
			t.Errorf("VMs %#v, want none", got)
		}
		compute.set(answers(`[{"name":"has no sid"},{"sid":"vm-2"}]`))
		time.Sleep(2300 * time.Millisecond)
		if got := vms(); len(got) != 1 || len(trouble) != 1 || !strings.Contains(trouble[0], "cannot be listed: 1 without") {
			t.Errorf("VMs %+v, trouble %q", got, trouble)
		}
		compute.set(answers(`[{"sid":"vm-2"}]`))
		time.Sleep(2300 * time.Millisecond)
		if vms(); len(trouble) != 0 {
			t.Errorf("trouble is %q after it has ended", trouble)
		}
		if n := len(s.log.lines("compute=")); n != 5 {
			t.Errorf("%d lines in the log, want one for each change", n)
		}
	})
}

// What an operation has changed is reported at once, not when it is time to look again.
func TestLooksAfterAnOperation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		compute := explorerThat(t, func(call) (any, error) { return []any{}, nil })
		cfg := testConfig(t, "a:1")
		cfg.Compute, cfg.ComputePoll = "compute:1", time.Hour
		s := startAgent(t, cfg, map[string]*fakeService{"a:1": explorerThat(t, nil), "compute": compute})
		time.Sleep(time.Minute)
		compute.take()
		for range 3 {
			signal(s.agent.running.Load().carriedOut)
			synctest.Wait()
			if n := len(compute.take()); n != 1 {
				t.Errorf("looked %d times after an operation", n)
			}
		}
	})
}

func TestFallsBackToTheOtherName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		knows := func(method string) func(call) (any, error) {
			return func(c call) (any, error) {
				if c.method != method {
					return nil, &jsonrpc.Error{Code: jsonrpc.CodeMethodNotFound}
				}
				return []any{}, nil
			}
		}
		const known = "ComputeService.list_vms"
		compute := explorerThat(t, knows(known))
		cfg := testConfig(t, "a:1")
		cfg.Compute = "compute:1"
		s := startAgent(t, cfg, map[string]*fakeService{"a:1": explorerThat(t, nil), "compute": compute})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		wantMethods(t, compute.take(), "list_vms", known, known)

		compute.set(knows("list_vms")) // it was updated
		time.Sleep(2200 * time.Millisecond)
		synctest.Wait()
		wantMethods(t, compute.take(), known, "list_vms")

		compute.set(knows("neither"))
		time.Sleep(2200 * time.Millisecond)
		synctest.Wait()
		wantMethods(t, compute.take(), "list_vms", known)
		if got := s.agent.Status().Compute.State; got != ComputeLost {
			t.Errorf("compute service is %s", got)
		}
	})
}
