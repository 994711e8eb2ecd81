package record

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// The oracle is a second implementation of the merge, of another kind: it keeps
// every assertion that was ever made, in a set that only grows, and merges by
// union, about which nothing can be wrong. What a reader sees is searched for in
// the whole set each time, by the definitions and not by registers: no join, no
// sorted lists, no incremental anything.

// fact is one assertion. Of the facts about one thing the one stands that none
// other outranks; Rank is compared place by place.
type fact struct {
	About string // "claim", "profile", "vms", "first", "gone", "word", "removal", "seen"
	Of    string // the claim's key, or the word's field
	Gen   uint64 // the generation of a claim
	Rank  []any
	At    int64 // when an account was accepted
}

// facts is the set of all assertions that a replica has heard of.
type facts map[string]fact

func (f facts) add(x fact) { f[fmt.Sprintf("%#v", x)] = x }

// union adds all that g has heard of.
func (f facts) union(g facts) {
	for k, x := range g {
		f[k] = x
	}
}

// assert adds what a state says, one fact for each thing it speaks of.
func (f facts) assert(s State) {
	for _, c := range s.Claims {
		f.add(fact{"claim", c.Key, s.Generation, nil, 0})
		if c.RemovedBelow > 0 {
			f.add(fact{"gone", c.Key, s.Generation, []any{c.RemovedBelow}, 0})
		}
		for about, a := range map[string]Account{"profile": c.Profile, "vms": c.VMs} {
			if a != (Account{}) {
				f.add(fact{about, c.Key, s.Generation, []any{a.Version.Boot, a.Version.Seq, a.Body, a.Seal, a.At}, a.At})
			}
		}
		if c.First != (Stamp{}) {
			f.add(fact{"first", c.Key, s.Generation, []any{-c.First.Wall, -int64(c.First.Logical)}, 0})
		}
	}
	for _, w := range s.Overrides {
		f.add(fact{"word", w.Field, 0, []any{w.Stamp.Wall, int64(w.Stamp.Logical), w.Master, w.Value, w.By}, 0})
	}
	if r := s.Removal; r != (Removal{}) {
		f.add(fact{"removal", "", 0, []any{r.Boot, r.Stamp.Wall, int64(r.Stamp.Logical), r.Master, r.Reason, r.By}, 0})
	}
	f.add(fact{"seen", "", 0, []any{s.LastSeen}, 0})
}

func outranks(x, y []any) bool {
	for i := range x {
		var c int
		switch v := x[i].(type) {
		case uint64:
			c = cmp.Compare(v, y[i].(uint64))
		case int64:
			c = cmp.Compare(v, y[i].(int64))
		case string:
			c = cmp.Compare(v, y[i].(string))
		}
		if c != 0 {
			return c > 0
		}
	}
	return false
}

// generation is the latest in which a claim was made.
func (f facts) generation() (latest uint64) {
	for _, x := range f {
		latest = max(latest, x.Gen)
	}
	return latest
}

// standing returns the fact about a thing that no other outranks. Of claims only those
// of the latest generation count, and of more than two the VMs are not known.
func (f facts) standing(about, of string) (fact, bool) {
	gen := uint64(0)
	if slices.Contains([]string{"profile", "vms", "first", "gone"}, about) {
		gen = f.generation()
	}
	if about == "vms" && len(f.each("claim")) > 2 {
		return fact{}, false
	}
search:
	for _, x := range f {
		if x.About != about || x.Of != of || x.Gen != gen {
			continue
		}
		for _, y := range f {
			if y.About == about && y.Of == of && y.Gen == gen && outranks(y.Rank, x.Rank) {
				continue search
			}
		}
		return x, true
	}
	return fact{}, false
}

// each returns what the facts of a kind speak of, in order; of claims those of the latest
// generation.
func (f facts) each(about string) []string {
	set := map[string]bool{}
	for _, x := range f {
		if x.About == about && (about != "claim" || x.Gen == f.generation()) {
			set[x.Of] = true
		}
	}
	return sortedKeys(set)
}

// identity is all that the facts say of one claim.
type identity struct {
	key          string
	profile, vms fact
	boot, seq    uint64 // the greatest version it has spoken of
	first        []any
	hidden       bool // the removal hides all of it
}

func (f facts) identities(gone func(key string, boot uint64) bool) (all []identity) {
	for _, key := range testKeys {
		id := identity{key: key}
		var spoke bool
		for _, about := range []string{"profile", "vms"} {
			x, ok := f.standing(about, key)
			if !ok {
				continue
			}
			spoke = true
			if about == "profile" {
				id.profile = x
			} else {
				id.vms = x
			}
			if v := (Version{x.Rank[0].(uint64), x.Rank[1].(uint64)}); v.Boot > id.boot || v.Boot == id.boot && v.Seq > id.seq {
				id.boot, id.seq = v.Boot, v.Seq
			}
		}
		if first, ok := f.standing("first", key); ok {
			id.first = first.Rank
		}
		id.hidden = gone(key, id.boot)
		if spoke {
			all = append(all, id)
		}
	}
	return all
}

