package events

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

func accountOf(boot, seq uint64, host string) record.State {
	r := record.Report{NodeID: "n", Boot: boot, Seq: seq}
	r.Hostname = host
	s, err := record.Accept(record.State{}, r, record.Acceptance{Now: int64(1000 + seq)})
	if err != nil {
		panic(err)
	}
	return s
}

func TestGaveWayIsWhatWasSetAndDoesNotPrevail(t *testing.T) {
	base := accountOf(1, 5, "old")
	drain := func(s record.State, now int64, master, by, value string) record.State {
		return record.Join(s, s.Set(now, master, by, record.FieldDrain, value))
	}
	label := func(s record.State, now int64, master, value string) record.State {
		return record.Join(s, s.Set(now, master, "", record.FieldLabel+"zone", value))
	}
	for _, c := range []struct {
		name              string
		base, here, there record.State
		want              []string
	}{
		{"nothing was set", base, base, base, nil},
		{"each side has another account", base, accountOf(1, 7, "one"), accountOf(2, 1, "two"), nil},
		{"the same override", base, drain(base, 10, "A", "ann", "1"), drain(base, 20, "B", "bob", "1"), nil},
		{"one override", base, drain(base, 10, "A", "ann", "1"), base, nil},
		{"the other's is later", drain(base, 5, "A", "", "1"), drain(base, 10, "A", "ann", "1"),
			drain(base, 20, "B", "bob", ""), []string{"drained by ann through Aspen gave way to no longer drained by bob through Birch"}},
		{"this one's is later", base, label(base, 30, "A", "=one"), label(base, 20, "B", "=two"),
			[]string{"labelled zone=two through Birch gave way to labelled zone=one through Aspen"}},
		{"a label is taken away", base, label(base, 10, "A", "=one"), label(base, 20, "B", record.LabelUnset),
			[]string{"labelled zone=one through Aspen gave way to no longer labelled zone through Birch"}},
		{"it was removed here and booted there", base, record.Join(base, base.Remove(10, "A", "ann", "")), accountOf(2, 1, "two"),
			[]string{"removed by ann through Aspen gave way to boot 2"}},
		{"it was removed on both sides", base, record.Join(base, base.Remove(10, "A", "ann", "")), record.Join(base, base.Remove(20, "B", "bob", "")), nil},
	} {
		name := func(id string) string { return map[string]string{"A": "Aspen", "B": "Birch"}[id] }
		if got := gaveWay(c.base, c.here, c.there, name); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if got := gaveWay(c.base, record.Join(c.base, c.there), c.here, name); !slices.Equal(got, c.want) {
			t.Errorf("%s, seen from the other side: %q, want %q", c.name, got, c.want)
		}
	}
}

// What was set on one side only never gives way, whatever it is.
func TestOneSidePrevails(t *testing.T) {
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
		if got := append(gaveWay(base, base, other, name), gaveWay(base, other, base, name)...); len(got) > 0 {
			r.Errorf("gave way: %q", got)
		}
	})
}
