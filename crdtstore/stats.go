package crdtstore

import (
	"encoding/hex"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/query"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/stats"
)

// Stats sums up the grid.
func (s *Store) Stats() Stats {
	out := s.count(time.Now())
	out.Masters = map[string]int{}
	if p, joining := s.joining(); joining {
		out.Joining = &p
	}
	if p, preserving := s.preserver.Current(); preserving {
		out.Preservation = (*stats.Preservation)(&p)
	}
	out.History = s.historyStats()
	digest, _ := s.table.Digest()
	out.Convergence = stats.Convergence{InSync: true, Digest: hex.EncodeToString(digest[:]), Splits: s.openSplits()}
	if s.cluster != nil {
		out.Convergence.Gaps, out.Convergence.Rebuilt = s.cluster.Counts()
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
		VMs:      stats.VMCounts{ByState: map[string]int{}},
		ByStatus: map[Status]stats.StatusTotals{Online: {}, Suspect: {}, Offline: {}},
	}
	m, contested := s.at(now), s.conflicts.Contested(now)
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
			out.Free = sum(out.Free, record.Capacity{CRU: f.CRU, MRU: f.MRU, SRU: f.SRU, HRU: f.HRU})
		}
		for _, c := range s.acknowledged.Counts(now, e) {
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

func sum(a, b record.Capacity) record.Capacity {
	return record.Capacity{CRU: a.CRU + b.CRU, MRU: a.MRU + b.MRU, SRU: a.SRU + b.SRU, HRU: a.HRU + b.HRU}
}

// historyStats returns what the records and their history take on disk.
func (s *Store) historyStats() stats.HistoryStats {
	h := s.history.Stats()
	return stats.HistoryStats{
		Epoch: h.Number, Created: h.Created, Entries: h.Entries, Records: s.table.Len(), Old: h.Old, Bytes: h.Bytes,
		Live: uint64(s.table.Bytes()),
	}
}
