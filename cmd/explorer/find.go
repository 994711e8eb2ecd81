package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/client"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// maxFindPages bounds the VMs or nodes that are looked through, a thousand a page.
const maxFindPages = 10

// findVM finds a VM by its sid, or else by a name that one VM has, or else by the beginning
// of one sid. node may be empty: of all nodes. raw is what the master said of it.
//
// With whole set the beginning of a sid is not enough: what deletes a VM must not take the
// next one that begins alike for one that is gone already.
func (r *remote) findVM(ctx context.Context, c *client.Client, node, what string, whole bool) (vm crdtstore.VM, raw json.RawMessage, err error) {
	params := map[string]any{"sid": what}
	query := map[string]any{"q": what, "limit": pageSize}
	if node != "" {
		params["node_id"], query["node_id"] = node, node
	}
	raw, err = r.callOn(ctx, c, "get_vm", params)
	if err == nil {
		return vm, raw, decodeAll(raw, &vm)
	}
	if !hasCode(err, jsonrpc.CodeNotFound) {
		return vm, nil, err
	}
	var named, begun []crdtstore.VM
	look := func(page json.RawMessage) error {
		var list struct{ VMs []crdtstore.VM }
		err := decodeAll(page, &list)
		for _, one := range list.VMs {
			if one.Name == what {
				named = append(named, one)
			}
			if strings.HasPrefix(one.SID, what) && !whole {
				begun = append(begun, one)
			}
		}
		return err
	}
	if e := r.eachPage(ctx, c, "list_vms", query, look); e != nil {
		return vm, nil, e
	}
	found := named
	if len(found) == 0 {
		found = begun
	}
	switch len(found) {
	case 0:
		return vm, nil, err // that of get_vm
	case 1:
		raw, err = json.Marshal(found[0])
		return found[0], raw, err
	}
	var sids []string
	for _, one := range found {
		sids = append(sids, one.SID+" on "+one.NodeID)
	}
	return vm, nil, ambiguous(what, "VMs", sids)
}

// callNode calls a method about a node: by its id, or else by the beginning of one id.
func (r *remote) callNode(ctx context.Context, method, id string, params map[string]any) (json.RawMessage, error) {
	c, err := r.dial()
	if err != nil {
		return nil, err
	}
	defer c.Close()
	all := map[string]any{"node_id": id}
	maps.Copy(all, params)
	result, err := r.callOn(ctx, c, method, all)
	if !hasCode(err, jsonrpc.CodeNodeNotFound) {
		return result, err
	}
	var ids []string
	look := func(page json.RawMessage) error {
		var list struct{ Nodes []crdtstore.Node }
		err := decodeAll(page, &list)
		for _, one := range list.Nodes {
			if strings.HasPrefix(one.NodeID, id) {
				ids = append(ids, one.NodeID)
			}
		}
		return err
	}
	if err := r.eachPage(ctx, c, "list_nodes", map[string]any{"q": id, "limit": pageSize}, look); err != nil {
		return nil, err
	}
	switch len(ids) {
	case 0:
		return nil, err // that of the call
	case 1:
		all["node_id"] = ids[0]
		return r.callOn(ctx, c, method, all)
	}
	return nil, ambiguous(id, "nodes", ids)
}

// ambiguous is the error for what does not stand for one thing.
func ambiguous(what, things string, ids []string) error {
	text := strings.Join(ids[:min(len(ids), 5)], ", ")
	if len(ids) > 5 {
		text += ", ..."
	}
	return fmt.Errorf("%q stands for %d %s: %s; give more of the id of one", what, len(ids), things, text)
}

// eachPage calls f with each page of a list.
func (r *remote) eachPage(ctx context.Context, c *client.Client, method string, query map[string]any, f func(json.RawMessage) error) error {
	for range maxFindPages {
		page, err := r.callOn(ctx, c, method, query)
		if err != nil {
			return err
		}
		var next struct {
			Cursor string `json:"next_cursor"`
		}
		if err := errors.Join(decodeAll(page, &next), f(page)); err != nil {
			return err
		}
		if next.Cursor == "" {
			return nil
		}
		query["cursor"] = next.Cursor
	}
	return errors.New("too many match; give more of it")
}

// hasCode reports whether a master or node answered with an error of that code.
func hasCode(err error, code int) bool {
	var wire *jsonrpc.Error
	return errors.As(err, &wire) && wire.Code == code
}
