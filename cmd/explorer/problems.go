package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/stats"
	"forge.ourworld.tf/lhumina_code/hero_explorer/explorer"
)

// problem is something that is not well, and what an operator can do about it.
type problem struct {
	Kind   string `json:"kind"`
	Master string `json:"master,omitempty"` // id, or the configured address of one that was never met
	Text   string `json:"text"`
	Do     string `json:"do"`
}

// The kinds of problems.
const (
	unhealthy    = "unhealthy"           // the master that was asked cannot serve
	collision    = "identity_collision"  // two processes have one identity
	neverMet     = "never_met"           // a configured peer
	masterDown   = "master_down"         // silent, and heard by nobody
	masterSilent = "master_suspect"      // silent, or heard by others only
	differs      = "differs"             // a master holds other records, and has for a while
	partial      = "partially_connected" // nodes cannot reach a master that they reach others
	indirect     = "indirect"            // a master is alive, and has no straight connection to this one
	clockOff     = "clock"
	settingsOff  = "settings_differ"
	preserving   = "preservation"
	idConflict   = "id_conflict"
)

// kinds are in the order in which problems are listed.
var kinds = []string{
	unhealthy, collision, neverMet, masterDown, masterSilent, differs, partial, indirect, clockOff, settingsOff, preserving, idConflict,
}

// maxSkewS is how many seconds a clock may be off before it is a problem.
const maxSkewS = 5

// neverMetDo says what to do about a peer that was never met, by the cause.
var neverMetDo = map[crdtstore.Cause]string{
	crdtstore.CauseUnreachable: "see that it runs, that the address in peer-masters is right, and that no firewall is between",
	crdtstore.CauseRefused:     "start it, or put its mesh port (9004 by default) into peer-masters; without a secret it has to name this master as well",
	crdtstore.CauseSecret:      "give all masters the same cluster secret, and restart those that have another",
	crdtstore.CauseNoMeshPort:  "put its mesh port (9004 by default) into peer-masters, not that of its API or page",
	crdtstore.CauseCollision:   "stop the copy, or delete identity.key from its data directory and start it anew",
}

// causes are those of masters that say no more.
var causes = map[crdtstore.Cause]string{
	crdtstore.CauseUnreachable: "it cannot be reached",
	crdtstore.CauseRefused:     "it refuses connections",
	crdtstore.CauseSecret:      "its cluster secret is another one",
	crdtstore.CauseNoMeshPort:  "there is no mesh port at that address",
	crdtstore.CauseCollision:   "two processes have its identity",
}

// problems lists what is not well, as far as a master knows. notWell is what its /health
// says against it. What a master of an earlier version does not tell is no problem.
func problems(notWell error, reason string, s crdtstore.Stats, m explorer.MastersAnswer) []problem {
	out := []problem{}
	add := func(kind string, of crdtstore.Master, text, do string) {
		out = append(out, problem{kind, cmp.Or(of.ID, of.Name), text, do})
	}
	self := crdtstore.Master{ID: m.Self}
	switch {
	case notWell == nil:
	case s.Joining != nil:
		add(unhealthy, self, fmt.Sprintf("this master is joining: %d of %s are here", s.Joining.Nodes, counted(s.Joining.Of, "node")),
			"wait; if it takes longer than a minute, see which of the masters below cannot be reached")
	case strings.Contains(reason, "disk"):
		add(unhealthy, self, "this master cannot serve: "+reason, "free or repair its disk; it goes on by itself then")
	default:
		add(unhealthy, self, "this master cannot serve: "+reason, "use another one meanwhile, and see its log")
	}
	apart := map[string]stats.Split{}
	for _, one := range s.Convergence.Splits {
		apart[one.Master] = one
	}
	for _, one := range m.Masters {
		split, isApart := apart[one.ID]
		delete(apart, one.ID)
		switch {
		case one.Status == crdtstore.MasterDown || one.Status == crdtstore.MasterSuspect:
			out = append(out, silent(one, split))
		case one.Status == crdtstore.MasterNeverMet:
			add(neverMet, one, "master "+one.Name+" was never met"+because(one)+since(one.Since), cmp.Or(neverMetDo[one.Cause], "wait; it was not tried yet"))
		case isApart && one.Status == crdtstore.MasterAlive:
			add(differs, one, splitText(split), "wait, for they merge by themselves; explorer diff "+one.Name+" shows what differs")
		}
	}
	for _, one := range s.Convergence.Splits { // of masters that are not listed
		if _, left := apart[one.Master]; left {
			add(differs, crdtstore.Master{ID: one.Master}, splitText(one), "wait, for they merge by themselves as soon as they can talk")
		}
	}
	for _, one := range m.Masters {
		out = append(out, oddities(one)...)
	}
	if p := s.Preservation; p != nil {
		add(preserving, crdtstore.Master{}, fmt.Sprintf("%d of %s fell silent at once and count as suspect rather than offline until %s", p.Late, counted(p.Of, "node"), p.EndsBy.Local().Format(time.TimeOnly)),
			"look at the network of this master; if the nodes are really dead, explorer nodes end-preservation")
	}
	if s.Conflicts > 0 {
		add(idConflict, crdtstore.Master{}, counted(s.Conflicts, "node id")+" claimed by more than one machine", "explorer nodes --conflict lists them; give each machine a node id of its own")
	}
	slices.SortStableFunc(out, func(a, b problem) int {
		return cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind))
	})
	return out
}

