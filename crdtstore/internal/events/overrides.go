package events

import (
	"hash/maphash"
	"iter"
	"strings"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/page"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/table"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// What operators ask for travels in the records, so every master can tell who set what
// and through which master: an override is logged when a state comes in that has one which
// the node's entry had not. One that loses against a later one is logged too, so that
// after a split both sides know of the other's. What was set and taken back before a state
// was written is not in any, and known only where it was set.

// keySeed makes the keys by which an override is logged once, however often it comes in.
var keySeed = maphash.MakeSeed()

// action is what an operator asked for: an override, or a removal, of a node.
type action struct {
	node   string
	stamp  record.Stamp
	field  string // empty: a removal
	value  string // or the reason of a removal
	master string
	by     string
}

func overrideOf(node string, w record.Override) action {
	return action{node, w.Stamp, w.Field, w.Value, w.Master, w.By}
}

func removalOf(node string, r record.Removal) action {
	return action{node, r.Stamp, "", r.Reason, r.Master, r.By}
}

// byOperator reports whether somebody asked for a removal.
func byOperator(r record.Removal) bool { return !r.IsZero() && r.Reason != record.ReasonExpired }

// StateJoined logs what operators ask for in a state that was joined into the entry of a
// node, if the entry before did not have it. It is called for every state that comes in.
func (l *Log) StateJoined(node string, before *table.Entry, st record.State) {
	if len(st.Overrides) == 0 && st.Removal.IsZero() {
		return
	}
	now := l.now()
	if now == loading {
		return
	}
	var known record.State
	if before != nil {
		known = before.State
	}
	for _, w := range st.Overrides {
		// An override without a master is one that a removal took back.
		if is := known.Override(w.Field); is != w && w.Master != "" && (now == live || w.Master == l.opts.Self) {
			lost := record.State{Overrides: []record.Override{is}}.Dominates(record.State{Overrides: []record.Override{w}})
			l.addAction(overrideOf(node, w), lost, true)
		}
	}
	if r := st.Removal; r != known.Removal && byOperator(r) && (now == live || r.Master == l.opts.Self) {
		lost := record.State{Removal: known.Removal}.Dominates(record.State{Removal: r})
		l.addAction(removalOf(node, r), lost, true)
	}
}

// addAction logs an action, unless it was; lost tells that it lost against a later one, and
// news that it was taken in this run.
func (l *Log) addAction(a action, lost, news bool) {
	e := Event{At: a.stamp.Time(), Kind: KindOperator, NodeID: a.node, Master: a.master, By: a.by}
	if e.Type, e.Text = a.describe(l.opts.Name); e.Type == "" {
		return
	}
	e.Text = a.node + " " + e.Text
	if lost {
		e.Text += ", but a later override prevails"
	}
	if a.field == "" && a.value != "" {
		e.Text += ": " + a.value
	}
	l.add(e, maphash.Comparable(keySeed, a)|1, news) // a key is not 0
}

// describe returns the type of the event of an action, "" for a field of a newer version,
// and says what was done, by whom and through which master.
func (a action) describe(name func(master string) string) (event, text string) {
	label, isLabel := strings.CutPrefix(a.field, record.FieldLabel)
	value, set := strings.CutPrefix(a.value, "=")
	switch {
	case a.field == "":
		event, text = TypeRemoved, "removed"
	case a.field == record.FieldDrain && a.value != "":
		event, text = TypeDrained, "drained"
	case a.field == record.FieldDrain:
		event, text = TypeUndrained, "no longer drained"
	case isLabel && set:
		event, text = TypeLabelled, "labelled "+label+"="+value
	case isLabel:
		event, text = TypeUnlabelled, "no longer labelled "+label
	default:
		text = a.field + " " + a.value
	}
	if a.by != "" {
		text += " by " + a.by
	}
	if a.master != "" {
		text += " through " + name(a.master)
	}
	return event, text
}

// Live begins to log what comes in, and logs what operators asked for before as far as it
// prevails in the given entries, oldest first. It is called when the records are here.
func (l *Log) Live(entries iter.Seq[*table.Entry]) {
	// First, so that what comes in meanwhile is logged by one or the other.
	l.phase.Store(int32(live))
	latest := page.First[action]{Order: page.Order{Descending: true}, Limit: maxEvents / 2}
	add := func(a action) {
		latest.Add(page.Place{Num: float64(a.stamp.Wall), ID: a.node + "/" + a.field}, a)
	}
	for e := range entries {
		for _, w := range e.State.Overrides {
			if w.Master != "" {
				add(overrideOf(e.ID, w))
			}
		}
		if byOperator(e.State.Removal) {
			add(removalOf(e.ID, e.State.Removal))
		}
	}
	actions, _ := latest.Sorted("")
	for i := range actions {
		l.addAction(actions[len(actions)-1-i].Item, false, false)
	}
}
