package membership

import (
	"slices"
	"testing"
	"time"
)

func TestWhoIsPartiallyConnected(t *testing.T) {
	name := func(id string) string { return "M" + id }
	for _, c := range []struct {
		name    string
		masters []hearer
		want    []string
	}{
		{"alone", []hearer{{"a", 0}}, nil},
		{"all hear all", []hearer{{"a", 1000}, {"b", 1000}, {"c", 990}}, nil},
		{"nobody hears anything", []hearer{{"a", 0}, {"b", 0}}, nil},
		{"one hears nothing", []hearer{{"a", 1000}, {"b", 0}, {"c", 990}}, []string{"Mb hears 0 of the 1000 nodes that Ma hears"}},
		{"half is enough", []hearer{{"a", 1000}, {"b", 500}}, nil},
		{"less than half is not", []hearer{{"a", 1000}, {"b", 499}}, []string{"Mb hears 499 of the 1000 nodes that Ma hears"}},
		{"two of three", []hearer{{"a", 0}, {"b", 1}, {"c", 10}}, []string{"Ma hears 0 of the 10 nodes that Mc hears", "Mb hears 1 of the 10 nodes that Mc hears"}},
		{"too few to tell", []hearer{{"a", 0}, {"b", 2}}, nil},
		{"three nodes", []hearer{{"a", 1}, {"b", 3}}, []string{"Ma hears 1 of the 3 nodes that Mb hears"}},
	} {
		var e connectivity
		var published []string
		compare := func(now time.Time) {
			for _, event := range e.compare(now, time.Minute, c.masters, name) {
				published = append(published, event.Text)
			}
		}
		now := time.Now()
		for range 3 { // short moments are not enough
			compare(now)
			now = now.Add(29 * time.Second)
		}
		if len(published) > 0 {
			t.Errorf("%s: told too early: %q", c.name, published)
		}
		for range 3 {
			compare(now)
			now = now.Add(29 * time.Second)
		}
		if !slices.Equal(published, c.want) {
			t.Errorf("%s: %q, want %q", c.name, published, c.want)
		}
	}
}
