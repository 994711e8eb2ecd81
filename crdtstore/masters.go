package crdtstore

import (
	"cmp"
	"encoding/hex"
	"iter"
	"path/filepath"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/replica"
)

// What happens to masters beside their status.
const (
	EventPartiallyConnected = membership.EventPartiallyConnected // it hears less than half of the nodes that another one hears
	EventFullyConnected     = membership.EventFullyConnected     // it hears them again
	EventAdopted            = membership.EventAdopted            // part of the share of one that is down or has left is this master's
	EventGiven              = membership.EventGiven              // this master gave a share to one that has come, or come back
	EventForgotten          = membership.EventForgotten          // gone for longer than retention
	EventClock              = membership.EventClock              // its clock is far from this master's, or is right again
	EventSettings           = membership.EventSettings           // its settings have come to differ from this one's, or agree again
	EventNeverMet           = membership.EventNeverMet           // a configured peer was not met for a while, or for another cause
)

// mastersFile is the file of the masters that are known, below the data directory.
const mastersFile = "masters.json"

func (s *Store) newMembers() *membership.Table {
	return membership.New(membership.Config{
		Self: s.text, Name: s.cfg.Name, Version: s.cfg.Version, Settings: s.settings, Began: s.since, Wall: s.cfg.seams.Wall,
		Path: filepath.Join(s.cfg.Dir, mastersFile), Logger: s.log, Nodes: membersNodes{s}, Publisher: membersPublisher{s},
	})
}

// membersNodes tells the table of masters about nodes.
type membersNodes struct{ s *Store }

func (n membersNodes) NodeIDs() iter.Seq[string] {
	return func(yield func(string) bool) {
		for e := range n.s.table.All() {
			if !e.Removed && !yield(e.ID) {
				return
			}
		}
	}
}

func (n membersNodes) CountDirect(now time.Time, limit time.Duration) int {
	return n.s.board.CountDirect(now, limit)
}

// CountExclusive counts nodes that are suspect for a while, for who would know is gone.
func (n membersNodes) CountExclusive(now time.Time, master string) (count int) {
	m := n.s.at(now)
	for id := range n.NodeIDs() {
		v, _ := n.s.board.Vital(id, m.heard)
		m.heard = v.Observation
		alone, others := false, false
		for _, h := range v.Observation {
			if age := now.Sub(h.At); h.Master == master {
				alone = age <= 2*m.limit(master)
			} else if age <= m.limit(h.Master) && m.reachable(h.Master) {
				others = true
			}
		}
		if alone && !others {
			count++
		}
	}
	return count
}

// membersPublisher has watchers and the event log know what the table of masters finds.
type membersPublisher struct{ s *Store }

func (p membersPublisher) StatusChanged(id string) { p.s.masterChanged(id) }

func (p membersPublisher) Forgotten(id string) {
	p.s.cluster.Forget(id)
	p.s.replica.Forget(id)
}

func (p membersPublisher) Happened(e membership.Event) {
	p.s.logEvent(Event{Kind: MasterEvent, Type: e.Type, Master: e.Master, Text: e.Text})
	if e.Row != "" {
		p.s.changes.Add(change{kind: MasterChange, id: e.Row})
	}
}

