package record

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// replica is a master with a clock of its own, beside it the oracle.
type replica struct {
	name  string
	ahead int64 // its clock against the true time, in milliseconds
	state State
	heard facts
	dirty bool // not compared with the oracle since it changed
}

// letter is a state on its way, with the facts that it carries.
type letter struct {
	state State
	heard facts
}

func (r *replica) say(delta State) letter {
	r.state = Join(r.state, delta)
	r.heard.assert(delta)
	r.dirty = true
	l := letter{delta, facts{}}
	l.heard.assert(delta)
	return l
}

func (r *replica) receive(t *rapid.T, l letter) {
	// What travels is bytes.
	s, err := Decode(string(l.state.Encode()))
	if err != nil {
		t.Fatalf("Decode: %v", err)
	}
	r.state = Join(r.state, s)
	r.heard.union(l.heard)
	r.dirty = true
}

// whole is all that a replica knows, as it sends it to another.
func (r *replica) whole() letter {
	l := letter{r.state, facts{}}
	l.heard.union(r.heard)
	return l
}

// TestHistoriesAgreeWithTheOracle lets several masters with clocks hours apart
// take reports, words and removals while the messages between them are delayed,
// reordered, repeated and lost, and compares every reader with the oracle after
// every step. At the end all exchange all, in any order, and must be equal.
func TestHistoriesAgreeWithTheOracle(t *testing.T) {
	const hour = 3_600_000
	rapid.Check(t, func(t *rapid.T) {
		var replicas []*replica
		for i := range rapid.IntRange(2, 4).Draw(t, "replicas") {
			replicas = append(replicas, &replica{
				name: fmt.Sprintf("m%d", i+1), ahead: draw(t, "ahead", int64(0), 0, -3, 3*hour, -3*hour),
				heard: facts{},
			})
		}
		var post []letter
		now := int64(4 * hour)
		any := func(t *rapid.T) *replica { return rapid.SampledFrom(replicas).Draw(t, "replica") }
		clock := func(r *replica) int64 { return now + r.ahead }
		master := func(r *replica) string { return r.name }

		t.Repeat(map[string]func(*rapid.T){
			"report": func(t *rapid.T) {
				r := any(t)
				delta, err := Accept(r.state, drawReport(t), Acceptance{Now: clock(r)})
				if refused := new(RefusedError); err != nil && !errors.As(err, &refused) {
					t.Fatalf("Accept: %v", err)
				}
				post = append(post, r.say(delta))
			},
			"word": func(t *rapid.T) {
				r := any(t)
				field := draw(t, "field", FieldDrain, FieldLabel+"x", FieldLabel+"z")
				before := r.state
				delta := r.state.Set(clock(r), master(r), "ann", field, draw(t, "value", "", "1", "=op", LabelUnset))
				post = append(post, r.say(delta))
				if got := r.state.Override(field); got != delta.Overrides[0] {
					t.Fatalf("the last word of %s is %+v, not %+v, over %+v", r.name, got, delta.Overrides[0], before)
				}
			},
			"remove": func(t *rapid.T) {
				r := any(t)
				post = append(post, r.say(r.state.Remove(clock(r), master(r), "ann", "gone")))
				if !r.state.Removed() {
					t.Fatalf("%s removed a node and still shows it: %+v", r.name, r.state)
				}
			},
			"arbitrary": func(t *rapid.T) {
				post = append(post, any(t).say(genState.Draw(t, "state")))
			},
			"send":    func(t *rapid.T) { post = append(post, any(t).whole()) },
			"deliver": func(t *rapid.T) { any(t).receive(t, rapid.SampledFrom(orSkip(t, post)).Draw(t, "letter")) },
			"lose": func(t *rapid.T) {
				i := rapid.IntRange(0, len(orSkip(t, post))-1).Draw(t, "letter")
				post = append(post[:i:i], post[i+1:]...)
			},
			"wait": func(*rapid.T) { now++ },
			"": func(t *rapid.T) {
				for _, r := range replicas {
					if !r.dirty {
						continue
					}
					r.dirty = false
					if got, want := asJSON(View(testNode, r.state)), asJSON(r.heard.view(testNode)); got != want {
						t.Fatalf("%s shows\n%s\nbut the oracle says\n%s\nof %+v", r.name, got, want, r.state)
					}
				}
			},
		})

		for _, i := range rapid.Permutation(indices(len(replicas)*len(replicas))).Draw(t, "exchange") {
			from, to := replicas[i/len(replicas)], replicas[i%len(replicas)]
			to.receive(t, from.whole())
		}
		for range replicas { // what one got late it passes on
			for i, to := range replicas {
				to.receive(t, replicas[(i+1)%len(replicas)].whole())
			}
		}
		for _, r := range replicas[1:] {
			if !bytes.Equal(r.state.Encode(), replicas[0].state.Encode()) || r.state.Digest(testNode) != replicas[0].state.Digest(testNode) {
				t.Fatalf("all exchanged all, and yet\n%+v\n%+v", r.state, replicas[0].state)
			}
		}
		if got, want := asJSON(View(testNode, replicas[0].state)), asJSON(replicas[0].heard.view(testNode)); got != want {
			t.Fatalf("all agree on\n%s\nbut the oracle says\n%s", got, want)
		}
	})
}

func orSkip(t *rapid.T, post []letter) []letter {
	if len(post) == 0 {
		t.Skip("no letter is on its way")
	}
	return post
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}
