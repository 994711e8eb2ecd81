package events

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

const (
	// splitAfter is for how long another master may hold something else, or be silent,
	// before that is called a split.
	splitAfter = 5 * time.Second
	// maxSplitNodes is of how many nodes it is remembered that they have changed in a split.
	maxSplitNodes = 10_000
	// maxGaveWay is how many overrides that gave way an event names at most; for more its
	// text has no room. It counts all.
	maxGaveWay = 5
)

// The types of the events that say that a split begins or ends.
const (
	TypeSplit  = "split"
	TypeMerged = "merged"
)

// Splits is the history of splits: which are open, and what came of those that end. Its
// methods may be called concurrently.
type Splits struct {
	name  func(master string) string
	state func(node string) record.State

	mu     sync.Mutex // guards all below
	open   map[string]*split
	nodes  map[string]*splitNode // that have changed since agreed
	agreed time.Time             // when all masters were last known to hold the same
	// came and gaveWay are the nodes that came changed from the other side of a split, and
	// the overrides that gave way, which no event has told of yet.
	came    int
	gaveWay []string
}

type split struct {
	since  time.Time // when the other was last known to hold the same
	nodes  int       // that differed when the records were last compared
	silent bool
	heard  time.Time // when the other was heard again; zero: not yet
}

// splitNode is a node that has changed since all masters held the same.
type splitNode struct {
	first, last time.Time
	base        record.State // before the first change
	arrived     bool         // the first change came from the other side
	// there is what came from the other side and is not counted yet; here, as this side
	// knew the node before that.
	here, there record.State
}

// NewSplits returns the history of a master that has seen none. name returns what people
// call a master, and state what is known of a node.
func NewSplits(name func(master string) string, state func(node string) record.State) *Splits {
	return &Splits{name: name, state: state, open: map[string]*split{}, nodes: map[string]*splitNode{}}
}

// Changed notes that the entry of a node has changed; before is nil for a new node.
func (s *Splits) Changed(now time.Time, before, after *table.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[after.ID]
	if n == nil && len(s.nodes) >= maxSplitNodes {
		return
	}
	if n == nil || n.there.IsZero() && !n.first.After(s.agreed) {
		n = &splitNode{first: now}
		if before != nil {
			n.base = before.State
		}
		s.nodes[after.ID] = n
	}
	n.last = now
}

// Arrives notes what comes of a node from other masters, before it is joined. Of which
// of them cannot be told apart; what comes in the moments in which a split heals is
// taken to be from its other side.
func (s *Splits) Arrives(now time.Time, id string, st record.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.healing() || len(st.Claims) == 0 && len(st.Overrides) == 0 && st.Removal.IsZero() {
		return
	}
	st.LastSeen = 0 // that a node lives is no change of it
	n, here := s.nodes[id], s.state(id)
	if n == nil {
		if len(s.nodes) >= maxSplitNodes || here.Dominates(st) {
			return
		}
		n = &splitNode{first: now, base: here, arrived: true}
		s.nodes[id] = n
	}
	if n.there.IsZero() {
		n.here = here
	}
	n.last, n.there = now, record.Join(n.there, st)
}

// Heard notes that a master is heard.
func (s *Splits) Heard(now time.Time, master string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.open[master]; p != nil && p.heard.IsZero() {
		p.heard = now
	}
}

// healing reports whether the sides of a split can talk again. The caller holds mu.
func (s *Splits) healing() bool {
	for _, p := range s.open {
		if !p.heard.IsZero() {
			return true
		}
	}
	return false
}

// count counts what has come from the other side. What comes by two masters of that side is
// counted once. The caller holds mu.
func (s *Splits) count() {
	var ids []string
	for id, n := range s.nodes {
		if !n.there.IsZero() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		n := s.nodes[id]
		if !n.here.Dominates(n.there) {
			s.came++
		}
		for _, text := range gaveWay(n.base, n.here, n.there, s.name) {
			s.gaveWay = append(s.gaveWay, id+": "+text)
		}
		n.there = record.State{}
	}
}

// changedHere counts the nodes that have changed on this side of a split. The caller holds
// mu.
func (s *Splits) changedHere(p *split) (count int) {
	for _, n := range s.nodes {
		if n.last.After(p.since) && !n.arrived {
			count++
		}
	}
	return count
}

