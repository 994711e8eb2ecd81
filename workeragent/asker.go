package workeragent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/tunnel"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// errNoCalls: the master takes no calls over the edge. It has done nothing.
var errNoCalls = errors.New("this master takes calls over HTTP only")

// asker calls a master over the connection of tunnels.
type asker struct {
	master    *tunnel.Master
	onNoCalls func() // called when the master takes no calls this way; nil: there is no other way
	id        uint64
}

func (a *asker) Call(ctx context.Context, method string, params, result any) error {
	a.id++
	request, err := jsonrpc.EncodeRequest(a.id, method, params)
	if err != nil {
		return err
	}
	answer, err := a.master.Ask(ctx, request)
	if err != nil {
		return err
	}
	resp, err := jsonrpc.DecodeResponse(a.id, answer)
	if err != nil {
		return fmt.Errorf("answer of master %s: %w", a.master.ID(), err)
	}
	if resp.Error != nil {
		if resp.Error.Code == jsonrpc.CodeUnauthorized && a.onNoCalls != nil {
			a.onNoCalls()
			return errNoCalls
		}
		return resp.Error
	}
	return json.Unmarshal(resp.Result, result)
}

// Close leaves the connection to the tunnels.
func (a *asker) Close() {}
