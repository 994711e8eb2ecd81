package crdtstore

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"iter"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Variables, so that tests need not wait as long.
var (
	// turnoverTick is how often a master looks whether the history has to be cut,
	// or what is left to do after it was.
	turnoverTick = 2 * time.Second
	// assertSettle is how long the masters that are responsible for records have,
	// after a new epoch was adopted, before the others assert what is missing.
	assertSettle = 10 * time.Second
)

// turnover keeps the history in proportion to the records: it opens a new epoch
// when the present one has grown too much, sees that the new one holds everything
// that this master knows, and then deletes the old ones. See docs/architecture.md.
func (s *Store) turnover(ctx context.Context) {
	tick := time.NewTicker(turnoverTick)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		var err error
		switch h := s.history.Stats(); {
		case h.Old > 0:
			err = s.retire(ctx)
		case s.outgrown(h.Entries, time.Since(h.Created)):
			s.log.Info("opening a new epoch", "epoch", h.Number+1, "entries", h.Entries, "records", s.table.Len(), "bytes", h.Bytes)
			err = s.adopt(ctx, h.Number+1)
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("cannot turn the history over, trying again", "err", err)
		}
	}
}

// outgrown decides whether an epoch with so many entries has to end.
func (s *Store) outgrown(entries int, age time.Duration) bool {
	records := s.table.Len()
	return entries >= s.cfg.EpochEntries && entries > epochGrowth*records ||
		age > s.cfg.EpochAge && entries > 2*records
}

// adopt moves to a greater epoch, by our own decision or because another master
// is there, and asserts in it the records that this master is responsible for.
func (s *Store) adopt(ctx context.Context, number uint64) error {
	s.adopting.Lock()
	defer s.adopting.Unlock()
	if number <= s.history.Number() {
		return nil
	}
	if err := s.history.Adopt(ctx, number); err != nil {
		return err
	}
	s.adopted = time.Now()
	live := []string{s.ID()}
	for _, m := range s.Masters() {
		if m.Status == MasterAlive {
			live = append(live, m.ID)
		}
	}
	var mine []string
	for e := range s.table.All() {
		if heir(e.ID, live) == s.ID() {
			mine = append(mine, e.ID)
		}
	}
	s.publisher.mark(mine...)
	return nil
}

// heir returns the master that is responsible for a node, by rendezvous hashing:
// when a master comes or goes, only the nodes that it is responsible for change
// hands. All masters that agree about who lives agree about the heir.
func heir(node string, masters []string) string {
	best, most := "", uint64(0)
	for _, m := range masters {
		sum := sha256.Sum256([]byte(m + "\x00" + node))
		if w := binary.BigEndian.Uint64(sum[:8]); best == "" || w > most || w == most && m < best {
			best, most = m, w
		}
	}
	return best
}

// retire asserts what the new epoch still lacks of all that this master knows,
// and deletes the old epochs when it lacks nothing.
func (s *Store) retire(ctx context.Context) error {
	s.adopting.Lock()
	defer s.adopting.Unlock()
	if s.cluster != nil && time.Since(s.adopted) < assertSettle {
		return nil
	}
	missing, err := s.history.Missing(ctx, s.states())
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		s.log.Info("asserting records that the new epoch lacks", "epoch", s.history.Number(), "records", len(missing))
		return s.publisher.wait(ctx, s.publisher.mark(missing...))
	}
	if err := s.history.Retire(ctx); err != nil {
		return err
	}
	s.log.Info("the new epoch holds everything, old ones are deleted", "epoch", s.history.Number())
	return nil
}

func (s *Store) states() iter.Seq2[string, record.State] {
	return func(yield func(string, record.State) bool) {
		for e := range s.table.All() {
			if !yield(e.ID, e.State) {
				return
			}
		}
	}
}

// HistoryStats describes what the records and their history take on disk.
type HistoryStats struct {
	Epoch   uint64    `json:"epoch"`
	Created time.Time `json:"created"` // of the epoch
	Entries int       `json:"entries"` // writes in the epoch, by all masters
	Records int       `json:"records"` // nodes that are known, removed ones too
	Old     int       `json:"old"`     // earlier epochs that are not deleted yet
	Bytes   uint64    `json:"bytes"`   // on disk
}

// History returns what the records and their history take on disk.
func (s *Store) History() HistoryStats {
	h := s.history.Stats()
	return HistoryStats{
		Epoch: h.Number, Created: h.Created, Entries: h.Entries, Records: s.table.Len(), Old: h.Old, Bytes: h.Bytes,
	}
}