// Master is what is to be known of another master to see a split.
type Master struct {
	ID      string
	Left    bool      // closed on purpose
	Silent  bool      // suspect or down
	Joining bool      // it, or this master, does not have all records yet
	InSync  bool      // as of its last pulse
	Heard   time.Time // when that was; where it was never heard, when this run began
	Same    time.Time // when both were last known to hold the same; zero: not in this run
	Apart   time.Time // since when they may hold something else
	Differs int       // nodes, when they were last compared
}

// Look brings the splits up to date with what is known of the other masters, and returns
// the events of those that begin and end.
func (s *Splits) Look(now time.Time, masters []Master) (news []Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add := func(event, master, text string) {
		news = append(news, Event{Kind: KindGrid, Type: event, Master: master, Text: text})
	}
	known := map[string]bool{}
	s.agreed = now
	for _, m := range masters {
		if m.Left {
			continue
		}
		known[m.ID] = true
		if m.Same.Before(s.agreed) {
			s.agreed = m.Same
		}
		p := s.open[m.ID]
		switch {
		case m.Silent && p != nil:
			p.silent = true
			if now.Sub(p.heard) > splitAfter { // silent again before it was healed
				p.heard = time.Time{}
			}
		case m.Silent && now.Sub(m.Heard) >= splitAfter:
			s.open[m.ID] = &split{since: m.Heard, silent: true}
			add(TypeSplit, m.ID, s.name(m.ID)+" cannot be reached, and what it holds is unknown")
		case m.Silent, m.Joining:
		case p == nil && !m.InSync && now.Sub(m.Apart) >= splitAfter:
			s.open[m.ID] = &split{since: m.Apart, nodes: m.Differs, heard: now}
			text := fmt.Sprintf("%s has held something else for %s", s.name(m.ID), now.Sub(m.Apart).Round(time.Second))
			if m.Differs > 0 {
				text += fmt.Sprintf("; nodes that differed when they were compared: %d", m.Differs)
			}
			add(TypeSplit, m.ID, text)
		case p == nil:
		case p.heard.IsZero():
			p.heard = now
		case m.Same.After(p.heard):
			s.count()
			delete(s.open, m.ID)
			add(TypeMerged, m.ID, s.outcome(now, m.ID, p))
		default:
			p.silent, p.nodes = false, max(m.Differs, p.nodes)
		}
	}
	maps.DeleteFunc(s.open, func(id string, _ *split) bool { return !known[id] })
	if !s.healing() {
		s.count()
	}
	if len(s.open) == 0 {
		s.came, s.gaveWay = 0, nil
	}
	maps.DeleteFunc(s.nodes, func(_ string, n *splitNode) bool { return !n.last.After(s.agreed) })
	return news
}

// outcome tells what came of a split. The caller holds mu.
func (s *Splits) outcome(now time.Time, master string, p *split) string {
	text := fmt.Sprintf("%s and this master hold the same again, after %s; nodes changed here: %d, there: %d",
		s.name(master), now.Sub(p.since).Round(time.Second), s.changedHere(p), s.came)
	if n := len(s.gaveWay); n > 0 {
		text += fmt.Sprintf("; overrides that gave way: %d, %s", n, strings.Join(s.gaveWay[:min(n, maxGaveWay)], "; "))
	}
	s.came, s.gaveWay = 0, nil
	return text
}

// OpenSplit is a split that has not healed yet.
type OpenSplit struct {
	Master string
	Age    time.Duration // since the other master was last known to hold the same
	// Nodes is how many nodes differed when the records were last compared; of a master that
	// is silent, how many have changed here since. At most 10,000.
	Nodes  int
	Silent bool
}

// Open returns the open splits, the oldest first.
func (s *Splits) Open(now time.Time) []OpenSplit {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]OpenSplit, 0, len(s.open))
	for id, p := range s.open {
		one := OpenSplit{Master: id, Age: now.Sub(p.since), Nodes: p.nodes, Silent: p.silent}
		if p.silent {
			one.Nodes = s.changedHere(p)
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b OpenSplit) int {
		return cmp.Or(-cmp.Compare(a.Age, b.Age), strings.Compare(a.Master, b.Master))
	})
	return out
}
