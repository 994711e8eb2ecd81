package compute

import (
	"context"
	"encoding/json"
	"maps"
	"sync"

	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// CallCount counts the calls of one method by how they ended.
type CallCount struct {
	OK    uint64 `json:"ok"`
	Error uint64 `json:"error"`
}

// callCounts counts calls by method. A call that a caller repeated counts twice:
// this is how one sees whether a mutation ran more than once.
type callCounts struct {
	mu       sync.Mutex
	byMethod map[string]CallCount
}

// count wraps a handler.
func (c *callCounts) count(method string, h jsonrpc.Handler) jsonrpc.Handler {
	return func(ctx context.Context, params json.RawMessage) (any, error) {
		res, err := h(ctx, params)
		c.add(method, err)
		return res, err
	}
}

func (c *callCounts) add(method string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.byMethod == nil {
		c.byMethod = map[string]CallCount{}
	}
	n := c.byMethod[method]
	if err != nil {
		n.Error++
	} else {
		n.OK++
	}
	c.byMethod[method] = n
}

func (c *callCounts) snapshot() map[string]CallCount {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := maps.Clone(c.byMethod)
	if out == nil {
		out = map[string]CallCount{}
	}
	return out
}
