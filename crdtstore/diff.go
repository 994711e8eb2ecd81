package crdtstore

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/antientropy"
)

// maxDiff is how many nodes a Diff lists; it counts all.
const maxDiff = 1000

// Diff is how another master's records differ from ours.
type Diff struct {
	Equal  bool       `json:"equal"`
	Digest DiffDigest `json:"digest"`
	// Nodes lists the nodes that differ, by id; at most 1,000.
	Nodes []NodeDiff `json:"nodes"`
	Total int        `json:"total"` // nodes that differ
}

// DiffDigest holds the digests of both sides, in hex.
type DiffDigest struct {
	Self  string `json:"self"`
	Other string `json:"other"`
}

// NodeDiff names what differs of a node: fields of [Node] as they are called in
// JSON, or "missing_here" or "missing_there", or "history" where all that is
// visible is alike.
type NodeDiff struct {
	NodeID string   `json:"node_id"`
	Fields []string `json:"fields"`
}

// Diff compares our records with those of another master, by id or name, and
// changes nothing. Errors: ErrNotFound for an unknown master, ErrUnreachable for
// one that cannot be asked now, the context's.
func (s *Store) Diff(ctx context.Context, master string) (Diff, error) {
	ctx = orBackground(ctx)
	m, err := s.Master(master)
	if err != nil {
		return Diff{}, err
	}
	digest, _ := s.table.Digest()
	self := hex.EncodeToString(digest[:])
	out := Diff{Equal: true, Digest: DiffDigest{self, self}, Nodes: []NodeDiff{}}
	if m.Status == MasterSelf {
		return out, nil
	}
	if m.Status == MasterNeverMet {
		return Diff{}, fmt.Errorf("%w: %s: %s", ErrUnreachable, m.Name, m.Reason)
	}
	id, err := peer.Decode(m.ID)
	if err != nil {
		return Diff{}, err
	}
	stream, err := s.cluster.Mesh().Host().NewStream(ctx, id, antientropy.Protocol)
	if err != nil {
		return Diff{}, fmt.Errorf("%w: %s: %w", ErrUnreachable, m.Name, err)
	}
	list, differ, err := antientropy.Look(ctx, stream, s.table, maxDiff)
	if err != nil {
		return Diff{}, fmt.Errorf("%w: %s: %w", ErrUnreachable, m.Name, err)
	}
	other := digest
	for _, d := range list {
		other = other.Xor(d.Self.Digest(d.Node)).Xor(d.Other.Digest(d.Node))
		out.Nodes = append(out.Nodes, NodeDiff{d.Node, d.Fields()})
	}
	if out.Digest.Other = m.Digest; differ == len(list) {
		out.Digest.Other = hex.EncodeToString(other[:])
	}
	slices.SortFunc(out.Nodes, func(a, b NodeDiff) int { return strings.Compare(a.NodeID, b.NodeID) })
	out.Equal, out.Total = differ == 0, differ
	return out, nil
}
