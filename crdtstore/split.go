package crdtstore

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
	// maxSplitNodes is of how many nodes it is remembered how they were before a split.
	maxSplitNodes = 10_000
	// maxOverridden is how many overridden values an event names. It counts all.
	maxOverridden = 20
)

// What happens to the grid when masters cannot talk, and after it.
const (
	EventSplit  = "split"  // another master holds something else, or cannot be reached
	EventMerged = "merged" // both hold the same again
)

// Split says that another master has held something else than this one for a while, or
// cannot be reached, so that what it holds is unknown. It heals itself as soon as the two
// can talk.
type Split struct {
	Master string    `json:"master"` // id
	Name   string    `json:"name"`
	Since  time.Time `json:"since"` // by this master's clock, when the other was last known to hold the same
	LagS   float64   `json:"lag_s"` // seconds since then
	// Nodes is how many nodes differed when the records were last compared; of a master
	// that cannot be reached, how many have changed here since. At most 10,000.
	Nodes       int      `json:"nodes"`
	Unreachable bool     `json:"unreachable"` // the other master is silent
	HeardBy     []string `json:"heard_by"`    // ids of masters that say that they hear it
}

// splits are the open splits, and what is needed to say later what they cost. Its
// methods may be called concurrently.
type splits struct {
	mu   sync.Mutex
	open map[string]*split // by master
	// before is how the nodes were that changed here since agreed, which is when all
	// masters were last known to hold the same.
	before map[string]changedNode
	agreed time.Time
	// met is what came of the nodes since the two sides of a split can talk again; nil
	// while there is no such split.
	met map[string]*mergeReport
}

type split struct {
	since      time.Time
	nodes      int
	silent     bool
	contact    time.Time // when it was heard again; zero: not yet
	merged     int       // nodes that were merged so far
	lost       []string  // values that were lost so far, the first of them
	overridden int       // all of them
}

type changedNode struct {
	at, last time.Time    // when it changed first and last
	were     *table.Entry // before the first time; nil: it was not known
}

// mergeReport is a node as the two sides of a split say it.
type mergeReport struct{ here, there record.State }

// changed notes how a node was before it changed.
func (s *splits) changed(now time.Time, id string, were *table.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, known := s.before[id]
	switch {
	case !known && len(s.before) >= maxSplitNodes:
		return
	case !known || !c.at.After(s.agreed):
		c = changedNode{at: now, were: were}
	}
	if s.before == nil {
		s.before = map[string]changedNode{}
	}
	c.last = now
	s.before[id] = c
}

// arrives notes what comes of a node from other masters, before it is joined. Of which
// of them cannot be told apart; what comes in the moments in which a split heals is
// taken to be from its other side.
func (s *splits) arrives(id string, st record.State, here func() record.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.met == nil || len(st.Claims) == 0 && len(st.Overrides) == 0 && st.Removal.IsZero() {
		return
	}
	m := s.met[id]
	if m == nil {
		h := here()
		if len(s.met) >= maxSplitNodes || h.Dominates(st) && s.before[id] == (changedNode{}) {
			return // nothing new, and nothing that could be lost
		}
		m = &mergeReport{here: h}
		s.met[id] = m
	}
	m.there = record.Join(m.there, st)
}

// contact notes that a master can be heard again.
func (s *splits) contact(now time.Time, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.open[id]; p != nil && p.contact.IsZero() {
		s.meet(p, now)
	}
}

// The callers of these hold mu.

func (s *splits) meet(p *split, now time.Time) {
	p.contact = now
	if s.met == nil {
		s.met = map[string]*mergeReport{}
	}
}

// close counts for a split what has come since its sides met. What comes by two masters
// of the other side is counted for the one that is settled first.
func (s *splits) close(p *split, name func(string) string) {
	merged, lost := 0, []string{}
	for _, id := range slices.Sorted(maps.Keys(s.met)) {
		m := s.met[id]
		if !m.here.Dominates(m.there) {
			merged++
		}
		was, changed := s.before[id]
		if !changed {
			continue // nothing was said here, so nothing was lost
		}
		var base record.State
		if was.were != nil {
			base = was.were.State
		}
		for _, text := range overridden(base, m.here, m.there, name) {
			lost = append(lost, id+": "+text)
		}
	}
	p.merged, p.overridden = p.merged+merged, p.overridden+len(lost)
	p.lost = append(p.lost, lost[:min(len(lost), maxOverridden-len(p.lost))]...)
	p.contact, s.met = time.Time{}, nil
	for _, other := range s.open {
		if !other.contact.IsZero() {
			s.met = map[string]*mergeReport{}
		}
	}
}

