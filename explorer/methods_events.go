package explorer

import (
	"context"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

func (s *Server) eventMethods() []method {
	return []method{
		takes(method{
			name:    "events",
			summary: "Lists what happened to nodes, VMs and masters, and what operators said, the latest first, as far as this master remembers it.",
			errors:  []int{jsonrpc.CodeUnknownCursor},
		}, s.eventPages),
	}
}

func (s *Server) eventPages(_ context.Context, q crdtstore.EventQuery) (crdtstore.EventPage, error) {
	if err := validLimit(q.Limit); err != nil {
		return crdtstore.EventPage{}, err
	}
	page, err := s.store.Events(q)
	if page.Events == nil {
		page.Events = []crdtstore.Event{}
	}
	return page, err
}
