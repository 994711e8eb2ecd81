package workeragent

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// An agent, its explorer and its compute service over real sockets: the explorer
// goes away and comes back on the same socket without its memory.
func TestOverHTTP(t *testing.T) {
	dir := shortTempDir(t)
	computeSock, explorerSock := filepath.Join(dir, "rpc.sock"), filepath.Join(dir, "explorer.sock")

	compute := new(jsonrpc.Mux)
	compute.Handle("list_vms", func(context.Context, json.RawMessage) (any, error) {
		return json.RawMessage(`[{"sid":"vm-1","name":"web","state":"running","cpu":2,"memory":4294967296}]`), nil
	})
	defer serveUnix(t, computeSock, compute)()

	reports, beats := make(chan record.Report), make(chan beat)
	explorer := func() (stop func()) {
		var known atomic.Bool
		mux := new(jsonrpc.Mux)
		mux.Handle("ExplorerService.register_node", func(ctx context.Context, params json.RawMessage) (any, error) {
			var r record.Report
			if err := json.Unmarshal(params, &r); err != nil {
				return nil, err
			}
			known.Store(true)
			select {
			case reports <- r:
			case <-ctx.Done():
			}
			return answer{Accepted: true, IntervalS: 0.01}, nil
		})
		mux.Handle("ExplorerService.node_heartbeat", func(ctx context.Context, params json.RawMessage) (any, error) {
			var b beat
			if err := jsonrpc.DecodeParams(params, &b); err != nil {
				return nil, err
			}
			select {
			case beats <- b:
			case <-ctx.Done():
			}
			return answer{Accepted: true, IntervalS: 0.01, Register: !known.Load()}, nil
		})
		return serveUnix(t, explorerSock, mux)
	}
	stop := explorer()

	cfg := DefaultConfig()
	cfg.Explorers = []string{"unix://" + explorerSock}
	cfg.Compute = "unix://" + computeSock
	cfg.DataDir = filepath.Join(dir, "data")
	a, err := New(cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(); err != nil {
		t.Fatal(err)
	}
	r := receive(t, reports)
	if len(r.VMs) != 1 || r.VMs[0].SID != "vm-1" || r.Total.CRU < 1 {
		t.Errorf("report %+v", r)
	}
	for range 3 {
		receive(t, beats)
	}
	status, err := FetchStatus(t.Context(), cfg.DataDir)
	if err != nil || status.Compute.State != ComputeOK || len(status.Account.VMs) != 1 || status.NodeID != r.NodeID {
		t.Errorf("status %+v, %v", status, err)
	}

	stop()
	defer explorer()()
	receive(t, beats) // on a new connection
	if again := receive(t, reports); again.Seq != r.Seq || string(again.Signature) != string(r.Signature) {
		t.Error("registered again with another account, though nothing has changed")
	}
	receive(t, beats)
	began := time.Now()
	if err := a.Stop(); err != nil || time.Since(began) > 2*time.Second {
		t.Errorf("stopped after %v: %v", time.Since(began), err)
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

func serveUnix(t *testing.T, path string, rpc http.Handler) (stop func()) {
	t.Helper()
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("POST /rpc", rpc)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() { _ = srv.Serve(ln) }()
	return func() { _ = srv.Close() }
}
