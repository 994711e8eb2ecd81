package replica

import (
	"errors"
	"slices"
	"testing"
	"time"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/membership"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// joiner is a replica that joins, beside masters of which those in direct can be asked.
type joiner struct {
	*clocked
	t      *testing.T
	direct map[string]bool
}

func (j *joiner) Direct(id string) bool { return j.direct[id] }

func newJoiner(t *testing.T, damaged bool) *joiner {
	j := &joiner{clocked: newClocked(t), t: t, direct: map[string]bool{}}
	j.joining.grid = j
	j.BeginJoining(damaged)
	return j
}

// says has a master say that it holds something else than this one.
func (j *joiner) says(id string, holds ...string) Step {
	j.t.Helper()
	step, err := j.Observe(j.t.Context(), id, Summary{Epoch: 1, Digest: record.Digest{1}, Holds: holds})
	if err != nil {
		j.t.Fatal(err)
	}
	return step
}

func (j *joiner) compares(id string, err error) {
	j.Comparing(id)
	j.Compared(id, 1, err)
}

func (j *joiner) joins(want bool, why string) {
	j.t.Helper()
	if _, is := j.Joining(); is != want {
		j.t.Errorf("%s: joining is %v", why, is)
	}
}

func (j *joiner) tries(peers Sought, want bool, why string) (reached bool) {
	j.t.Helper()
	ended, reached := j.EndJoining(peers)
	if ended != want {
		j.t.Errorf("%s: the joining ends: %v", why, ended)
	}
	return reached
}

func TestJoiningEndsWithAnExchangeWithEach(t *testing.T) {
	j := newJoiner(t, false)
	j.direct["m2"], j.direct["m3"] = true, true
	j.tries(AllMet, false, "nobody was heard")
	if j.says("m2") != Compare || j.says("m3", "m2") != Compare {
		t.Error("a new master does not compare states at once")
	}
	j.compares("m3", nil)
	j.tries(AllMet, false, "m2 can be asked, so it counts little that m3 has what it has")
	j.compares("m2", errors.New("broke off"))
	j.tries(AllMet, false, "the comparison broke off")
	j.compares("m2", nil)
	if got := j.Holds(); !slices.Equal(got, []string{"m2", "m3"}) {
		t.Errorf("it holds what %v hold", got)
	}
	j.tries(SomeMissing, false, "a configured master is still being looked for")
	if !j.tries(AllMet, true, "all were asked") {
		t.Error("it says that nobody was reached")
	}
	j.joins(false, "all were asked")
	if step := j.says("m2"); step != Rest {
		t.Errorf("a master that is whole takes step %d at once", step)
	}
}

func TestMissingPeersAreWaitedForALittle(t *testing.T) {
	j := newJoiner(t, false)
	j.direct["m2"] = true
	j.says("m2")
	j.compares("m2", nil)
	j.pass(int64(seeking/time.Millisecond) - 1)
	j.tries(SomeMissing, false, "it looks for another")
	j.pass(1)
	j.tries(SomeMissing, true, "it has looked long enough")
}

// What a master that cannot be asked holds comes by way of those who can.
func TestJoiningBeyondABridge(t *testing.T) {
	j := newJoiner(t, false)
	j.direct["bridge"] = true
	j.says("far")
	j.says("bridge")
	j.compares("bridge", nil)
	j.tries(AllMet, false, "nobody has had what the far one holds")
	if step := j.says("bridge", "far"); step != Compare {
		t.Errorf("the bridge has it now, and the step is %d", step)
	}
	j.Comparing("bridge")
	j.says("bridge", "far", "farther")
	j.says("farther")
	j.Compared("bridge", 1, nil)
	if got := j.Holds(); !slices.Equal(got, []string{"bridge", "far"}) {
		t.Errorf("it holds what %v hold; the bridge had no more when they compared", got)
	}
	j.tries(AllMet, false, "the farther one is missing")
	j.compares("bridge", nil)
	j.tries(AllMet, true, "the bridge had everything")
}

func TestNobodyIsWaitedForForEver(t *testing.T) {
	t.Run("nobody is there", func(t *testing.T) {
		j := newJoiner(t, false)
		j.pass(int64(lonely / time.Millisecond))
		if j.tries(SomeMissing, true, "nobody is there") {
			t.Error("it says that somebody was reached")
		}
	})
	t.Run("there is only this master", func(t *testing.T) {
		newJoiner(t, false).tries(OnlySelf, true, "nobody is looked for")
	})
	t.Run("it falls silent", func(t *testing.T) {
		j := newJoiner(t, false)
		j.direct["m2"] = true
		j.says("m2")
		j.pass(int64(membership.SuspectAfter/time.Millisecond) + 1)
		j.tries(AllMet, true, "it is silent")
	})
	t.Run("it leaves", func(t *testing.T) {
		j := newJoiner(t, false)
		j.direct["m2"], j.direct["m3"] = true, true
		j.says("m2")
		j.says("m3")
		j.compares("m3", nil)
		j.Left("m2")
		j.tries(AllMet, true, "it has left")
	})
	t.Run("it speaks, and breaks every exchange off", func(t *testing.T) {
		j := newJoiner(t, false)
		j.direct["liar"], j.direct["m2"] = true, true
		for range 70 {
			j.says("liar")
			j.says("m2")
			j.compares("liar", errors.New("reset"))
			j.tries(AllMet, false, "m2 was not asked")
			j.pass(1000)
		}
		j.compares("m2", nil)
		j.tries(AllMet, true, "a minute is over")
	})
	t.Run("it is heard, and nobody has what it holds", func(t *testing.T) {
		j := newJoiner(t, false)
		j.direct["m2"] = true
		for range 61 {
			j.says("ghost")
			j.says("m2")
			j.pass(1000)
		}
		j.compares("m2", nil)
		j.says("ghost")
		j.tries(AllMet, true, "a minute is over")
	})
	t.Run("it makes up names", func(t *testing.T) {
		j := newJoiner(t, false)
		for i := range 2 * maxSources {
			j.says(string(rune('a' + i)))
		}
		if len(j.joining.sources) > maxSources {
			t.Errorf("%d masters are remembered", len(j.joining.sources))
		}
	})
}

// A damaged history is completed by somebody else, however long it takes.
func TestDamageIsCompletedByAnother(t *testing.T) {
	j := newJoiner(t, true)
	j.pass(3_600_000)
	j.tries(SomeMissing, false, "nobody has completed it")
	j.direct["m2"] = true
	j.Met("m2")
	j.tries(AllMet, false, "it was only met")
	j.compares("m2", nil)
	j.tries(AllMet, true, "it was completed")
}

// A master that is in another epoch, and cannot follow, is asked all the same.
func TestJoiningAcrossEpochs(t *testing.T) {
	j := newJoiner(t, false)
	j.direct["m2"] = true
	if step, err := j.Observe(t.Context(), "m2", Summary{Epoch: 0, Digest: record.Digest{1}}); step != Compare || err != nil {
		t.Errorf("step %d, %v", step, err)
	}
}

// Blocks come before states: they need not be written once more. They are not waited for.
func TestJoiningFetchesBlocksFirst(t *testing.T) {
	j := newJoiner(t, false)
	j.direct["m2"] = true
	if step := j.says("m2"); step != Compare {
		t.Errorf("no block is missing, and the step is %d", step)
	}
	if step := j.joiningStep("m2", Pull); step != Pull {
		t.Errorf("a block is missing, and the step is %d", step)
	}
	if step := j.Pulled("m2", 3, errors.New("broke off")); step != Rest {
		t.Errorf("the step after a transfer that broke off is %d", step)
	}
	if step := j.joiningStep("m2", Pull); step != Pull {
		t.Errorf("the transfer brought something and broke off, and the step is %d", step)
	}
	if step := j.Pulled("m2", 3, nil); step != Compare {
		t.Errorf("the step after a transfer is %d", step)
	}
	if step := j.joiningStep("m2", Pull); step != Compare {
		t.Errorf("the blocks were fetched, others are on their way, and the step is %d", step)
	}
}

func TestReplacedMasterWaits(t *testing.T) {
	alone := newJoiner(t, false)
	alone.pass(int64(time.Hour / time.Millisecond))
	alone.tries(Replaced, false, "a master lives that knows another one in its place")
	alone.tries(SomeMissing, true, "that one is gone")

	j := newJoiner(t, false)
	j.direct["m2"] = true
	j.says("m2")
	j.compares("m2", nil)
	j.tries(Replaced, false, "others are still looked for")
	j.pass(int64(seeking / time.Millisecond))
	j.tries(Replaced, true, "another one holds what there is")
}
