package crdtstore

import (
	"hash/maphash"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/page"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// What operators said travels in the records, so every master can tell who said what
// and through which master: it is noted when a state comes in that has a word which the
// node's entry had not. A word that loses against a later one is noted too, so that
// after a split both sides know what the other was told. What was said and taken back
// before a state was written is not in any, and known only where it was said.

// keySeed makes the keys by which a word is noted once, however often it comes in.
var keySeed = maphash.MakeSeed()

// overrideLogged is an override, or a removal, of a node, as it is logged.
type overrideLogged struct {
	node   string
	stamp  record.Stamp
	field  string // empty: a removal
	value  string // or the reason of a removal
	master string
	by     string
}

func overrideKey(node string, w record.Override) overrideLogged {
	return overrideLogged{node, w.Stamp, w.Field, w.Value, w.Master, w.By}
}

func removalKey(node string, r record.Removal) overrideLogged {
	return overrideLogged{node, r.Stamp, "", r.Reason, r.Master, r.By}
}

// logOverrides notes what operators say in a state that was joined into the entry of a node,
// if the entry before did not say it. It is called for every state that comes in.
func (s *Store) logOverrides(node string, before *table.Entry, st record.State) {
	if len(st.Overrides) == 0 && st.Removal.IsZero() {
		return
	}
	now := s.events.now()
	if now == asleep {
		return
	}
	var known record.State
	if before != nil {
		known = before.State
	}
	for _, w := range st.Overrides {
		if is := known.Override(w.Field); is != w && w.Master != "" && (now == awake || w.Master == s.text) {
			later := record.State{Overrides: []record.Override{is}}.Dominates(record.State{Overrides: []record.Override{w}})
			s.logOverride(overrideKey(node, w), later, true)
		}
	}
	if r := st.Removal; r != known.Removal && byOperator(r) && (now == awake || r.Master == s.text) {
		later := record.State{Removal: known.Removal}.Dominates(record.State{Removal: r})
		s.logOverride(removalKey(node, r), later, true)
	}
}

// byOperator reports whether somebody asked for a removal. A word without a master is
// one that a removal took back.
func byOperator(r record.Removal) bool { return !r.IsZero() && r.Reason != record.ReasonExpired }

// logOverride notes a word, unless it was; later tells that it lost against another one,
// and news that it was said in this run.
func (s *Store) logOverride(w overrideLogged, later, news bool) {
	o := Event{
		At: w.stamp.Time(), Kind: OperatorEvent,
		NodeID: w.node, Master: w.master, By: w.by,
	}
	label, isLabel := strings.CutPrefix(w.field, record.FieldLabel)
	value, set := strings.CutPrefix(w.value, "=")
	switch {
	case w.field == "":
		o.Type, o.Text = EventRemoved, w.node+" removed"
	case w.field == record.FieldDrain && w.value != "":
		o.Type, o.Text = EventDrained, w.node+" drained"
	case w.field == record.FieldDrain:
		o.Type, o.Text = EventUndrained, w.node+" no longer drained"
	case isLabel && set:
		o.Type, o.Text = EventLabelled, w.node+" labelled "+label+"="+value
	case isLabel:
		o.Type, o.Text = EventUnlabelled, w.node+" no longer labelled "+label
	default:
		return // a field of a newer version
	}
	if w.by != "" {
		o.Text += " by " + w.by
	}
	o.Text += " through " + s.nameOf(w.master)
	if later {
		o.Text += ", but a later word stands"
	}
	if w.field == "" && w.value != "" {
		o.Text += ": " + w.value
	}
	s.events.add(s.changes, o, maphash.Comparable(keySeed, w)|1, news) // a key is not 0
}

// remember begins to note what comes in, and notes what operators said before as far as
// it stands, oldest first. It is called when the records are here.
func (s *Store) remember() {
	// First, so that what comes in meanwhile is noted by one or the other.
	s.events.phase.Store(int32(awake))
	latest := page.First[overrideLogged]{Order: page.Order{Descending: true}, Limit: maxEvents / 2}
	add := func(w overrideLogged) {
		latest.Add(page.Place{Num: float64(w.stamp.Wall), ID: w.node + "/" + w.field}, w)
	}
	for e := range s.table.All() {
		for _, w := range e.State.Overrides {
			if w.Master != "" {
				add(overrideKey(e.ID, w))
			}
		}
		if byOperator(e.State.Removal) {
			add(removalKey(e.ID, e.State.Removal))
		}
	}
	words, _ := latest.Sorted("")
	for i := range words {
		s.logOverride(words[len(words)-1-i].Item, false, false)
	}
}
