package table

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"forge.ourworld.tf/lhumina_code/hero_explorer/crdtstore/record"
)

// Entries that come, change and are dropped leave a table that is the same as one which
// has seen nothing but what is left: its sums, its order, and what it tells.
func TestTableWithDrops(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		tab, want, published := New(), map[string]record.State{}, map[string]*Entry{}
		var read []*Entry // at any time
		id := func() string { return fmt.Sprint("n", rapid.IntRange(0, 5).Draw(r, "node")) }
		r.Repeat(map[string]func(*rapid.T){
			"join": func(*rapid.T) {
				n, s := id(), someState(r)
				if _, after := tab.Join(n, s); after != nil {
					read = append(read, after)
				}
				if joined := record.Join(want[n], s); !joined.IsZero() {
					want[n] = joined
				}
			},
			"drop": func(*rapid.T) {
				if len(read) == 0 {
					return
				}
				e := rapid.SampledFrom(read).Draw(r, "entry")
				current := tab.Get(e.ID) == e
				if tab.Drop(e) != current {
					r.Fatalf("%s was dropped: %v, it is what the table holds: %v", e.ID, !current, current)
				}
				if current {
					delete(want, e.ID)
					delete(published, e.ID)
				}
			},
			"tell": func(*rapid.T) {
				n := id()
				before, after := tab.Publish(n)
				if before != published[n] || after != tab.Get(n) {
					r.Fatalf("%s is told as %p, %p; it was %p and is %p", n, before, after, published[n], tab.Get(n))
				}
				if published[n] = after; after == nil {
					delete(published, n)
				}
			},
			"": func(*rapid.T) {
				check(r, tab, want)
				if tab.Len() != len(want) {
					r.Fatalf("%d entries, want %d", tab.Len(), len(want))
				}
				if n := len(tab.sorted()); n != len(want) {
					r.Fatalf("%d entries are kept in order, of %d", n, len(want))
				}
				fresh := New()
				for n, s := range want {
					fresh.Join(n, s)
				}
				if tab.BucketDigests() != fresh.BucketDigests() {
					r.Fatal("the digests of buckets are others than those of a table that has seen no drops")
				}
				var after []string
				for e := range tab.After("n2") {
					after = append(after, e.ID)
				}
				for _, n := range []string{"n3", "n4", "n5"} {
					if _, ok := want[n]; ok && (len(after) == 0 || after[0] != n) {
						r.Fatalf("after n2 come %q", after)
					} else if ok {
						after = after[1:]
					}
				}
				if len(after) > 0 {
					r.Fatalf("after n2 come %q as well", after)
				}
			},
		})
	})
}

// The bucket of a node is part of the protocol: FNV-1a, as docs/protocol.md says.
func TestBucketIsThatOfTheProtocol(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		id := rapid.StringN(0, 40, -1).Draw(r, "id")
		h := uint32(2166136261)
		for _, b := range []byte(id) {
			h = (h ^ uint32(b)) * 16777619
		}
		if want := int(byte(h>>24) ^ byte(h>>16) ^ byte(h>>8) ^ byte(h)); Bucket(id) != want {
			r.Errorf("bucket %d, want %d", Bucket(id), want)
		}
	})
}

// What lists are filtered and summed up by is that of the view.
func TestEntryIsItsView(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		report := record.Report{NodeID: "n", Boot: 1, Seq: 1}
		names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,3}`), 0, 8, rapid.ID).Draw(r, "labels")
		report.Labels = map[string]string{}
		for i, n := range names {
			report.Labels[n] = fmt.Sprint(i)
		}
		states := map[string]int{}
		for i, s := range rapid.SliceOfN(rapid.SampledFrom([]string{"running", "stopped", "failed", ""}), 0, 8).Draw(r, "vms") {
			report.VMs = append(report.VMs, record.VM{SID: fmt.Sprint("vm", i), State: s})
			states[s]++
		}
		s, err := record.Accept(record.State{}, report, record.Acceptance{Now: 1000})
		if err != nil {
			r.Fatal(err)
		}
		_, e := New().Join("n", s)
		for _, n := range append(names, "none", "") {
			got, ok := e.Label(n)
			if want, is := report.Labels[n]; ok != is || got != want {
				r.Errorf("label %q is %q, %v, want %q, %v", n, got, ok, want, is)
			}
		}
		for _, c := range e.VMs {
			if states[c.State] != c.VMs {
				r.Errorf("%d VMs are %q, want %d", c.VMs, c.State, states[c.State])
			}
			delete(states, c.State)
		}
		if len(states) > 0 {
			r.Errorf("not counted are %v", states)
		}
		if len(e.ListVMs()) != len(report.VMs) {
			r.Errorf("%d VMs are listed of %d", len(e.ListVMs()), len(report.VMs))
		}
	})
}
