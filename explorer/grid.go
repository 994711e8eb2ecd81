package explorer

import (
	"context"
	"encoding/json"
	"errors"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

type noParams struct{}

// MastersAnswer answers masters.
type MastersAnswer struct {
	Self    string             `json:"self"` // id of the master that answers
	Masters []crdtstore.Master `json:"masters"`
}

// EndedPreservation answers end_preservation.
type EndedPreservation struct {
	Masters int `json:"masters"` // that have heard it, this one too
}

func (s *Server) gridMethods() []method {
	return []method{
		takes(method{
			name:    "masters",
			summary: "Lists the masters as this one sees them, this one first.",
		}, func(context.Context, noParams) (MastersAnswer, error) {
			return MastersAnswer{Self: s.store.ID(), Masters: s.masterList()}, nil
		}),
		takes(method{
			name:    "stats",
			summary: "Sums up the grid: nodes by status, capacity, VMs, masters, and whether the masters agree.",
		}, func(context.Context, noParams) (crdtstore.Stats, error) {
			return s.store.Stats(), nil
		}),
		takes(method{
			name:    "diff",
			summary: "Compares this master's records with another's, and names the nodes and fields that differ.",
			errors:  []int{jsonrpc.CodeNotFound, jsonrpc.CodeCannotReach},
		}, s.diff),
		takes(method{
			name: "end_preservation", access: accessAdmin, errors: []int{jsonrpc.CodeUnauthorized},
			summary: "Says that the nodes are dead which fell silent together and are suspect for that reason (stats: preservation). All masters that this one reaches hear it.",
		}, func(ctx context.Context, _ noParams) (EndedPreservation, error) {
			return EndedPreservation{s.store.EndPreservation(ctx, callerOf(ctx).name)}, nil
		}),
		takes(method{
			name:    "rpc.discover",
			summary: "Returns the OpenRPC document of this service.",
		}, func(context.Context, noParams) (json.RawMessage, error) {
			return s.openRPC(), nil
		}),
	}
}

type diffParams struct {
	Master string `json:"master" need:"true"` // id or name
}

func (s *Server) diff(ctx context.Context, p diffParams) (crdtstore.Diff, error) {
	d, err := s.store.Diff(ctx, p.Master)
	switch {
	case errors.Is(err, crdtstore.ErrNotFound):
		return d, notFound("master " + p.Master)
	case errors.Is(err, crdtstore.ErrUnreachable):
		return d, failure(jsonrpc.CodeCannotReach, "master "+p.Master+" cannot be reached",
			errorData{Retryable: true, Hint: "masters shows which are alive; this one's log says more"})
	}
	return d, err
}

// masterList is the masters in the shape that clients can rely on: lists are
// never null.
func (s *Server) masterList() []crdtstore.Master {
	masters := append([]crdtstore.Master{}, s.store.Masters()...) // theirs is shared
	for i := range masters {
		for _, list := range []*[]string{&masters[i].RPCURLs, &masters[i].UIURLs, &masters[i].MeshAddrs, &masters[i].EdgeAddrs, &masters[i].HeardBy, &masters[i].SettingsDiffer} {
			if *list == nil {
				*list = []string{}
			}
		}
	}
	return masters
}
