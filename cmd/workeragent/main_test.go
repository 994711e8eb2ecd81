package main

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"workeragent": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata"})
}

// full is a disk that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// A command whose output nobody takes fails, and says that it is the output.
func TestStdoutThatTakesNothing(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"--version"}, {"--help"}, {"id", "--data-dir", t.TempDir()}} {
		var errs bytes.Buffer
		code := run(t.Context(), args, noEnv, full{}, &errs)
		if code != 1 || !strings.Contains(errs.String(), "cannot write to stdout: no space left on device") {
			t.Errorf("%v: exit code %d: %s", args, code, &errs)
		}
	}
}

func noEnv(string) (string, bool) { return "", false }

// The example config loads, names every key, and tells the defaults.
func TestExampleConfig(t *testing.T) {
	const file = "workeragent.example.yaml"
	p := newProgram(noEnv, new(bytes.Buffer), new(bytes.Buffer))
	cmd := p.command()
	cmd.SetArgs([]string{"version", "--config", file})
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	want := workeragent.DefaultConfig()
	want.Explorers = []string{"192.0.2.1", "tcp://explorer.example.org:9002"}
	want.AdvertiseCompute = "tcp://192.0.2.17:9003"
	want.Labels = map[string]string{"rack": "7", "owner": "team-blue"}
	want.Location = record.Location{Country: "Belgium", City: "Ghent", Latitude: 51.05, Longitude: 3.72}
	got, _ := json.MarshalIndent(p.cfg, "", " ")
	wanted, _ := json.MarshalIndent(want, "", " ")
	if !bytes.Equal(got, wanted) {
		t.Errorf("the example says %s\nwant %s", got, wanted)
	}
	if _, err := workeragent.New(p.cfg, nil); err != nil {
		t.Error(err)
	}

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range p.set.Keys() {
		if !strings.Contains(string(text), "\n"+key+":") {
			t.Errorf("the example lacks %s", key)
		}
	}
	for _, s := range p.settings() {
		if !strings.Contains(string(text), s.Env) {
			t.Errorf("the example lacks %s", s.Env)
		}
	}
}

// The program as it runs: it registers, tells its status, and stops in time.
func TestRun(t *testing.T) {
	beats := make(chan struct{}, 1)
	reports := make(chan record.Report, 1)
	mux := new(jsonrpc.Mux)
	mux.Handle("ExplorerService.register_node", func(_ context.Context, params json.RawMessage) (any, error) {
		var r record.Report
		if err := json.Unmarshal(params, &r); err != nil {
			return nil, err
		}
		reports <- r
		return map[string]any{"accepted": true, "heartbeat_interval_s": 10}, nil
	})
	mux.Handle("ExplorerService.node_heartbeat", func(context.Context, json.RawMessage) (any, error) {
		beats <- struct{}{}
		return map[string]any{"accepted": true, "heartbeat_interval_s": 10}, nil
	})
	explorer := httptest.NewServer(mux)
	defer explorer.Close()

	dir, err := os.MkdirTemp("", "agent") // short: a socket goes there
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	env := func(name string) (string, bool) {
		v, ok := map[string]string{
			"EXPLORER_ADDRESSES": strings.TrimPrefix(explorer.URL, "http://") + ", unix://" + filepath.Join(dir, "none.sock"),
			"NODE_ID":            "from-the-environment",
			"NODE_LABELS":        "rack=7",
			"AGENT_DATA_DIR":     filepath.Join(dir, "data"),
			"COMPUTE_ADDRESS":    "unix://" + filepath.Join(dir, "compute.sock"),
		}[name]
		return v, ok
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var log bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"--node-id", "from-a-flag", "--log-format", "json"}, env, new(bytes.Buffer), &log)
	}()

	r := receive(t, reports)
	if r.NodeID != "from-a-flag" || r.Labels["rack"] != "7" || r.Total.CRU < 1 || r.Total.MRU == 0 || len(r.Signature) == 0 {
		t.Errorf("report %+v", r)
	}
	receive(t, beats)

	var text, object bytes.Buffer
	if code := run(t.Context(), []string{"status"}, env, &text, os.Stderr); code != 0 {
		t.Errorf("status ended with %d", code)
	}
	for _, want := range []string{"from-a-flag", "12D3KooW", "compute.sock is absent", "cores", "tcp://127.0.0.1:", "none.sock"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("status does not say %q:\n%s", want, &text)
		}
	}
	if code := run(t.Context(), []string{"status", "--json"}, env, &object, os.Stderr); code != 0 {
		t.Errorf("status --json ended with %d", code)
	}
	var s workeragent.Status
	if err := json.Unmarshal(object.Bytes(), &s); err != nil || s.NodeID != "from-a-flag" || len(s.Explorers) != 2 {
		t.Errorf("status --json: %v\n%s", err, &object)
	}

	began := time.Now()
	cancel()
	if code := receive(t, ended); code != 0 || time.Since(began) > 2*time.Second {
		t.Errorf("ended with %d after %v", code, time.Since(began))
	}
	for line := range strings.Lines(log.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("log line is not JSON: %s", line)
		}
	}
}

func TestPrintStatus(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	beat := now.Add(-4 * time.Second)
	var out bytes.Buffer
	err := printStatus(&out, workeragent.Status{
		NodeID: "rack1", KeyID: "12D3KooWx", Version: "1.2.3", StartedAt: now.Add(-50 * time.Hour),
		Account: &record.Report{
			Profile: record.Profile{Total: record.Capacity{CRU: 8, MRU: 16 << 30, SRU: 1 << 40}, SlicesTotal: 3},
			Usage:   record.Usage{CRU: 1.25, MRU: 3 << 29, Slices: 1},
			VMs:     make([]record.VM, 2),
		},
		Compute: workeragent.ComputeStatus{Address: "unix:///x", State: workeragent.ComputeOK},
		Explorers: []workeragent.ExplorerStatus{
			{Address: "tcp://a:9002", Master: "12D3KooWa", Name: "alpha", State: workeragent.StateRegistered, Since: now.Add(-90 * time.Minute), LastBeat: &beat, LastError: "was refused"},
			{Address: "tcp://b:9002", State: workeragent.StateUnreachable, Since: now.Add(-65 * time.Second), LastError: "connection refused"},
			{Address: "http://c:9002", Master: "12D3KooWc", Learned: true, State: workeragent.StateStandby, Since: now.Add(-time.Second), LastError: "was refused"},
		},
	}, now)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		got = append(got, strings.TrimRight(line, " \n"))
	}
	want := []string{
		"node      rack1",
		"key       12D3KooWx",
		"version   1.2.3",
		"running   for 2d2h",
		"capacity  8 cores, 16.0 GiB memory, 1.0 TiB SSD, 0 B HDD, 3 slices",
		"in use    1.2 cores, 1.5 GiB memory, 0 B SSD, 0 B HDD, 1 slices",
		"VMs       2",
		"compute   unix:///x is ok",
		"",
		"EXPLORER       MASTER     FROM     STATE        FOR    LAST BEAT  ERROR",
		"tcp://a:9002   alpha      config   registered   1h30m  4s ago",
		"tcp://b:9002   ?          config   unreachable  1m5s   never      connection refused",
		"http://c:9002  12D3KooWc  learned  standby      1s     never",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func receive[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(20 * time.Second):
		t.Fatal("nothing came")
	}
	return v
}
