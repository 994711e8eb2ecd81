package liveness

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// The board counts what one would count by hand: a node was alive if a master has heard it
// within twice that master's limit, or since silence is doubted and the limit before that,
// unless the silence is so long that the node is known to be dead; and it is late if none
// has heard it within half of its limit.
func TestSilence(t *testing.T) {
	seconds := func(r *rapid.T, name string, most int) time.Duration {
		return time.Duration(rapid.IntRange(0, most).Draw(r, name)) * time.Second
	}
	rapid.Check(t, func(r *rapid.T) {
		now := time.Unix(1_000_000, 0)
		limits := map[string]time.Duration{"self": 30 * time.Second, "b": seconds(r, "limit", 60) + time.Second, "c": 10 * time.Second}
		since, dead := seconds(r, "since", 120), seconds(r, "dead", 200)
		b := New("self")
		late, alive := 0, 0
		var ignored []string
		for i := range rapid.IntRange(0, 12).Draw(r, "nodes") {
			id := fmt.Sprint("n", i)
			isAlive, heardInTime := false, false
			for _, master := range []string{"self", "b", "c"} {
				if rapid.IntRange(0, 2).Draw(r, "silent") == 0 {
					continue
				}
				age, limit := seconds(r, "age", 200), limits[master]
				b.Merge(now, master, Pulse{NodeID: id, Age: age})
				alive := age <= 2*limit || age <= limit+since
				isAlive = isAlive || alive && (dead == 0 || age <= dead)
				heardInTime = heardInTime || age <= limit/2
			}
			if isAlive && !heardInTime && rapid.IntRange(0, 4).Draw(r, "removed") == 0 {
				ignored = append(ignored, id)
				continue
			}
			if isAlive {
				alive++
			}
			if isAlive && !heardInTime {
				late++
			}
		}
		q := Silence{Now: now, Since: since, Dead: dead, Limit: func(master string) time.Duration { return limits[master] }}
		gotLate, gotAlive := b.Silent(q, func(id string) bool { return !slices.Contains(ignored, id) })
		if gotLate != late || gotAlive != alive {
			r.Errorf("%d of %d are late, want %d of %d", gotLate, gotAlive, late, alive)
		}
	})
}

// When a node was heard is when the last of all masters heard it, in whatever order they
// tell; and when this one heard it is its own affair.
func TestWhoHeardWhen(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	for _, order := range [][]string{{"b", "self", "c"}, {"c", "b", "self"}, {"self", "c", "b"}} {
		b, ages := New("self"), map[string]time.Duration{"self": 20 * time.Second, "b": 10 * time.Second, "c": 30 * time.Second}
		observations := false
		for _, m := range order {
			if got := b.Direct("n"); got.IsZero() == observations {
				t.Errorf("%v: this master has heard it at %v, before %s has", order, got, m)
			}
			if m == "self" {
				b.Beat(now.Add(-ages[m]), "n", record.Version{}, nil, nil)
				observations = true
			} else {
				b.Merge(now, m, Pulse{NodeID: "n", Age: ages[m]})
			}
		}
		if got := b.LastHeard("n"); !got.Equal(now.Add(-10 * time.Second)) {
			t.Errorf("%v: last heard at %v", order, got)
		}
		if got := b.Direct("n"); !got.Equal(now.Add(-20 * time.Second)) {
			t.Errorf("%v: heard by this master at %v", order, got)
		}
	}
}

// A node that is forgotten with something to tell of it is told once, and is gone then; one
// that is heard again meanwhile is the same node, and is told once too.
func TestForgottenWhileQueued(t *testing.T) {
	b, now := New("self"), time.Unix(1, 0)
	first, second := record.Version{Boot: 1, Seq: 1}, record.Version{Boot: 1, Seq: 2}
	b.Beat(now, "n", first, nil, nil)
	b.Forget("n")
	if got := b.Collect(now); len(got) != 1 {
		t.Errorf("told is %v", got)
	}
	if _, ok := b.Vital("n", nil); ok {
		t.Error("it is known still")
	}

	b.Beat(now, "n", first, nil, nil)
	b.Forget("n")
	if b.Beat(now, "n", first, nil, nil) {
		t.Error("a beat counts twice")
	}
	b.Beat(now, "n", second, nil, nil)
	if got := b.Collect(now); len(got) != 1 || got[0].Version != second {
		t.Errorf("told is %v", got)
	}
	if _, ok := b.Vital("n", nil); !ok {
		t.Error("it was heard, and is not known")
	}
}
