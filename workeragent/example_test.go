package workeragent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
	"forge.ourworld.tf/lhumina_code/hero_explorer/workeragent"
)

// A program that runs the agent beside something of its own. The explorer is a
// stand-in that stops the agent at its first heartbeat.
func ExampleRun() {
	ctx, stop := context.WithCancel(context.Background())
	explorer := new(jsonrpc.Mux)
	explorer.Handle("ExplorerService.register_node", func(_ context.Context, params json.RawMessage) (any, error) {
		var r record.Report
		if err := json.Unmarshal(params, &r); err != nil {
			return nil, err
		}
		fmt.Println("registers", r.NodeID, "with labels", r.Labels, "and real memory:", r.Total.MRU > 0)
		return map[string]any{"accepted": true, "heartbeat_interval_s": 10}, nil
	})
	explorer.Handle("ExplorerService.node_heartbeat", func(context.Context, json.RawMessage) (any, error) {
		fmt.Println("beats")
		stop()
		return map[string]any{"accepted": true, "heartbeat_interval_s": 10}, nil
	})
	server := httptest.NewServer(explorer)
	defer server.Close()
	dir, _ := os.MkdirTemp("", "agent")
	defer os.RemoveAll(dir)

	cfg := workeragent.DefaultConfig()
	cfg.Explorers = []string{server.URL}
	cfg.NodeID = "rack1-node7"
	cfg.Labels = map[string]string{"rack": "1"}
	cfg.DataDir = dir
	cfg.Compute = "" // nothing runs VMs here
	if err := workeragent.Run(ctx, cfg, nil); err != nil {
		fmt.Println(err)
	}
	// Output:
	// registers rack1-node7 with labels map[rack:1] and real memory: true
	// beats
}