// view computes what a reader sees.
func (f facts) view(nodeID string) Node {
	n := Node{NodeID: nodeID, VMs: []VM{}, SeenBy: []Observer{}, Tunnel: []string{}}
	removal, removed := f.standing("removal", "")
	gone := func(key string, boot uint64) bool {
		if below, ok := f.standing("gone", key); ok && (boot < below.Rank[0].(uint64) || below.Rank[0] == uint64(math.MaxUint64)) {
			return true
		}
		return f.generation() == 0 && removed && boot <= removal.Rank[0].(uint64)
	}
	var updated int64

	// The owner: signed before unsigned, then who came first, then the lesser key.
	var owner *identity
	all := f.identities(gone)
	for i, id := range all {
		if !id.hidden && (owner == nil || speaksBefore(id, *owner)) {
			owner = &all[i]
		}
	}
	shown := owner
	if owner == nil && removed { // a removed node is shown as it last was
		for i, id := range all {
			if shown == nil || id.boot > shown.boot || id.boot == shown.boot && id.seq > shown.seq ||
				id.boot == shown.boot && id.seq == shown.seq && id.key < shown.key {
				shown = &all[i]
			}
		}
		gone = func(string, uint64) bool { return false }
		at := instant(removal.Rank[1].(int64))
		n.RemovedAt, updated = &at, removal.Rank[1].(int64)
	}
	if shown != nil {
		n.PublicKey, n.Signed = []byte(shown.key), shown.key != ""
		n.Boot, n.Seq = shown.boot, shown.seq
		if shown.first != nil {
			n.CreatedAt = instant(-shown.first[0].(int64))
		}
		if x := shown.profile; x.Rank == nil && !gone(shown.key, 0) || x.Rank != nil && !gone(shown.key, x.Rank[0].(uint64)) {
			n.Profile = profileOf(x)
			updated = max(updated, x.At)
		}
		if x := shown.vms; x.Rank == nil && !gone(shown.key, 0) || x.Rank != nil && !gone(shown.key, x.Rank[0].(uint64)) {
			for _, vm := range vmsOf(x) {
				vm.NodeID, vm.AsOf = nodeID, instant(x.At).Format(time.RFC3339)
				n.VMs = append(n.VMs, vm)
			}
			updated = max(updated, x.At)
		}
	}
	if owner != nil {
		n.Conflict = conflictOf(all, *owner)
	}

	labels := map[string]string{}
	for k, v := range n.Labels {
		labels[k] = v
	}
	n.Labels = labels
	for _, field := range f.each("word") {
		w, _ := f.standing("word", field)
		updated = max(updated, w.Rank[0].(int64))
		value := w.Rank[3].(string)
		switch name, isLabel := strings.CutPrefix(field, FieldLabel); {
		case field == FieldDrain:
			n.Drained = value != ""
		case isLabel && strings.HasPrefix(value, "="):
			labels[name] = value[1:]
		case isLabel && value == LabelUnset:
			delete(labels, name)
		}
	}
	n.UpdatedAt = instant(updated)
	if seen, ok := f.standing("seen", ""); ok {
		n.LastSeen = instant(seen.Rank[0].(int64))
	}
	return n
}

func speaksBefore(a, b identity) bool {
	switch {
	case (a.key != "") != (b.key != ""):
		return a.key != ""
	case (a.first == nil) != (b.first == nil):
		return a.first != nil
	case a.first != nil && outranks(a.first, b.first):
		return true // ranks of firsts are negated: the earlier outranks
	case a.first != nil && outranks(b.first, a.first):
		return false
	}
	return a.key < b.key
}

// conflictOf lists everybody who claims the node now, but for the unsigned
// sender whom a signed one of the same or a later boot has replaced.
func conflictOf(all []identity, owner identity) *Conflict {
	c := &Conflict{Reason: "several identities claim this node id"}
	for _, key := range sortedKeys(map[string]bool{"": true, testKeys[1]: true, testKeys[2]: true}) {
		for _, id := range all {
			if id.key != key || id.hidden || key == "" && owner.key != "" && id.boot <= owner.boot {
				continue
			}
			p, since := profileOf(id.profile), time.Time{}
			if id.first != nil {
				since = instant(-id.first[0].(int64))
			}
			if c.Since.Before(since) {
				c.Since = since
			}
			c.Claims = append(c.Claims, ConflictClaim{[]byte(key), id.boot, id.seq, p.Hostname, p.SocketPath, since, key == owner.key})
		}
	}
	if len(c.Claims) < 2 {
		return nil
	}
	return c
}

// profileOf and vmsOf look the bodies up instead of decoding them.
func profileOf(x fact) Profile {
	for _, p := range testProfiles {
		if x.Rank != nil && x.Rank[2] == p.encode() {
			return p
		}
	}
	if x.Rank != nil && x.Rank[2] != "\xff" {
		p, _ := DecodeProfile(x.Rank[2].(string)) // completed from two reports
		return p
	}
	return Profile{}
}

func vmsOf(x fact) []VM {
	for _, vms := range testVMLists {
		if x.Rank != nil && x.Rank[2] == encodeVMs(vms) {
			return append([]VM(nil), vms...)
		}
	}
	return nil
}

func instant(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.Unix(0, 0).UTC().Add(time.Duration(ms) * time.Millisecond)
}

func sortedKeys(set map[string]bool) (keys []string) {
	for k := range set {
		at := 0
		for at < len(keys) && keys[at] < k {
			at++
		}
		keys = append(keys[:at], append([]string{k}, keys[at:]...)...)
	}
	return keys
}
