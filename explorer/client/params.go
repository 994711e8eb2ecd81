package client

import (
	"encoding/json"
	"fmt"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

const (
	slowest        = 120 * time.Second // what a master gives a node at most, but by proxy
	defaultProxied = 30 * time.Second
	maxProxied     = 300 * time.Second
)

// named returns the members of params, which are given by name or as the one
// object in a list. Their values stay as they are, byte for byte.
func named(method string, params any) (members map[string]json.RawMessage, err error) {
	body, err := jsonrpc.EncodeRequest(0, method, params)
	if err != nil {
		return nil, err
	}
	var request struct{ Params json.RawMessage }
	if err := json.Unmarshal(body, &request); err != nil {
		return nil, fmt.Errorf("encode params of %s: %w", method, err)
	}
	if request.Params == nil {
		return nil, nil
	}
	object, err := jsonrpc.Named(request.Params)
	if err != nil || json.Unmarshal(object, &members) != nil {
		// Of the service's own kind the error would look like an answer of it.
		return nil, fmt.Errorf("params of %s must be an object, or an array with one object in it", method)
	}
	return members, nil
}

// proxied returns the method that proxy is to call.
func proxied(params map[string]json.RawMessage) (method string) {
	_ = json.Unmarshal(params["method"], &method) // none: a master refuses that
	return method
}

// proxyTime returns how long a master lets the node take that is called by proxy.
func proxyTime(params map[string]json.RawMessage) time.Duration {
	var s float64
	if json.Unmarshal(params["timeout_s"], &s) != nil || !(s > 0) {
		return defaultProxied
	}
	return time.Duration(min(s, maxProxied.Seconds()) * float64(time.Second))
}