// silent is the problem of a master that is not heard.
func silent(one crdtstore.Master, split stats.Split) problem {
	text := "master " + one.Name + " is down, last heard " + heardAgo(one.LastSeen)
	p := problem{masterDown, one.ID, text, "start it, or mend the network to it; the others serve meanwhile"}
	if one.Status == crdtstore.MasterSuspect {
		p.Kind, p.Text = masterSilent, "master "+one.Name+" has been silent for "+ago(one.LastSeen)
		p.Do = "wait a few seconds; if it stays, see that it runs"
		if len(one.HeardBy) > 0 {
			p.Text, p.Do = "master "+one.Name+" is heard by other masters and not by this one", "mend the network between the two"
		}
	}
	if split.Nodes > 0 {
		p.Text += fmt.Sprintf("; %s changed here since", counted(split.Nodes, "node"))
	}
	return p
}

// oddities are the problems of a master that do not depend on whether it is heard.
func oddities(one crdtstore.Master) []problem {
	var out []problem
	add := func(kind, text, do string) { out = append(out, problem{kind, one.ID, text, do}) }
	if one.Cause == crdtstore.CauseCollision && one.Status != crdtstore.MasterNeverMet {
		what, do, _ := strings.Cut(one.Reason, "; ")
		add(collision, "master "+one.Name+": "+what+since(one.Since), cmp.Or(do, neverMetDo[crdtstore.CauseCollision]))
	}
	if one.PartiallyConnected {
		add(partial, "master "+one.Name+" is only partially connected: it "+one.Reason, "see that nodes can reach its API and edge addresses")
	}
	if one.Status == crdtstore.MasterAlive && !one.Direct && one.Cause == "" && !one.Since.IsZero() {
		add(indirect, "nothing goes straight between master "+one.Name+" and this one"+since(one.Since)+"; it goes by way of others, or is fetched", "mend the network between the two, in both directions")
	}
	if skew := one.ClockSkewS; one.Status == crdtstore.MasterAlive && (skew > maxSkewS || skew < -maxSkewS) {
		where := "ahead of"
		if skew < 0 {
			where, skew = "behind", -skew
		}
		add(clockOff, fmt.Sprintf("the clock of %s is %s %s this master's", one.Name, age(time.Duration(skew*float64(time.Second))), where), "set the wrong one right; NTP keeps it so")
	}
	if len(one.SettingsDiffer) > 0 {
		add(settingsOff, "settings of "+one.Name+" differ from this master's: "+strings.Join(one.SettingsDiffer, "; "), "give all masters the same, and restart those that have other ones")
	}
	return out
}

func because(one crdtstore.Master) string {
	switch {
	case one.Reason != "":
		return ": " + one.Reason
	case one.Cause != "":
		return ": " + cmp.Or(causes[one.Cause], string(one.Cause))
	}
	return ""
}

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return ", for " + ago(t)
}

func heardAgo(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return ago(t) + " ago"
}

// counted is a number of things.
func counted(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
