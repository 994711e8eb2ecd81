package crdtstore

import (
	"encoding/hex"
	"time"
)

// Stats sums up the grid.
func (s *Store) Stats() Stats {
	out := Stats{VMs: VMCounts{ByState: map[string]int{}}, Masters: map[string]int{}}
	now := time.Now()
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
		out.Total = sum(out.Total, e.Total)
		if e.Drained {
			out.Nodes.Drained++
		}
		switch v.status {
		case Online:
			out.Nodes.Online++
			out.Slices.Total += e.Slices
			if f := free(e, &v); !e.Drained {
				out.Slices.Free += f.Slices
				out.Free = sum(out.Free, Capacity{CRU: f.CRU, MRU: f.MRU, SRU: f.SRU, HRU: f.HRU})
			}
		case Suspect:
			out.Nodes.Suspect++
		case Offline:
			out.Nodes.Offline++
		}
		for _, c := range e.VMs {
			out.VMs.Total += c.VMs
			out.VMs.ByState[c.State] += c.VMs
		}
	}
	if p, joining := s.Joining(); joining {
		out.Joining = &p
	}
	if p, preserving := s.Preservation(); preserving {
		out.Preservation = &p
	}
	out.History = s.History()
	digest, _ := s.table.Digest()
	out.Convergence = Convergence{InSync: true, Digest: hex.EncodeToString(digest[:]), Splits: s.Splits()}
	for _, m := range s.Masters() {
		out.Masters[string(m.Status)]++
		if m.Status == MasterAlive {
			out.Convergence.InSync = out.Convergence.InSync && m.InSync
			out.Convergence.LagS = max(out.Convergence.LagS, m.LagS)
		}
	}
	return out
}

func sum(a, b Capacity) Capacity {
	return Capacity{CRU: a.CRU + b.CRU, MRU: a.MRU + b.MRU, SRU: a.SRU + b.SRU, HRU: a.HRU + b.HRU}
}
