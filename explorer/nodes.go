package explorer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// maxBeats is how many heartbeats one node_heartbeats takes.
const maxBeats = 1000

// maxPage is the greatest limit of a list.
const maxPage = 1000

type (
	nodeParams struct {
		NodeID string `json:"node_id" need:"true" doc:"The node's id."`
	}
	labelParams struct {
		NodeID string             `json:"node_id" need:"true" doc:"The node's id."`
		Labels map[string]*string `json:"labels" need:"true" doc:"Labels to set over those of the agent. null takes a label away."`
	}
	removeParams struct {
		NodeID string `json:"node_id" need:"true" doc:"The node's id."`
		Reason string `json:"reason" doc:"Why, for the record."`
	}
	beatsParams struct {
		Beats []crdtstore.Beat `json:"beats" need:"true" doc:"At most 1000 heartbeats."`
	}
)

func (s *Server) nodeMethods() []method {
	operatorErrors := []int{jsonrpc.CodeUnauthorized, jsonrpc.CodeNodeNotFound}
	return []method{
		{
			name:    "register_node",
			summary: "Takes a node's account of itself. Fields left out keep what is known, null erases, fields that are not known are ignored.",
			params:  reflect.TypeFor[crdtstore.Report](), open: true, result: reflect.TypeFor[Answer](),
			errors: []int{jsonrpc.CodeRefusedIdentity},
			handle: s.registerNode,
		},
		takes(method{
			name: "node_heartbeat", result: reflect.TypeFor[Answer](),
			summary: "Says that a node lives, with its usage.",
			errors:  []int{jsonrpc.CodeRefusedIdentity},
		}, s.heartbeat),
		takes(method{
			name: "node_heartbeats", result: reflect.TypeFor[BeatsAnswer](),
			summary: "Takes up to 1000 heartbeats. The results stand in their order; one that is refused does not hold up the others.",
		}, s.heartbeats),
		takes(method{
			name:    "list_nodes",
			summary: "Lists nodes, page by page.",
			errors:  []int{jsonrpc.CodeUnknownCursor},
		}, s.listNodes),
		takes(method{
			name:    "get_node",
			summary: "Returns a node. One that was removed has removed_at.",
			errors:  []int{jsonrpc.CodeNodeNotFound},
		}, s.getNode),
		takes(method{
			name: "drain_node", access: accessAdmin, errors: operatorErrors,
			summary: "Marks a node as drained: its capacity is no longer offered.",
		}, func(ctx context.Context, p nodeParams) (crdtstore.Node, error) {
			return s.about(p.NodeID)(s.store.Drain(ctx, p.NodeID, true, callerOf(ctx).name))
		}),
		takes(method{
			name: "undrain_node", access: accessAdmin, errors: operatorErrors,
			summary: "Takes the mark of drain_node away.",
		}, func(ctx context.Context, p nodeParams) (crdtstore.Node, error) {
			return s.about(p.NodeID)(s.store.Drain(ctx, p.NodeID, false, callerOf(ctx).name))
		}),
		takes(method{
			name: "label_node", access: accessAdmin, errors: operatorErrors,
			summary: "Sets labels of a node, over those of its agent.",
		}, func(ctx context.Context, p labelParams) (crdtstore.Node, error) {
			return s.about(p.NodeID)(s.store.Label(ctx, p.NodeID, p.Labels, callerOf(ctx).name))
		}),
		takes(method{
			name: "remove_node", access: accessAdmin, errors: operatorErrors,
			summary: "Removes a node until it boots again.",
		}, func(ctx context.Context, p removeParams) (crdtstore.Node, error) {
			if len(p.Reason) > 256 {
				return crdtstore.Node{}, badField("reason", fmt.Sprintf("has %d bytes, at most 256 are allowed", len(p.Reason)))
			}
			return s.about(p.NodeID)(s.store.Remove(ctx, p.NodeID, callerOf(ctx).name, p.Reason))
		}),
	}
}

// about names the node in what the store says of one.
func (s *Server) about(id string) func(crdtstore.Node, error) (crdtstore.Node, error) {
	return func(n crdtstore.Node, err error) (crdtstore.Node, error) {
		if errors.Is(err, crdtstore.ErrNotFound) {
			err = nodeNotFound(id)
		}
		return n, err
	}
}

func (s *Server) registerNode(ctx context.Context, raw json.RawMessage) (any, error) {
	// Not DecodeParams: a report is the one thing that may hold more than this
	// version knows.
	raw, err := jsonrpc.Named(raw)
	if err != nil {
		return nil, err
	}
	var r crdtstore.Report
	if err := r.UnmarshalJSON(raw); err != nil {
		var field *crdtstore.FieldError
		if errors.As(err, &field) {
			return nil, err
		}
		return nil, badField("params", "must be a report: "+err.Error())
	}
	receipt, err := s.store.Report(ctx, r)
	if err != nil {
		return nil, err
	}
	s.metrics.reports.Inc()
	return s.answers.get(s, receipt.Accepted, false), nil
}

func (s *Server) listNodes(_ context.Context, q crdtstore.NodeQuery) (crdtstore.NodePage, error) {
	if err := validLimit(q.Limit); err != nil {
		return crdtstore.NodePage{}, err
	}
	switch q.Status {
	case "", crdtstore.Online, crdtstore.Suspect, crdtstore.Offline:
	default:
		return crdtstore.NodePage{}, badField("status", fmt.Sprintf("is %q; must be online, suspect or offline", q.Status))
	}
	if q.MinFree.CRU < 0 { // the other amounts cannot be negative by their type
		return crdtstore.NodePage{}, badField("min_free.cru", fmt.Sprintf("is %v; must not be negative", q.MinFree.CRU))
	}
	page, err := s.store.Nodes(q)
	if page.Nodes == nil {
		page.Nodes = []crdtstore.Node{}
	}
	return page, err
}

func (s *Server) getNode(_ context.Context, p nodeParams) (crdtstore.Node, error) {
	if err := record.ValidNodeID(p.NodeID); err != nil {
		return crdtstore.Node{}, err
	}
	return s.about(p.NodeID)(s.store.Node(p.NodeID))
}

func validLimit(limit int) error {
	if limit < 0 || limit > maxPage {
		return badField("limit", fmt.Sprintf("is %d; must lie between 1 and %d", limit, maxPage))
	}
	return nil
}
