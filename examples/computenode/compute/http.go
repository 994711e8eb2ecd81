package compute

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// Version is what /health and the discovery document say.
const Version = "0.1.0"

// namespace prefixes the methods, beside their bare names.
const namespace = "ComputeService."

//go:embed openrpc.json
var openRPC []byte

// Handler serves the service over HTTP: POST /rpc, GET /health, /openrpc.json,
// /.well-known/heroservice.json and /metrics, and the streams of VMs.
func (s *Service) Handler() http.Handler {
	rpc := new(jsonrpc.Mux)
	for name, h := range s.methods() {
		h = s.calls.count(name, h)
		rpc.Handle(name, h)
		rpc.Handle(namespace+name, h)
	}
	rpc.Handle("rpc.discover", func(context.Context, json.RawMessage) (any, error) {
		return json.RawMessage(openRPC), nil
	})

	mux := http.NewServeMux()
	mux.Handle("POST /rpc", rpc)
	mux.HandleFunc("GET /openrpc.json", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, openRPC)
	})
	mux.HandleFunc("GET /health", document(map[string]string{
		"status": "ok", "service": "computenode", "version": Version,
	}))
	mux.HandleFunc("GET /.well-known/heroservice.json", document(map[string]string{
		"protocol": "openrpc", "name": "computenode", "title": "Compute node", "version": Version,
		"description": "Runs virtual machines on one node.", "socket": "rpc",
	}))
	mux.HandleFunc("GET /metrics", s.serveMetrics)
	mux.HandleFunc("GET /vms/{sid}/logs", s.serveLogs)
	mux.HandleFunc("GET /vms/{sid}/console", s.serveConsole)
	return mux
}

// document serves a fixed JSON object.
func document(v any) http.HandlerFunc {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // a fixed value of ours that cannot be JSON
	}
	return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, data) }
}

func writeJSON(w http.ResponseWriter, data []byte) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data) // the client may be gone
}

// serveMetrics writes the Prometheus text format.
func (s *Service) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	fmt.Fprintln(w, "# HELP computenode_calls_total Calls by method and outcome.")
	fmt.Fprintln(w, "# TYPE computenode_calls_total counter")
	calls := s.calls.snapshot()
	for _, method := range slices.Sorted(maps.Keys(calls)) {
		fmt.Fprintf(w, "computenode_calls_total{method=%q,outcome=\"ok\"} %d\n", method, calls[method].OK)
		fmt.Fprintf(w, "computenode_calls_total{method=%q,outcome=\"error\"} %d\n", method, calls[method].Error)
	}
	fmt.Fprintln(w, "# HELP computenode_vms VMs by state.")
	fmt.Fprintln(w, "# TYPE computenode_vms gauge")
	byState := map[State]int{Starting: 0, Running: 0, Stopped: 0}
	for _, vm := range s.List("") {
		byState[vm.State]++
	}
	for _, state := range slices.Sorted(maps.Keys(byState)) {
		fmt.Fprintf(w, "computenode_vms{state=%q} %d\n", state, byState[state])
	}
}
