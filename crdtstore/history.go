package crdtstore

import "time"

// HistoryStats describes what the records and their history take on disk.
type HistoryStats struct {
	Epoch   uint64    `json:"epoch"`
	Created time.Time `json:"created"` // of the epoch
	Entries int       `json:"entries"` // writes in the epoch, by all masters
	Records int       `json:"records"` // nodes that are known, removed ones too
	Old     int       `json:"old"`     // earlier epochs that are not deleted yet
	Bytes   uint64    `json:"bytes"`   // on disk
	// Live is what the records alone take, encoded, in bytes. Bytes is kept to a
	// small multiple of it.
	Live uint64 `json:"live"`
}

// historyStats returns what the records and their history take on disk.
func (s *Store) historyStats() HistoryStats {
	h := s.history.Stats()
	return HistoryStats{
		Epoch: h.Number, Created: h.Created, Entries: h.Entries, Records: s.table.Len(), Old: h.Old, Bytes: h.Bytes,
		Live: uint64(s.table.Bytes()),
	}
}