// Masters returns all known masters, this one first, then by name, and behind them the
// configured peers that were never met.
func (s *Store) Masters() []Master {
	out := []Master{s.self()}
	if s.cluster != nil {
		out = append(out, s.otherMasters()...)
		out = append(out, s.unmet()...)
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

// nameOf returns what people call a master, or what there is of its id.
func (s *Store) nameOf(master string) string { return s.members.Name(master) }

// masterChanged publishes that a master has changed.
func (s *Store) masterChanged(id string) {
	s.changes.Add(change{kind: MasterChange, id: id})
	s.events.MasterChanged(id)
}

// self is this master as it shows itself.
func (s *Store) self() Master {
	now := time.Now()
	digest, nodes := s.table.Digest()
	m := Master{
		ID: s.ID(), Name: s.cfg.Name, Status: MasterSelf, Version: s.cfg.Version,
		RPCURLs: nonNil(s.cfg.Endpoints.RPCURLs), UIURLs: nonNil(s.cfg.Endpoints.UIURLs), MeshAddrs: []string{},
		EdgeAddrs: withID(s.cfg.Endpoints.EdgeAddrs, s.ID()),
		LastSeen:  now.UTC(), Nodes: nodes,
		Digest: hex.EncodeToString(digest[:]), InSync: true, Direct: true,
		Hears: s.members.CountDirect(now), HeardBy: s.members.HeardBy(now, s.ID()), SettingsDiffer: []string{},
	}
	if s.cluster != nil {
		m.MeshAddrs = withID(s.cluster.Mesh().Addrs(), s.ID())
		s.judge(now, &m)
	}
	return m
}

// otherMasters returns the other masters that are known, by name.
func (s *Store) otherMasters() []Master {
	now := time.Now()
	out := []Master{}
	for _, m := range s.members.Members(now) {
		shown := showMaster(now, m, s.replica.Agreement(m.ID))
		if id, err := peer.Decode(m.ID); err == nil {
			shown.RTTms = float64(s.cluster.Mesh().RTT(id).Microseconds()) / 1000
		}
		s.judge(now, &shown)
		out = append(out, shown)
	}
	slices.SortStableFunc(out, func(a, b Master) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// showMaster is a master by what is known of it and of its records.
func showMaster(now time.Time, m membership.Member, a replica.Agreement) Master {
	out := Master{
		ID: m.ID, Name: m.Name, RPCURLs: nonNil(m.RPCURLs), UIURLs: nonNil(m.UIURLs),
		MeshAddrs: withID(m.MeshAddrs, m.ID), EdgeAddrs: withID(m.EdgeAddrs, m.ID),
		Status: MasterStatus(m.Status), Version: m.Version, LastSeen: m.LastSeen, Nodes: m.Nodes, Digest: m.Digest,
		ClockSkewS: m.Skew.Seconds(), Hears: m.Hears, HeardBy: m.HeardBy, SettingsDiffer: m.SettingsDiffer,
		InSync: a.InSync && m.Status == membership.Alive,
	}
	if m.Status == membership.Suspect && len(m.HeardBy) > 0 {
		out.Reason = "other masters hear it, this one does not"
	}
	if !a.InSync && !a.Equal.IsZero() {
		out.LagS, out.Differs = now.Sub(a.Equal).Seconds(), a.Differs
	}
	return out
}

// judge adds what is known of the way to a master, and of whoever has its identity.
func (s *Store) judge(now time.Time, m *Master) {
	if why := s.members.PartiallyConnected(m.ID); why != "" {
		m.PartiallyConnected, m.Reason = true, why
	}
	if id, err := peer.Decode(m.ID); err == nil && m.Status == MasterAlive {
		direct, since := s.cluster.Straight(now, id)
		if m.Direct = direct; !direct && m.Reason == "" && now.Sub(since) >= indirectAfter {
			m.Reason = "announcements do not go straight between it and this master; they go by way of others, or are fetched"
			m.Since = s.cfg.seams.Wall().Add(-now.Sub(since)).Round(0).UTC()
		}
	}
	if text, since, is := s.collisions.Of(m.ID); is {
		m.Cause, m.Since, m.Reason = CauseCollision, since.UTC(), text
	}
}

// unmet returns a row for each configured peer that was never met, nor heard of by way of
// others, in the order in which they are configured.
func (s *Store) unmet() []Master {
	now := time.Now()
	var out []Master
	for _, u := range s.cluster.Mesh().Unmet(s.met) {
		out = append(out, Master{
			Name: u.Peer, ID: u.ID.String(), Status: MasterNeverMet,
			Cause: Cause(u.Cause), Reason: u.Reason, Since: s.cfg.seams.Wall().Add(-now.Sub(u.Since)).Round(0).UTC(),
			MeshAddrs: nonNil(u.Addrs), RPCURLs: []string{}, UIURLs: []string{}, EdgeAddrs: []string{}, HeardBy: []string{}, SettingsDiffer: []string{},
		})
	}
	return out
}

func (s *Store) met(id peer.ID) bool { return s.members.Has(id.String()) }

func withID(addrs []string, id string) []string {
	out := make([]string, len(addrs))
	for i, a := range addrs {
		out[i] = a + "/p2p/" + id
	}
	return out
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

// lookAtMasters has watchers and the event log know what has become of the other masters.
// It is called about once a second.
func (s *Store) lookAtMasters(now time.Time) {
	var unmet []membership.Unmet
	for _, u := range s.cluster.Mesh().Unmet(s.met) {
		unmet = append(unmet, membership.Unmet{Peer: u.Peer, ID: u.ID.String(), Cause: string(u.Cause), Reason: u.Reason, Since: u.Since})
	}
	_, joining := s.replica.Joining()
	s.members.Look(now, joining, unmet)
	s.cluster.Mesh().ForgetUnheard(now, s.members.Has)
	s.lookForSplits(now, joining)
}
