package crdtstore

import (
	"bytes"
	"crypto/ed25519"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

func accountOf(boot, seq uint64, host string) record.State {
	r := Report{NodeID: "n", Boot: boot, Seq: seq}
	r.Hostname = host
	s, err := record.Accept(record.State{}, r, record.Acceptance{Now: int64(1000 + seq)})
	if err != nil {
		panic(err)
	}
	return s
}

func TestLossesAreWhatWasSaidAndDoesNotStand(t *testing.T) {
	base := accountOf(1, 5, "old")
	drain := func(s record.State, now int64, master, by, value string) record.State {
		return record.Join(s, s.Set(now, master, by, record.FieldDrain, value))
	}
	label := func(s record.State, now int64, master, value string) record.State {
		return record.Join(s, s.Set(now, master, "", record.FieldLabel+"zone", value))
	}
	later := base
	later.LastSeen = 5000
	again := accountOf(1, 7, "one")
	again.Claims[0].Profile.At++
	for _, c := range []struct {
		name              string
		base, here, there record.State
		want              []string
	}{
		{"nothing was said", base, base, later, nil},
		{"it was new on both sides, and the same", base, accountOf(1, 7, "one"), again, nil},
		{"only the other side heard it", base, base, accountOf(1, 9, "two"), nil},
		{"only this side heard it", base, accountOf(1, 9, "two"), base, nil},
		{"each side heard it", base, accountOf(1, 7, "one"), accountOf(2, 1, "two"), []string{"account 1/7 gave way to 2/1"}},
		{"the other way round", base, accountOf(2, 1, "two"), accountOf(1, 7, "one"), []string{"account 1/7 gave way to 2/1"}},
		{"it counts wrongly", base, accountOf(1, 7, "a"), accountOf(1, 7, "b"), []string{"account 1/7 gave way to another one of that version"}},
		{"the same word", base, drain(base, 10, "A", "ann", "1"), drain(base, 20, "B", "bob", "1"), nil},
		{"one word", base, drain(base, 10, "A", "ann", "1"), base, nil},
		{"the other's word is later", drain(base, 5, "A", "", "1"), drain(base, 10, "A", "ann", "1"),
			drain(base, 20, "B", "bob", ""), []string{"drained (by ann through Aspen) gave way to not drained (by bob through Birch)"}},
		{"this one's word is later", base, label(base, 30, "A", "=one"), label(base, 20, "B", "=two"),
			[]string{"label zone=two (through Birch) gave way to label zone=one (through Aspen)"}},
		{"a label is taken away", base, label(base, 10, "A", "=one"), label(base, 20, "B", record.LabelUnset),
			[]string{"label zone=one (through Aspen) gave way to no label zone (through Birch)"}},
		{"it was removed here and booted there", base, record.Join(base, base.Remove(10, "A", "ann", "")), accountOf(2, 1, "two"),
			[]string{"the removal (by ann through Aspen) gave way to boot 2"}},
		{"it spoke here and was removed there", base, accountOf(1, 7, "one"), record.Join(base, base.Remove(10, "B", "bob", "")),
			[]string{"account 1/7 gave way to a removal"}},
		{"another key took it over there", base, accountOf(2, 1, "two"), takenOver(base), []string{"account 2/1 gave way to another identity"}},
		{"it was removed on both sides", base, record.Join(base, base.Remove(10, "A", "ann", "")), record.Join(base, base.Remove(20, "B", "bob", "")), nil},
	} {
		name := func(id string) string { return map[string]string{"A": "Aspen", "B": "Birch"}[id] }
		if got := overridden(c.base, c.here, c.there, name); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if got := overridden(c.base, record.Join(c.base, c.there), c.here, name); !slices.Equal(got, c.want) {
			t.Errorf("%s, seen from the other side: %q, want %q", c.name, got, c.want)
		}
	}
}

// What was said on one side only is never lost, whatever it is.
func TestOneSideLosesNothing(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		draw := func(s record.State) record.State {
			for range rapid.IntRange(0, 4).Draw(r, "times") {
				now := rapid.Int64Range(1, 50).Draw(r, "now")
				switch rapid.IntRange(0, 3).Draw(r, "what") {
				case 0:
					s = record.Join(s, accountOf(1+s.Boot(), rapid.Uint64Range(1, 9).Draw(r, "seq"), "x"))
				case 1:
					s = record.Join(s, s.Set(now, "A", "", record.FieldDrain, rapid.SampledFrom([]string{"", "1"}).Draw(r, "drain")))
				default:
					s = record.Join(s, s.Remove(now, "A", "", ""))
				}
			}
			return s
		}
		base := draw(accountOf(1, 1, "x"))
		other := draw(base)
		name := func(id string) string { return id }
		if got := append(overridden(base, base, other, name), overridden(base, other, base, name)...); len(got) > 0 {
			r.Errorf("lost: %q", got)
		}
	})
}

// takenOver is a node that was removed and whose id a key then claimed.
func takenOver(s record.State) record.State {
	s = record.Join(s, s.Remove(10, "B", "bob", ""))
	r := Report{NodeID: "n", Boot: 1, Seq: 1}
	r.Sign(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize)))
	news, err := record.Accept(s, r, record.Acceptance{Now: 20})
	if err != nil {
		panic(err)
	}
	return record.Join(s, news)
}
