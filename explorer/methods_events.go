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
		}, s.chronicle),
	}
}

func (s *Server) chronicle(_ context.Context, q crdtstore.ChronicleQuery) (crdtstore.ChroniclePage, error) {
	if err := validLimit(q.Limit); err != nil {
		return crdtstore.ChroniclePage{}, err
	}
	page, err := s.store.Chronicle(q)
	if page.Events == nil {
		page.Events = []crdtstore.Occurrence{}
	}
	return page, err
}
