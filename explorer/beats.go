package explorer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer/jsonrpc"
)

// Answer is what a report or a heartbeat is answered with.
type Answer struct {
	// Accepted is false where something newer is known already.
	Accepted bool `json:"accepted"`
	// Register asks the agent for a report: this master does not know the
	// node's profile at that boot.
	Register bool `json:"register,omitempty"`
	// HeartbeatIntervalS is how many seconds the agent should leave between
	// heartbeats; OfflineAfterS is after how many it counts as offline.
	HeartbeatIntervalS float64 `json:"heartbeat_interval_s"`
	OfflineAfterS      float64 `json:"offline_after_s"`
	// Masters are all masters that this one knows, so that agents find them.
	Masters []crdtstore.Master `json:"masters"`
}

// BeatAnswer is what one of many heartbeats is answered with.
type BeatAnswer struct {
	Accepted bool           `json:"accepted"`
	Register bool           `json:"register,omitempty"`
	Error    *jsonrpc.Error `json:"error,omitempty"`
}

// BeatsAnswer answers node_heartbeats: what an Answer says, once for all.
type BeatsAnswer struct {
	Results            []BeatAnswer       `json:"results"`
	HeartbeatIntervalS float64            `json:"heartbeat_interval_s"`
	OfflineAfterS      float64            `json:"offline_after_s"`
	Masters            []crdtstore.Master `json:"masters"`
}

// answerAge is how old the masters in an answer may be.
const answerAge = time.Second

// answers keeps the four answers that a heartbeat can get, encoded. They hold
// the list of masters, which is the same for everybody and far too long to be
// encoded for every heartbeat.
type answers struct {
	current atomic.Pointer[answerSet]
	making  atomic.Bool
}

type answerSet struct {
	made   time.Time
	whole  [4]json.RawMessage
	common string // members of a BeatsAnswer after its results
}

func (a *answers) get(s *Server, accepted, register bool) json.RawMessage {
	i := 0
	if accepted {
		i |= 1
	}
	if register {
		i |= 2
	}
	return a.set(s).whole[i]
}

// set returns the answers, made anew by one caller when they are too old; the
// others take what is there meanwhile.
func (a *answers) set(s *Server) *answerSet {
	set := a.current.Load()
	if set != nil && (time.Since(set.made) < answerAge || !a.making.CompareAndSwap(false, true)) {
		return set
	}
	fresh := &answerSet{made: time.Now()}
	answer := Answer{
		HeartbeatIntervalS: s.cfg.HeartbeatInterval.Seconds(),
		OfflineAfterS:      s.store.OfflineAfter().Seconds(),
		// An agent has no use for a peer that nobody has met.
		Masters: slices.DeleteFunc(s.masterList(), func(m crdtstore.Master) bool { return m.Status == crdtstore.MasterNeverMet }),
	}
	for i := range fresh.whole {
		answer.Accepted, answer.Register = i&1 != 0, i&2 != 0
		fresh.whole[i] = mustEncode(answer)
	}
	common := mustEncode(BeatsAnswer{nil, answer.HeartbeatIntervalS, answer.OfflineAfterS, answer.Masters})
	fresh.common = string(common[len(`{"results":null`):])
	a.current.Store(fresh)
	if set != nil {
		a.making.Store(false)
	}
	return fresh
}

// mustEncode encodes types of ours, whose encoding cannot fail.
func mustEncode(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("explorer: encoding %T: %v", v, err))
	}
	return b
}

func (s *Server) heartbeat(_ context.Context, b crdtstore.Beat) (json.RawMessage, error) {
	r, err := s.store.Beat(b)
	s.metrics.beat(r, err)
	if err != nil {
		return nil, err
	}
	return s.answers.get(s, r.Accepted, r.Register), nil
}

func (s *Server) heartbeats(_ context.Context, p beatsParams) (json.RawMessage, error) {
	if len(p.Beats) > maxBeats {
		return nil, badField("beats", fmt.Sprintf("has %d entries, at most %d are allowed", len(p.Beats), maxBeats))
	}
	common := s.answers.set(s).common
	out := make([]byte, 0, len(`{"results":[]`)+len(p.Beats)*len(`{"accepted":false,"register":true},`)+len(common))
	out = append(out, `{"results":[`...)
	for i, b := range p.Beats {
		if i > 0 {
			out = append(out, ',')
		}
		r, err := s.store.Beat(b)
		s.metrics.beat(r, err)
		out = append(out, `{"accepted":`...)
		out = strconv.AppendBool(out, r.Accepted)
		if r.Register {
			out = append(out, `,"register":true`...)
		}
		if err != nil {
			out = append(out, `,"error":`...)
			out = append(out, mustEncode(s.wireError("node_heartbeats", atBeat(i, err)))...)
		}
		out = append(out, '}')
	}
	out = append(out, ']')
	return append(out, common...), nil
}

// atBeat puts the place of a heartbeat before the field that an error names.
func atBeat(i int, err error) error {
	var field *crdtstore.FieldError
	if errors.As(err, &field) {
		return &crdtstore.FieldError{Field: fmt.Sprintf("beats[%d].%s", i, field.Field), Problem: field.Problem}
	}
	return err
}
