package crdtstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/conflicts"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Report takes a node's account of itself, which is a sign of life too. When it
// returns without error the account is on disk (see Config.NoSync). Errors:
// [FieldError], [RefusedError], and nothing has changed; ErrUnavailable, ErrClosed, the
// context's, and the account may have been taken all the same, or may be later. It can
// be sent again.
func (s *Store) Report(ctx context.Context, r Report) (Receipt, error) {
	ctx = orBackground(ctx)
	before := s.table.Get(r.NodeID)
	var news record.State
	err := s.assert(ctx, r.NodeID, func(known record.State) (_ record.State, err error) {
		news, err = record.Accept(known, r, record.Acceptance{
			Now: s.replica.Wall(), RequireSigned: s.cfg.RequireSigned,
		})
		return news, err
	})
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		s.noteConflict(&r, conflicts.Outcome{Before: before, Refused: refused})
	}
	if err != nil {
		return Receipt{}, err
	}
	owner, _ := s.replica.State(r.NodeID).Owner()
	prevailing := owner.Latest()
	v := r.AccountVersion()
	current := v.Compare(prevailing) >= 0 || v.Seq == 0 && (v.Boot == 0 || v.Boot == prevailing.Boot) // Accept chose what is missing
	s.noteConflict(&r, conflicts.Outcome{Before: before, Prevails: current})
	if current {
		// An account is a sign of life as good as a beat.
		usage, uptime := &r.Usage, &r.UptimeS
		if r.Omitted&record.OmittedUsage != 0 {
			usage = nil
		}
		if r.Omitted&record.OmittedUptime != 0 {
			uptime = nil
		}
		s.board.Beat(time.Now(), r.NodeID, counted(v), usage, uptime)
		if s.cluster != nil && !news.IsZero() {
			// The others have the record in a moment; let them hear as soon that
			// the node lives.
			s.cluster.PulseSoon()
		}
	}
	return Receipt{Accepted: current, Known: prevailing}, nil
}

// noteConflict publishes that a report shows that two senders claim one node.
func (s *Store) noteConflict(r *Report, o conflicts.Outcome) {
	now := time.Now()
	found := s.conflicts.Look(now, r, o, func() bool { return now.Sub(s.board.LastHeard(r.NodeID)) < s.cfg.OfflineAfter })
	if found == nil {
		return
	}
	s.log.Warn("two senders claim one node id", "node", r.NodeID, "reason", found.Reason, "host", found.Other, "stands", found.Prevailing)
	s.changes.Add(change{kind: NodeChange, id: r.NodeID})
	s.logEvent(Event{Kind: NodeEvent, Type: EventConflict, NodeID: r.NodeID, Text: r.NodeID + ": " + found.Reason})
}

// Beat takes one heartbeat. It touches memory only and never blocks. Errors:
// [FieldError], [RefusedError], and nothing has changed.
func (s *Store) Beat(b Beat) (BeatResult, error) {
	e := s.table.Get(b.NodeID)
	if err := b.validate(e != nil); err != nil {
		return BeatResult{}, err
	}
	if e == nil {
		return BeatResult{Register: true}, nil
	}
	known := e.Boot
	if e.Removed {
		if b.Boot == 0 && e.State.Removal.Reason == record.ReasonExpired {
			return BeatResult{Register: true}, nil // a report without boot is taken
		}
		if e.State.RemovedBoot(b.Boot) {
			return BeatResult{}, e.State.Removal.Refused(b.NodeID)
		}
		// Another boot, or another identity: its report decides.
		return BeatResult{Register: true}, nil
	}
	if b.Boot != 0 && b.Boot < known {
		return BeatResult{Register: true}, nil
	}
	v := counted(record.Version{Boot: b.Boot, Seq: b.Seq})
	if b.Boot > known {
		// Until that boot's report is here, anybody may have made it up: it must
		// not put the node's own beats behind it.
		v = record.Version{}
	}
	accepted := s.board.Beat(time.Now(), b.NodeID, v, b.Usage, b.UptimeS)
	if !accepted {
		// The latest beat once more changes nothing, but nothing newer is known.
		vital, _ := s.board.Vital(b.NodeID, nil)
		accepted = v == vital.Version
	}
	return BeatResult{Accepted: accepted, Register: b.Boot > known}, nil
}

