package explorer_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer"
)

// A single master, asked for its nodes.
func Example() {
	dir, err := os.MkdirTemp("", "explorer")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	cfg := explorer.DefaultConfig()
	cfg.DataDir = filepath.Join(dir, "data")
	cfg.RPCSocket = filepath.Join(dir, "rpc.sock")
	cfg.RPCAddr, cfg.UIAddr = "127.0.0.1:0", ""
	server, err := explorer.New(cfg, nil)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	if err := server.Start(ctx); err != nil {
		panic(err)
	}
	defer server.Stop(ctx)

	answer, err := http.Post("http://"+server.RPCAddr().String()+"/rpc", "application/json",
		strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"list_nodes"}`))
	if err != nil {
		panic(err)
	}
	defer answer.Body.Close()
	body, _ := io.ReadAll(answer.Body)
	fmt.Println(string(body))
	// Output: {"jsonrpc":"2.0","result":{"nodes":[],"total":0},"id":1}
}

// Tokens are made beside a running master, which knows them at once.
func ExampleCreateToken() {
	dir, err := os.MkdirTemp("", "explorer")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	token, secret, err := explorer.CreateToken(dir, "ci")
	if err != nil {
		panic(err)
	}
	fmt.Println(token.Name, strings.HasPrefix(secret, "hxp_"))
	// Output: ci true
}
