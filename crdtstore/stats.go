package crdtstore

import (
	"encoding/hex"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/query"
)

// Stats sums up the grid.
func (s *Store) Stats() Stats {
	out := s.count(time.Now())
	out.Masters = map[string]int{}
	if p, joining := s.joining(); joining {
		out.Joining = &p
	}
	if p, preserving := s.preservation(); preserving {
		out.Preservation = &p
	}
	out.History = s.historyStats()
	digest, _ := s.table.Digest()
	out.Convergence = Convergence{InSync: true, Digest: hex.EncodeToString(digest[:]), Splits: s.openSplits()}
	if s.cluster != nil {
		out.Convergence.Gaps, out.Convergence.Rebuilt = s.cluster.plane.counts()
	}
	for _, m := range s.Masters() {
		out.Masters[string(m.Status)]++
		if m.Status == MasterAlive {
			out.Convergence.InSync = out.Convergence.InSync && m.InSync
			out.Convergence.LagS = max(out.Convergence.LagS, m.LagS)
		}
	}
	return out
}

// count sums up the nodes.
func (s *Store) count(now time.Time) Stats {
	out := Stats{
		VMs:      VMCounts{ByState: map[string]int{}},
		ByStatus: map[Status]StatusTotals{Online: {}, Suspect: {}, Offline: {}},
	}
	m, contested := s.at(now), s.contested(now)
	var v vital
	for e := range s.table.All() {
		if e.Removed {
			out.Nodes.Removed++
			continue
		}
		m.vital(e, &v)
		out.Nodes.Total++
		if contested(e) {
			out.Conflicts++
		}
		if e.Drained {
			out.Nodes.Drained++
		}
		part := out.ByStatus[v.status]
		part.Nodes++
		part.Capacity = sum(part.Capacity, e.Total)
		part.Slices += e.Slices
		out.ByStatus[v.status] = part
		if v.status == Online && !e.Drained {
			f := query.Free(e, v.Usage)
			out.Slices.Free += f.Slices
			out.Free = sum(out.Free, Capacity{CRU: f.CRU, MRU: f.MRU, SRU: f.SRU, HRU: f.HRU})
		}
		for _, c := range s.vmCounts(now, e) {
			out.VMs.Total += c.VMs
			out.VMs.ByState[c.State] += c.VMs
		}
	}
	for _, part := range out.ByStatus {
		out.Total = sum(out.Total, part.Capacity)
		out.Slices.Total += part.Slices
	}
	out.Nodes.Online, out.Nodes.Suspect, out.Nodes.Offline = out.ByStatus[Online].Nodes, out.ByStatus[Suspect].Nodes, out.ByStatus[Offline].Nodes
	return out
}

func sum(a, b Capacity) Capacity {
	return Capacity{CRU: a.CRU + b.CRU, MRU: a.MRU + b.MRU, SRU: a.SRU + b.SRU, HRU: a.HRU + b.HRU}
}