// counted is the version by which a sign of life is ordered: that of a sender
// that does not count is none.
func counted(v record.Version) record.Version {
	if v.Seq == 0 {
		return record.Version{}
	}
	return v
}

// Node returns a node, removed ones too. Errors: ErrNotFound, [FieldError].
func (s *Store) Node(id string) (Node, error) {
	e := s.table.Get(id)
	if e == nil {
		if err := record.ValidNodeID(id); err != nil {
			return Node{}, err
		}
		return Node{}, ErrNotFound
	}
	return s.at(time.Now()).show(e), nil
}

// Drain marks a node as drained, or takes the mark away. by says who asks, for
// the record. When it returns without error the override is on disk. Errors:
// ErrNotFound, ErrUnavailable, ErrClosed, the context's.
func (s *Store) Drain(ctx context.Context, id string, drained bool, by string) (Node, error) {
	ctx = orBackground(ctx)
	value := ""
	if drained {
		value = "1"
	}
	return s.override(ctx, id, func(known record.State, now int64) record.State {
		// Said anew even where it stands already: another master may have been
		// told otherwise meanwhile, and this is the later answer.
		return known.Set(now, s.ID(), by, record.FieldDrain, value)
	})
}

// Label sets labels of a node over those of its agent; a nil value takes a
// label away. Errors: as Drain, and [FieldError].
func (s *Store) Label(ctx context.Context, id string, labels map[string]*string, by string) (Node, error) {
	ctx = orBackground(ctx)
	given := make(map[string]string, len(labels))
	for k, v := range labels {
		given[k] = ""
		if v != nil {
			given[k] = *v
		}
	}
	if len(given) == 0 {
		return Node{}, &FieldError{Field: "labels", Problem: "is empty; give at least one label, or null to take one away"}
	}
	if err := record.ValidLabels(given); err != nil {
		return Node{}, err
	}
	return s.override(ctx, id, func(known record.State, now int64) (news record.State) {
		for _, k := range slices.Sorted(maps.Keys(labels)) {
			value := record.LabelUnset
			if v := labels[k]; v != nil {
				value = "=" + *v
			}
			news = record.Join(news, known.Set(now, s.ID(), by, record.FieldLabel+k, value))
		}
		return news
	})
}

// Remove removes a node: every account of its present boot and of earlier ones
// is hidden on all masters. A node that boots again registers anew. Removing a
// removed node changes nothing. Errors: as Drain.
func (s *Store) Remove(ctx context.Context, id, by, reason string) (Node, error) {
	ctx = orBackground(ctx)
	return s.override(ctx, id, func(known record.State, now int64) record.State {
		if known.Removed() {
			return record.State{}
		}
		return known.Remove(now, s.ID(), by, reason)
	})
}

// override asserts what an operator sets. There is nothing to say about a node that was
// removed, but that it is.
func (s *Store) override(ctx context.Context, id string, set func(known record.State, now int64) record.State) (Node, error) {
	if err := record.ValidNodeID(id); err != nil {
		return Node{}, err
	}
	err := s.assert(ctx, id, func(known record.State) (record.State, error) {
		if known.IsZero() {
			return known, ErrNotFound
		}
		news := set(known, s.replica.Wall())
		if known.Removed() && !news.IsZero() {
			return record.State{}, ErrNotFound
		}
		return news, kept(known, news)
	})
	if err != nil {
		return Node{}, err
	}
	return s.Node(id)
}

// kept returns a [FieldError] for overrides of which the bounds of a state would leave less.
func kept(known, news record.State) error {
	count := len(known.Overrides)
	for _, w := range news.Overrides {
		if known.Override(w.Field) == (record.Override{}) {
			count++
		}
	}
	if count > record.MaxOverrides {
		return &FieldError{Field: "labels", Problem: fmt.Sprintf("are too many: operators have spoken of %d labels of this node, at most %d are kept", count, record.MaxOverrides)}
	}
	if n := len(news.Removal.Reason); n > record.MaxReason {
		return &FieldError{Field: "reason", Problem: fmt.Sprintf("has %d bytes, at most %d are allowed", n, record.MaxReason)}
	}
	if !news.Bounded().Equal(news) {
		return &FieldError{Field: "by", Problem: fmt.Sprintf("has more than the %d bytes that are allowed", record.MaxBy)}
	}
	return nil
}
