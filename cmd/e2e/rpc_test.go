//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// endpoint is a JSON-RPC service as a program in another language would call
// it: plain HTTP, on TCP or on a unix socket.
type endpoint struct {
	url  string
	http *http.Client
}

func tcpEndpoint(addr string) *endpoint {
	return newEndpoint("http://"+addr, func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	})
}

func unixEndpoint(path string) *endpoint {
	return newEndpoint("http://localhost", func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	})
}

func newEndpoint(url string, dial func(context.Context) (net.Conn, error)) *endpoint {
	return &endpoint{url: url, http: &http.Client{
		Timeout: 15 * time.Second,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		},
	}}
}

// rpcError is the error object of JSON-RPC.
type rpcError struct {
	Code    int             `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data"`
}

func (e *rpcError) Error() string {
	return fmt.Sprintf("%d %s %s", e.Code, e.Message, e.Data)
}

// response is the answer to one call, with the bytes of result and error as
// they came.
type response struct {
	JSONRPC string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  json.RawMessage `json:"result"`
	Error   json.RawMessage `json:"error"`
}

// post sends a body and returns status and body of the answer.
func (e *endpoint) post(path string, body []byte) (int, []byte, error) {
	res, err := e.http.Post(e.url+path, "application/json", bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// get fetches a path.
func (e *endpoint) get(path string) (int, []byte, error) {
	res, err := e.http.Get(e.url + path)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, answer, err
}

// raw calls a method and returns the answer undecoded.
func (e *endpoint) raw(method string, params any) (response, error) {
	body, err := json.Marshal(map[string]any{"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
	if err != nil {
		return response{}, err
	}
	status, answer, err := e.post("/rpc", body)
	if err != nil {
		return response{}, err
	}
	if status != http.StatusOK {
		return response{}, fmt.Errorf("%s: HTTP status %d: %s", method, status, answer)
	}
	var r response
	if err := json.Unmarshal(answer, &r); err != nil {
		return r, fmt.Errorf("%s: %w in %s", method, err, answer)
	}
	if r.JSONRPC != "2.0" || string(r.ID) != "1" || (r.Result == nil) == (r.Error == nil) {
		return r, fmt.Errorf("%s: not a JSON-RPC answer: %s", method, answer)
	}
	return r, nil
}

// call calls a method. An error of the service is an *rpcError.
func (e *endpoint) call(method string, params, result any) error {
	r, err := e.raw(method, params)
	if err != nil {
		return err
	}
	if r.Error != nil {
		failure := new(rpcError)
		if err := json.Unmarshal(r.Error, failure); err != nil {
			return err
		}
		return failure
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(r.Result, result)
}

// must calls a method that has to succeed.
func (e *endpoint) must(t *testing.T, method string, params, result any) {
	t.Helper()
	if err := e.call(method, params, result); err != nil {
		t.Fatalf("%s %v: %v", method, params, err)
	}
}

// obj is a JSON object to send.
type obj = map[string]any

// The types of the contract, as far as the tests look at them.
type (
	node struct {
		NodeID     string            `json:"node_id"`
		Boot       uint64            `json:"boot"`
		Seq        uint64            `json:"seq"`
		Hostname   string            `json:"hostname"`
		SocketPath string            `json:"socket_path"`
		Total      capacity          `json:"total"`
		Labels     map[string]string `json:"labels"`
		VMs        []vm              `json:"vms"`
		Usage      capacity          `json:"usage"`
		Status     string            `json:"status"`
		Drained    bool              `json:"drained"`
		RemovedAt  *time.Time        `json:"removed_at"`
		LastSeen   time.Time         `json:"last_seen"`
		SeenBy     []struct {
			Master string  `json:"master"`
			AgeS   float64 `json:"age_s"`
		} `json:"seen_by"`
		Tunnel []string `json:"tunnel"`
		Signed bool     `json:"signed"`
	}
	capacity struct {
		CRU float64 `json:"cru"`
		MRU uint64  `json:"mru"`
		SRU uint64  `json:"sru"`
		HRU uint64  `json:"hru"`
	}
	vm struct {
		SID    string `json:"sid"`
		Name   string `json:"name"`
		NodeID string `json:"node_id"`
		State  string `json:"state"`
		CPU    uint64 `json:"cpu"`
		Memory uint64 `json:"memory"`
	}
	masterInfo struct {
		ID        string   `json:"id"`
		Name      string   `json:"name"`
		Status    string   `json:"status"`
		Nodes     int      `json:"nodes"`
		Digest    string   `json:"digest"`
		InSync    bool     `json:"in_sync"`
		MeshAddrs []string `json:"mesh_addrs"`
		Cause     string   `json:"cause"`
		Reason    string   `json:"reason"`
	}
	masterList struct {
		Self    string       `json:"self"`
		Masters []masterInfo `json:"masters"`
	}
)