func (s *splits) begin(id string, p *split) {
	if s.open == nil {
		s.open = map[string]*split{}
	}
	s.open[id] = p
}

func (s *splits) end(id string, name func(string) string) {
	if p := s.open[id]; p != nil {
		if !p.contact.IsZero() {
			s.close(p, name)
		}
		delete(s.open, id)
	}
}

// forget drops how nodes were that all masters know by now.
func (s *splits) forget() {
	maps.DeleteFunc(s.before, func(_ string, c changedNode) bool { return !c.last.After(s.agreed) })
}

// memberView is what is to be known of another master to see a split.
type memberView struct {
	id      string
	status  MasterStatus
	joining bool      // it, or this master, does not have all records yet
	inSync  bool      // as of its last word
	heard   time.Time // when that was; where it was never heard, when this run began
	same    time.Time // when both were last known to hold the same; zero: not in this run
	apart   time.Time // since when they may hold something else
	differs int
}

// look brings the splits up to date with what is known of the other masters, and tells
// of those that begin and end.
func (s *splits) look(now time.Time, masters []memberView, name func(string) string, publish func(master, what, text string)) {
	type news struct{ master, what, text string }
	var all []news
	s.mu.Lock()
	known := map[string]bool{}
	s.agreed = now
	for _, m := range masters {
		known[m.id] = true
		if m.status != MasterLeft && m.same.Before(s.agreed) {
			s.agreed = m.same
		}
		p := s.open[m.id]
		silent := m.status == MasterSuspect || m.status == MasterDown
		switch {
		case m.status == MasterLeft:
			s.end(m.id, name)
		case silent && p != nil:
			p.silent = true
			if !p.contact.IsZero() && now.Sub(p.contact) > splitAfter { // gone again before it was healed
				s.close(p, name)
			}
		case silent && now.Sub(m.heard) >= splitAfter:
			s.begin(m.id, &split{since: m.heard, silent: true})
			all = append(all, news{m.id, EventSplit, name(m.id) + " cannot be reached, and what it holds is unknown"})
		case silent, m.joining:
		case p == nil && !m.inSync && now.Sub(m.apart) >= splitAfter:
			p = &split{since: m.apart, nodes: m.differs}
			s.begin(m.id, p)
			s.meet(p, now)
			text := fmt.Sprintf("%s has held something else for %s", name(m.id), now.Sub(m.apart).Round(time.Second))
			if m.differs > 0 {
				text += fmt.Sprintf("; %s differed when they were compared", nodes(m.differs))
			}
			all = append(all, news{m.id, EventSplit, text})
		case p == nil:
		case p.contact.IsZero():
			s.meet(p, now)
		case m.same.After(p.contact):
			s.end(m.id, name)
			all = append(all, news{m.id, EventMerged, p.text(now, name(m.id))})
		default:
			p.silent, p.nodes = false, max(m.differs, p.nodes)
		}
	}
	for id := range s.open {
		if !known[id] {
			s.end(id, name)
		}
	}
	s.forget()
	s.mu.Unlock()
	for _, n := range all {
		publish(n.master, n.what, n.text)
	}
}

// text tells what became of a split.
func (p *split) text(now time.Time, name string) string {
	out := fmt.Sprintf("%s and this master hold the same again, after %s: ", name, now.Sub(p.since).Round(time.Second))
	if p.merged == 0 {
		out += "it had nothing that is new here"
	} else {
		out += nodes(p.merged) + " merged"
	}
	switch p.overridden {
	case 0:
		return out + ", no value was lost"
	case 1:
		out += ", 1 value was lost: "
	default:
		out += fmt.Sprintf(", %d values were lost: ", p.overridden)
	}
	out += strings.Join(p.lost, "; ")
	if more := p.overridden - len(p.lost); more > 0 {
		out += fmt.Sprintf("; and %d more", more)
	}
	return out
}

func nodes(n int) string {
	if n == 1 {
		return "1 node"
	}
	return fmt.Sprintf("%d nodes", n)
}

// list returns the open splits, the oldest first.
func (s *splits) list(now, wall time.Time) []Split {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Split, 0, len(s.open))
	for id, p := range s.open {
		age := now.Sub(p.since)
		one := Split{Master: id, Since: wall.Add(-age).UTC().Round(0), LagS: age.Seconds(), Nodes: p.nodes, Unreachable: p.silent}
		if p.silent {
			one.Nodes = len(s.before)
		}
		out = append(out, one)
	}
	slices.SortFunc(out, func(a, b Split) int {
		return cmp.Or(-cmp.Compare(a.LagS, b.LagS), cmp.Compare(a.Master, b.Master))
	})
	return out
}
