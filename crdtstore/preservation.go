package crdtstore

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/preservation"
)

const (
	// preservationFile is where a master keeps the last ending, below the data directory.
	preservationFile = "preservation.json"
	// endPreservation is the name of the stream by which a master has others end it.
	endPreservation = "end-preservation/1"
)

// What happens to all of the grid when much of it is silent.
const (
	EventPreservation      = preservation.EventBegan // it is doubted that the silent nodes are dead
	EventPreservationEnded = preservation.EventEnded // it is no more
)

func (s *Store) newPreserver() *preservation.Preserver {
	return preservation.New(preservation.Config{
		Self: s.text, OfflineAfter: s.cfg.OfflineAfter, Checkpoint: s.cfg.Checkpoint, Began: s.since, Wall: s.cfg.seams.Wall,
		Path: filepath.Join(s.cfg.Dir, preservationFile), Logger: s.log,
		Table: s.table, Board: s.board, Masters: s.members, Publisher: preservationPublisher{s},
	})
}

// preservationPublisher has the event log know what becomes of preservation.
type preservationPublisher struct{ s *Store }

func (p preservationPublisher) Happened(e preservation.Event) {
	p.s.logEvent(Event{Kind: GridEvent, Type: e.Type, By: e.By, Text: e.Text})
}

// EndPreservation is called by an operator who knows that the silent nodes are dead: it ends what
// Stats.Preservation shows, on this master and on those that it can reach. by says
// who asks. It returns how many masters have heard it, those that preserve nothing
// included.
func (s *Store) EndPreservation(ctx context.Context, by string) int {
	ctx = orBackground(ctx)
	s.preserver.End(by, "")
	if s.cluster == nil {
		return 1
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var published atomic.Int32
	var all sync.WaitGroup
	for _, id := range s.cluster.Mesh().Peers() {
		all.Go(func() {
			conn, err := s.Streams().Dial(ctx, id.String(), endPreservation)
			if err != nil {
				return
			}
			defer conn.Close()
			deadline, _ := ctx.Deadline()
			_ = conn.SetDeadline(deadline)
			if _, err = fmt.Fprintln(conn, strings.Join(strings.Fields(by), " ")); err == nil {
				_, err = io.ReadFull(conn, make([]byte, 1))
			}
			if err == nil {
				published.Add(1)
			}
		})
	}
	all.Wait()
	return 1 + int(published.Load())
}

// preservationEnded ends preservation where an operator has asked another master to.
func (s *Store) preservationEnded(from string, conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	by, err := bufio.NewReader(io.LimitReader(conn, 1<<10)).ReadString('\n')
	if by = strings.TrimSpace(by); err != nil || by == "" {
		by = "an operator"
	}
	s.preserver.End(by, " through "+from)
	_, _ = conn.Write([]byte{1})
}
