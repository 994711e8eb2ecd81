package antientropy_test

import (
	"slices"
	"testing"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/internal/antientropy"
	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// What differs has the names that readers know.
func TestFieldsOfADifference(t *testing.T) {
	const now = 1_700_000_000_000
	state := func(known record.State, seq uint64, host string) record.State {
		t.Helper()
		r := record.Report{NodeID: "n", Boot: 1, Seq: seq, Profile: record.Profile{Hostname: host}}
		news, err := record.Accept(known, r, record.Acceptance{Now: now})
		if err != nil {
			t.Fatal(err)
		}
		return record.Join(known, news)
	}
	one := state(record.State{}, 1, "one")
	drained := record.Join(one, one.Set(now+1, "m1", "ann", record.FieldDrain, "1"))
	undrained := record.Join(drained, drained.Set(now+2, "m1", "ann", record.FieldDrain, ""))
	again := record.Join(undrained, undrained.Set(now+2, "m2", "ann", record.FieldDrain, ""))
	for name, c := range map[string]struct {
		self, other record.State
		want        []string
	}{
		"nothing here":    {record.State{}, one, []string{"missing_here"}},
		"nothing there":   {one, record.State{}, []string{"missing_there"}},
		"another account": {one, state(one, 2, "two"), []string{"seq", "hostname"}}, // hostname is of an embedded struct
		"an override":     {one, drained, []string{"drained", "updated_at"}},
		"who set it":      {undrained, again, []string{"history"}},
	} {
		got := antientropy.Difference{Node: "n", Self: c.self, Other: c.other}.Fields()
		if slices.Sort(got); !slices.Equal(got, slices.Sorted(slices.Values(c.want))) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
