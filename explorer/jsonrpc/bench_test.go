package jsonrpc_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// beat is the most frequent request that a master gets.
type beat struct {
	NodeID string `json:"node_id"`
	Boot   uint64 `json:"boot"`
	Seq    uint64 `json:"seq"`
	Usage  *struct {
		CRU    float64 `json:"cru"`
		MRU    uint64  `json:"mru"`
		SRU    uint64  `json:"sru"`
		HRU    uint64  `json:"hru"`
		Slices uint64  `json:"slices"`
	} `json:"usage"`
	UptimeS *uint64 `json:"uptime_s"`
}

type beatAnswer struct {
	Accepted  bool    `json:"accepted"`
	IntervalS float64 `json:"heartbeat_interval_s"`
	OfflineS  float64 `json:"offline_after_s"`
}

var beatBody = []byte(`{"jsonrpc":"2.0","method":"ExplorerService.node_heartbeat","params":{"node_id":"12D3KooWEXCKXKAYdjqgve1ThzNSGpGfBCZny9QfXRBeuanwP6Zn","boot":1763000000,"seq":4711,"usage":{"cru":3.5,"mru":17179869184,"sru":107374182400,"hru":0,"slices":4},"uptime_s":86400},"id":4711}`)

func beatMux() http.Handler {
	m := new(jsonrpc.Mux)
	m.Handle("ExplorerService.node_heartbeat", func(_ context.Context, params json.RawMessage) (any, error) {
		var b beat
		if err := jsonrpc.DecodeParams(params, &b); err != nil {
			return nil, err
		}
		return beatAnswer{true, 10, 30}, nil
	})
	return m
}

// bare is what net/http and encoding/json can do with nothing between them: no
// checks, no other method, no other shape of a request.
func bare(w http.ResponseWriter, r *http.Request) {
	var req struct {
		Params beat            `json:"params"`
		ID     json.RawMessage `json:"id"`
	}
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(struct {
		Version string          `json:"jsonrpc"`
		Result  beatAnswer      `json:"result"`
		ID      json.RawMessage `json:"id"`
	}{"2.0", beatAnswer{true, 10, 30}, req.ID})
}

// BenchmarkHandler is one heartbeat through the handlers alone.
func BenchmarkHandler(b *testing.B) {
	for _, h := range []struct {
		name string
		http.Handler
	}{{"mux", beatMux()}, {"bare", http.HandlerFunc(bare)}} {
		b.Run(h.name, func(b *testing.B) {
			b.ReportAllocs()
			w := &discard{h: http.Header{}}
			body := bytes.NewReader(beatBody)
			r := httptest.NewRequest(http.MethodPost, "/rpc", body)
			for b.Loop() {
				body.Reset(beatBody)
				h.ServeHTTP(w, r)
			}
		})
	}
}

// BenchmarkHTTP is one heartbeat over a connection that is kept alive.
func BenchmarkHTTP(b *testing.B) {
	for _, h := range []struct {
		name string
		http.Handler
	}{{"mux", beatMux()}, {"bare", http.HandlerFunc(bare)}} {
		b.Run(h.name, func(b *testing.B) {
			b.ReportAllocs()
			srv := httptest.NewServer(h)
			defer srv.Close()
			for b.Loop() {
				resp, err := srv.Client().Post(srv.URL, "application/json", bytes.NewReader(beatBody))
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
		})
	}
}

type discard struct{ h http.Header }

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}
