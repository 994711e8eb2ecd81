package crdtstore

import (
	"encoding/hex"
	"time"
)

// self is this master as it shows itself.
func (s *Store) self() Master {
	digest, nodes := s.table.Digest()
	m := Master{
		ID: s.ID(), Name: s.cfg.Name, Status: MasterSelf, Version: s.cfg.Version,
		RPCURLs: nonNil(s.cfg.RPCURLs), UIURLs: nonNil(s.cfg.UIURLs), MeshAddrs: []string{},
		EdgeAddrs: withID(s.cfg.EdgeAddrs, s.ID()),
		LastSeen:  time.Now().UTC(), Nodes: nodes,
		Digest: hex.EncodeToString(digest[:]), InSync: true,
	}
	if s.cluster != nil {
		m.MeshAddrs = s.cluster.meshAddrs()
	}
	return m
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// Masters returns all known masters, this one first, then by name.
func (s *Store) Masters() []Master {
	out := []Master{s.self()}
	if s.cluster != nil {
		out = append(out, s.cluster.masters()...)
	}
	return out
}

// Master returns the master of the given id, or else name. Errors: ErrNotFound.
func (s *Store) Master(idOrName string) (Master, error) {
	all := s.Masters()
	for _, m := range all {
		if m.ID == idOrName {
			return m, nil
		}
	}
	for _, m := range all {
		if m.Name == idOrName {
			return m, nil
		}
	}
	return Master{}, ErrNotFound
}

// live returns the ids of the masters that are heard, this one among them.
func (s *Store) live() []string {
	out := []string{s.ID()}
	if s.cluster != nil {
		out = append(out, s.cluster.dir.live(time.Now())...)
	}
	return out
}

// reachable reports whether a master is heard.
func (s *Store) reachable(id string) bool {
	return id == s.ID() || s.cluster != nil && s.cluster.reachable(id)
}
